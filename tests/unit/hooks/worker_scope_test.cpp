// SPDX-License-Identifier: BSL-1.0

// Workers that enter, nest, leave, or never said that they came.

#include <gmock/gmock.h>

#include <asio_pulse/hooks/poll_path.hpp>
//
#include <latch>
#include <thread>

#include "poll_path_fakes.hpp"

namespace {

using namespace hooks_test;

class worker_scope_test : public testing::Test {
 protected:
  worker_scope_test() {
    make_known(&scheduler, observer);
    make_known(&other_scheduler, other);
  }
  ~worker_scope_test() override {
    for (const fake_observer* o : {&observer, &other}) {
      EXPECT_EQ(o->workers, 0);
      EXPECT_TRUE(o->destroyed.empty());
    }
    EXPECT_EQ(references(a), 1U);
    EXPECT_EQ(references(b), 1U);
    EXPECT_EQ(this_thread().current, nullptr);
    EXPECT_EQ(this_thread().observer, nullptr);
  }
  asio_pulse::timing::manual_clock time;
  fake_observer observer{time};
  fake_observer other{time};
  task_record a{observer};
  task_record b{other};
  char scheduler = 0;
  char other_scheduler = 0;
};

TEST_F(worker_scope_test, attaches_and_detaches) {
  EXPECT_EQ(this_thread().observer, nullptr);
  {
    const worker_scope worker(&scheduler, observer, true);
    EXPECT_EQ(observer.workers, 1);
    EXPECT_EQ(this_thread().observer, &observer);
    EXPECT_EQ(this_thread().unnamed, &observer.nobody);
  }
  EXPECT_EQ(this_thread().observer, nullptr);
}

TEST_F(worker_scope_test, the_same_contexts_scope_inside_it_does_not_count_as_a_worker) {
  const worker_scope outer(&scheduler, observer, true);
  {
    const worker_scope inner(&scheduler, observer, true);
    EXPECT_EQ(observer.workers, 1);
    EXPECT_EQ(observer.attachments, 1);
  }
  EXPECT_EQ(observer.workers, 1);
}

TEST_F(worker_scope_test, a_nested_run_of_another_context_is_charged_to_its_own_tasks) {
  {
    const worker_scope outer(&scheduler, observer, true);
    poll(&scheduler, &a, [&] {
      time.run(100us);
      {
        const worker_scope inner(&other_scheduler, other, true);
        EXPECT_EQ(observer.workers, 1);
        EXPECT_EQ(other.workers, 1);
        poll(&other_scheduler, &b, [&] {
          EXPECT_EQ(this_thread().current, &b);
          time.run(300us);
        });
        time.run(1ms);  // the inner reactor's
        EXPECT_EQ(this_thread().current, &a) << "between polls: what the run was called in";
      }
      EXPECT_EQ(other.workers, 0);
      observer.use_clock(this_thread());
      EXPECT_EQ(this_thread().current, &a);
      EXPECT_EQ(this_thread().observer, &observer);
      time.run(50us);
    });
  }
  EXPECT_EQ(polls(b), 1U);
  expect_about(cost(b), 300us);
  EXPECT_EQ(polls(a), 1U);
  expect_about(cost(a), 150us);
  EXPECT_EQ(polls(observer.nobody) + polls(other.nobody), 0U);
}

TEST_F(worker_scope_test, a_nested_poll_of_the_same_context_gives_the_handler_its_task_back) {
  task_record c(observer);
  {
    const worker_scope outer(&scheduler, observer, true);
    poll(&scheduler, &a, [&] {
      time.run(10us);
      {
        const worker_scope inner(&scheduler, observer, true);
        observer.use_clock(this_thread());
        for (int i = 0; i < 3; ++i) poll(&scheduler, &c, [&] { time.run(20us); });
        poll(&scheduler, &a, [&] { time.run(1us); });
        poll(&scheduler, nullptr, [&] { time.run(2us); });
      }
      observer.use_clock(this_thread());
      EXPECT_EQ(this_thread().current, &a);
      time.run(5us);
    });
    poll(&scheduler, &a, [&] { time.run(3us); });
  }
  EXPECT_EQ(polls(c), 3U);
  expect_about(cost(c), 60us);
  EXPECT_EQ(polls(a), 3U);
  expect_about(cost(a), 19us);
  EXPECT_EQ(polls(observer.nobody), 1U);
  EXPECT_EQ(references(c), 1U);
}

TEST_F(worker_scope_test, an_exception_through_it_restores_everything) {
  const worker_scope outer(&scheduler, observer, true);
  poll(&scheduler, &a, [&] {
    try {
      const worker_scope inner(&other_scheduler, other, true);
      poll(&other_scheduler, &b, [] { throw 1; });
    } catch (int) {
    }
    EXPECT_EQ(this_thread().current, &a);
    EXPECT_EQ(this_thread().observer, &observer);
    EXPECT_EQ(other.workers, 0);
  });
  EXPECT_EQ(polls(b), 1U);
}

TEST_F(worker_scope_test, disabled_it_labels_and_observes_nothing) {
  {
    const worker_scope worker(&scheduler, observer, false);
    EXPECT_EQ(observer.attachments, 0);
    for (int i = 0; i < 3; ++i) {
      poll(&scheduler, &a, [&] {
        EXPECT_EQ(this_thread().current, &a);
        time.run(1ms);
      });
      poll(&scheduler, nullptr, [&] { EXPECT_EQ(this_thread().current, nullptr); });
      operation op = operation_of(&a);
      EXPECT_FALSE(gate(&scheduler, &op, op));
    }
  }
  EXPECT_EQ(polls(a) + polls(observer.nobody), 0U);
  EXPECT_TRUE(observer.asked.empty());
}

TEST_F(worker_scope_test, disabled_it_keeps_the_task_of_a_poll_whatever_completes_inside_it) {
  task_record c(observer);
  const belongs_to scope(&c);  // run() is called in a task's scope
  {
    const worker_scope worker(&scheduler, observer, false);
    for (int i = 0; i < 3; ++i) {
      poll(&scheduler, &a, [&] {
        // Its only references are the test's and the worker's.
        EXPECT_GE(references(a), 2U);
        for (task_record* inner : {&b, &a, static_cast<task_record*>(nullptr), &b}) {
          poll(&scheduler, inner, [&] { EXPECT_EQ(this_thread().current, inner); });
          EXPECT_EQ(this_thread().current, &a);
          EXPECT_GE(references(a), 2U);
        }
        {
          const worker_scope nested(&scheduler, observer, false);
          poll(&scheduler, &b, [&] { EXPECT_EQ(this_thread().current, &b); });
          EXPECT_EQ(this_thread().current, &a);
        }
        {
          const worker_scope nested(&other_scheduler, other, true);
          poll(&other_scheduler, &b, [&] { EXPECT_EQ(this_thread().current, &b); });
        }
        EXPECT_EQ(this_thread().current, &a);
        EXPECT_GE(references(a), 2U);
        EXPECT_EQ(this_thread().observer, nullptr);
      });
      EXPECT_EQ(this_thread().current, &c);
      EXPECT_THROW(poll(&scheduler, &b, [] { throw 1; }), int);
      EXPECT_EQ(this_thread().current, &c);
    }
  }
  EXPECT_EQ(polls(b), 3U) << "of the one that is on";
  EXPECT_EQ(polls(a) + polls(c) + polls(observer.nobody), 0U);
}

TEST_F(worker_scope_test, disabled_a_chain_of_one_tasks_operations_leaves_the_count_alone) {
  const worker_scope worker(&scheduler, observer, false);
  expect_chain_leaves_count_alone(&scheduler, a);
}

TEST_F(worker_scope_test, disabled_a_strands_handlers_are_their_tasks_and_its_drain_is_nobodys) {
  char implementation = 0;
  const belongs_to scope(&b);
  const worker_scope worker(&scheduler, observer, false);
  for (int i = 0; i < 3; ++i) {
    poll(
        &scheduler, &a,
        [&] {
          EXPECT_EQ(this_thread().current, nullptr);
          for (task_record* t : {&a, &b, &b, &a, static_cast<task_record*>(nullptr)}) {
            poll(&implementation, t, [&] { EXPECT_EQ(this_thread().current, t); });
            EXPECT_EQ(this_thread().current, nullptr);
          }
        },
        strand);
    EXPECT_EQ(this_thread().current, &b);
  }
}

TEST_F(worker_scope_test, disabled_an_operation_that_is_destroyed_is_nobodys_turn) {
  const worker_scope worker(&scheduler, observer, false);
  for (int i = 0; i < 3; ++i) {
    poll(&scheduler, &a, [] {});
    poll(nullptr, &a, [] { EXPECT_EQ(this_thread().current, nullptr); });
    EXPECT_GE(references(a), 2U) << "the worker's";
  }
}

TEST_F(worker_scope_test, disabled_it_gives_a_tasks_last_reference_back_at_the_end) {
  {
    const worker_scope worker(&scheduler, observer, false);
    task_record* const gone = new task_record(observer);
    poll(&scheduler, gone, [&] {
      release(*gone);  // the test's own
      EXPECT_TRUE(observer.destroyed.empty());
    });
    EXPECT_TRUE(observer.destroyed.empty());
    poll(&scheduler, &a, [] {});
    EXPECT_THAT(observer.destroyed, testing::ElementsAre(gone));
    observer.destroyed.clear();
    delete gone;
  }
}

TEST_F(worker_scope_test, turns_are_counted_by_the_innermost) {
  worker_scope outer(&scheduler, observer, true);
  ++this_thread().phantom_turns;
  {
    const worker_scope inner(&scheduler, observer, true);
    EXPECT_EQ(inner.phantom_turns(), 0U);
    this_thread().phantom_turns += 3;
    operation op = operation_of(&a);
    op.set(tracked_operation::resumes);
    { const poll_frame frame(&scheduler, op, handler); }
    EXPECT_EQ(inner.phantom_turns(), 3U);
    EXPECT_EQ(inner.extra_turns(), 1U);
  }
  EXPECT_EQ(outer.phantom_turns(), 1U);
  EXPECT_EQ(outer.extra_turns(), 0U);
  outer.reset_turns();
  EXPECT_EQ(outer.phantom_turns(), 0U);
}

// ---- runs through a base-class reference

TEST_F(worker_scope_test, a_thread_that_never_said_so_is_recognised_by_its_scheduler) {
  add_observer(&scheduler, observer);
  std::thread([&] {
    poll(&scheduler, &a, [&] { time.run(2us); });
    EXPECT_EQ(observer.workers, 1);
    poll(&scheduler, &a, [&] {
      EXPECT_EQ(this_thread().current, &a);
      time.run(3us);
    });
    EXPECT_EQ(observer.attachments, 1);
    operation op = operation_of(&a);
    observer.holds = true;
    EXPECT_TRUE(gate(&scheduler, &op, op));
  }).join();
  // The thread's end is its leaving.
  EXPECT_EQ(observer.workers, 0);
  EXPECT_EQ(polls(a), 2U);
  expect_about(cost(a), 5us);
  EXPECT_EQ(references(a), 1U);
  remove_observer(&scheduler);
}

TEST_F(worker_scope_test, such_a_thread_changes_over_to_the_next_context) {
  add_observer(&scheduler, observer);
  add_observer(&other_scheduler, other);
  std::thread([&] {
    poll(&scheduler, &a, [&] { time.run(2us); });
    poll(&other_scheduler, &b, [&] { time.run(3us); });
    EXPECT_EQ(observer.workers, 0);
    EXPECT_EQ(other.workers, 1);
    EXPECT_EQ(polls(a), 1U);
    {
      const worker_scope worker(&scheduler, observer, true);
      EXPECT_EQ(other.workers, 0) << "left over";
      EXPECT_EQ(polls(b), 1U);
      poll(&scheduler, &a, [] {});
    }
  }).join();
  EXPECT_EQ(polls(a), 2U);
  remove_observer(&scheduler);
  remove_observer(&other_scheduler);
}

TEST_F(worker_scope_test, a_removed_observer_is_not_asked_again) {
  add_observer(&scheduler, observer);
  std::thread([&] {
    poll(&scheduler, &a, [&] { time.run(2us); });
    remove_observer(&scheduler);
    poll(&scheduler, &a, [&] { EXPECT_EQ(this_thread().current, &a); });
    EXPECT_EQ(observer.workers, 0);
    poll(&scheduler, nullptr, [] {});
    EXPECT_EQ(observer.attachments, 1);
  }).join();
  EXPECT_EQ(polls(a), 1U);
}

// ---- several workers

TEST_F(worker_scope_test, one_becomes_several_and_one_again) {
  const worker_scope worker(&scheduler, observer, true);
  const auto shares = [&] {
    bool shared = false;
    poll(&scheduler, &a, [&] { shared = this_thread().shared; });
    return shared;
  };
  EXPECT_FALSE(shares());
  EXPECT_FALSE(shares());
  observer.state.fetch_add(path_state::generation | path_state::several_workers);
  EXPECT_TRUE(shares());
  EXPECT_TRUE(shares());
  observer.state.fetch_add(path_state::generation - path_state::several_workers);
  EXPECT_FALSE(shares());
}

TEST_F(worker_scope_test, two_threads_that_poll_one_task_lose_no_charge) {
  constexpr int each = 2'000;
  observer.state.fetch_or(path_state::several_workers);
  std::latch start(2);
  const auto work = [&](fake_observer& with) {
    start.arrive_and_wait();
    const worker_scope worker(&scheduler, with, true);
    for (int i = 0; i < each; ++i) poll(&scheduler, &a, [] {});
  };
  // An observer each, as the fake's notes are not for two threads: for one of them the task is
  // another context's.
  other.state.fetch_or(path_state::several_workers);
  std::thread second([&] { work(other); });
  work(observer);
  second.join();
  EXPECT_EQ(polls(a), 2U * each);
  EXPECT_TRUE(a.shared.load());
}

TEST_F(worker_scope_test,
       a_task_that_another_contexts_worker_polls_is_charged_atomically_everywhere) {
  const auto before = observer.state.load();
  {
    const worker_scope worker(&scheduler, observer, true);
    poll(&scheduler, &a, [] { EXPECT_FALSE(this_thread().shared); });
  }
  EXPECT_FALSE(a.shared.load());
  {
    const worker_scope worker(&other_scheduler, other, true);
    a.attention = 0;
    poll(&other_scheduler, &a, [&] {
      EXPECT_TRUE(this_thread().shared);
      time.run(4us);
    });
    // Whoever polls it looks at it.
    ASSERT_EQ(other.seen.size(), 1U);
    EXPECT_EQ(other.seen[0].task, &a);
    EXPECT_TRUE(observer.seen.empty());
  }
  EXPECT_TRUE(a.shared.load());
  EXPECT_NE(observer.state.load(), before) << "its own workers must leave their fast path";
  {
    const worker_scope worker(&scheduler, observer, true);
    poll(&scheduler, &a, [] { EXPECT_TRUE(this_thread().shared); });
  }
  EXPECT_EQ(polls(a), 3U);
}

}  // namespace
