// SPDX-License-Identifier: BSL-1.0

// Workers that enter, nest and leave, and those that do not announce themselves.

#include <asio_pulse/hooks/poll_path.hpp>

#include <gmock/gmock.h>
//
#include "poll_path_fakes.hpp"

#include <cstdint>
#include <latch>
#include <thread>

namespace {

using namespace hooks_test;

bool is_shared_here() { return (this_thread().charging & charging_mode::shared) != 0; }

class worker_scope_test : public testing::Test {
 protected:
  worker_scope_test() {
    make_known(&scheduler, arbiter);
    make_known(&other_scheduler, other);
  }
  ~worker_scope_test() override {
    for (const fake_arbiter* o : {&arbiter, &other}) {
      EXPECT_EQ(o->workers, 0);
      EXPECT_TRUE(o->destroyed.empty());
    }
    EXPECT_EQ(references(a), 1U);
    EXPECT_EQ(references(b), 1U);
    EXPECT_EQ(this_thread().current, nullptr);
    EXPECT_EQ(this_thread().arbiter, nullptr);
  }
  asio_pulse::timing::manual_clock time;
  fake_arbiter arbiter{time};
  fake_arbiter other{time};
  task_record a{arbiter};
  task_record b{other};
  char scheduler = 0;
  char other_scheduler = 0;
};

TEST_F(worker_scope_test, attaches_and_detaches) {
  EXPECT_EQ(this_thread().arbiter, nullptr);
  {
    const worker_scope worker(&scheduler, arbiter, true);
    EXPECT_EQ(arbiter.workers, 1);
    EXPECT_EQ(this_thread().arbiter, &arbiter);
    EXPECT_EQ(this_thread().unnamed, &arbiter.unnamed_task);
  }
  EXPECT_EQ(this_thread().arbiter, nullptr);
}

// As after a poll() that ran no handler.
TEST_F(worker_scope_test, an_operation_that_is_destroyed_after_it_is_no_poll) {
  ASSERT_EQ(arbiter.state, 0U);
  { const worker_scope worker(&scheduler, arbiter, true); }
  operation op;
  const poll_frame destroyed(nullptr, op, handler);
  EXPECT_EQ(this_thread().top.load(), nullptr);
}

TEST_F(worker_scope_test, the_same_contexts_scope_inside_it_does_not_count_as_a_worker) {
  const worker_scope outer(&scheduler, arbiter, true);
  {
    const worker_scope inner(&scheduler, arbiter, true);
    EXPECT_EQ(arbiter.workers, 1);
    EXPECT_EQ(arbiter.attachments, 1);
  }
  EXPECT_EQ(arbiter.workers, 1);
}

TEST_F(worker_scope_test, a_nested_run_of_another_context_is_charged_to_its_own_tasks) {
  {
    const worker_scope outer(&scheduler, arbiter, true);
    poll(&scheduler, &a, [&] {
      time.run(100us);
      {
        const worker_scope inner(&other_scheduler, other, true);
        EXPECT_EQ(arbiter.workers, 1);
        EXPECT_EQ(other.workers, 1);
        poll(&other_scheduler, &b, [&] {
          EXPECT_EQ(this_thread().current, &b);
          time.run(300us);
        });
        time.run(1ms);  // the inner reactor's
        EXPECT_EQ(this_thread().current, &a) << "between polls: what the run was called in";
      }
      EXPECT_EQ(other.workers, 0);
      arbiter.use_clock(this_thread());
      EXPECT_EQ(this_thread().current, &a);
      EXPECT_EQ(this_thread().arbiter, &arbiter);
      time.run(50us);
    });
  }
  EXPECT_EQ(polls(b), 1U);
  expect_about(cost(b), 300us);
  EXPECT_EQ(polls(a), 1U);
  expect_about(cost(a), 150us);
  EXPECT_EQ(polls(arbiter.unnamed_task) + polls(other.unnamed_task), 0U);
}

TEST_F(worker_scope_test, a_nested_poll_of_the_same_context_gives_the_handler_its_task_back) {
  task_record c(arbiter);
  {
    const worker_scope outer(&scheduler, arbiter, true);
    poll(&scheduler, &a, [&] {
      time.run(10us);
      {
        const worker_scope inner(&scheduler, arbiter, true);
        arbiter.use_clock(this_thread());
        for (int i = 0; i < 3; ++i) poll(&scheduler, &c, [&] { time.run(20us); });
        poll(&scheduler, &a, [&] { time.run(1us); });
        poll(&scheduler, nullptr, [&] { time.run(2us); });
      }
      arbiter.use_clock(this_thread());
      EXPECT_EQ(this_thread().current, &a);
      time.run(5us);
    });
    poll(&scheduler, &a, [&] { time.run(3us); });
  }
  EXPECT_EQ(polls(c), 3U);
  expect_about(cost(c), 60us);
  EXPECT_EQ(polls(a), 3U);
  expect_about(cost(a), 19us);
  EXPECT_EQ(polls(arbiter.unnamed_task), 1U);
  EXPECT_EQ(references(c), 1U);
}

TEST_F(worker_scope_test, an_exception_through_it_restores_everything) {
  const worker_scope outer(&scheduler, arbiter, true);
  poll(&scheduler, &a, [&] {
    try {
      const worker_scope inner(&other_scheduler, other, true);
      poll(&other_scheduler, &b, [] { throw 1; });
    } catch (int) {
    }
    EXPECT_EQ(this_thread().current, &a);
    EXPECT_EQ(this_thread().arbiter, &arbiter);
    EXPECT_EQ(other.workers, 0);
  });
  EXPECT_EQ(polls(b), 1U);
}

TEST_F(worker_scope_test, disabled_it_labels_and_observes_nothing) {
  {
    const worker_scope worker(&scheduler, arbiter, false);
    EXPECT_EQ(arbiter.attachments, 0);
    for (int i = 0; i < 3; ++i) {
      poll(&scheduler, &a, [&] {
        EXPECT_EQ(this_thread().current, &a);
        time.run(1ms);
      });
      poll(&scheduler, nullptr, [&] { EXPECT_EQ(this_thread().current, nullptr); });
      operation op = operation_of(&a);
      EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs);
    }
  }
  EXPECT_EQ(polls(a) + polls(arbiter.unnamed_task), 0U);
  EXPECT_TRUE(arbiter.asked.empty());
}

TEST_F(worker_scope_test, disabled_it_keeps_the_task_of_a_poll_whatever_completes_inside_it) {
  task_record c(arbiter);
  const belongs_to scope(&c);  // run() is called in a task's scope
  {
    const worker_scope worker(&scheduler, arbiter, false);
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
          const worker_scope nested(&scheduler, arbiter, false);
          poll(&scheduler, &b, [&] { EXPECT_EQ(this_thread().current, &b); });
          EXPECT_EQ(this_thread().current, &a);
        }
        {
          const worker_scope nested(&other_scheduler, other, true);
          poll(&other_scheduler, &b, [&] { EXPECT_EQ(this_thread().current, &b); });
        }
        EXPECT_EQ(this_thread().current, &a);
        EXPECT_GE(references(a), 2U);
        EXPECT_EQ(this_thread().arbiter, nullptr);
      });
      EXPECT_EQ(this_thread().current, &c);
      EXPECT_THROW(poll(&scheduler, &b, [] { throw 1; }), int);
      EXPECT_EQ(this_thread().current, &c);
    }
  }
  EXPECT_EQ(polls(b), 3U) << "of the one that is on";
  EXPECT_EQ(polls(a) + polls(c) + polls(arbiter.unnamed_task), 0U);
}

TEST_F(worker_scope_test, disabled_a_chain_of_one_tasks_operations_leaves_the_count_alone) {
  const worker_scope worker(&scheduler, arbiter, false);
  expect_chain_leaves_count_alone(&scheduler, a);
}

TEST_F(worker_scope_test, disabled_a_strands_handlers_are_their_tasks_and_its_drain_is_nobodys) {
  char implementation = 0;
  const belongs_to scope(&b);
  const worker_scope worker(&scheduler, arbiter, false);
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
  const worker_scope worker(&scheduler, arbiter, false);
  for (int i = 0; i < 3; ++i) {
    poll(&scheduler, &a, [] {});
    poll(nullptr, &a, [] { EXPECT_EQ(this_thread().current, nullptr); });
    EXPECT_GE(references(a), 2U) << "the worker's";
  }
}

TEST_F(worker_scope_test, disabled_it_gives_a_tasks_last_reference_back_at_the_end) {
  {
    const worker_scope worker(&scheduler, arbiter, false);
    task_record* const gone = new task_record(arbiter);
    poll(&scheduler, gone, [&] {
      release(*gone);  // the test's own
      EXPECT_TRUE(arbiter.destroyed.empty());
    });
    EXPECT_TRUE(arbiter.destroyed.empty());
    poll(&scheduler, &a, [] {});
    EXPECT_THAT(arbiter.destroyed, testing::ElementsAre(gone));
    arbiter.destroyed.clear();
    delete gone;
  }
}

TEST_F(worker_scope_test, turns_are_counted_by_the_innermost) {
  worker_scope outer(&scheduler, arbiter, true);
  ++this_thread().phantom_turns;
  {
    const worker_scope inner(&scheduler, arbiter, true);
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
  add_arbiter(&scheduler, arbiter);
  std::thread([&] {
    poll(&scheduler, &a, [&] { time.run(2us); });
    EXPECT_EQ(arbiter.workers, 1);
    poll(&scheduler, &a, [&] {
      EXPECT_EQ(this_thread().current, &a);
      time.run(3us);
    });
    EXPECT_EQ(arbiter.attachments, 1);
    operation op = operation_of(&a);
    arbiter.holds = true;
    EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::held);
  }).join();
  // The thread leaves when it ends.
  EXPECT_EQ(arbiter.workers, 0);
  EXPECT_EQ(polls(a), 2U);
  expect_about(cost(a), 5us);
  EXPECT_EQ(references(a), 1U);
  remove_arbiter(&scheduler);
}

TEST_F(worker_scope_test, such_a_thread_changes_over_to_the_next_context) {
  add_arbiter(&scheduler, arbiter);
  add_arbiter(&other_scheduler, other);
  std::thread([&] {
    poll(&scheduler, &a, [&] { time.run(2us); });
    poll(&other_scheduler, &b, [&] { time.run(3us); });
    EXPECT_EQ(arbiter.workers, 0);
    EXPECT_EQ(other.workers, 1);
    EXPECT_EQ(polls(a), 1U);
    {
      const worker_scope worker(&scheduler, arbiter, true);
      EXPECT_EQ(other.workers, 0) << "left over";
      EXPECT_EQ(polls(b), 1U);
      poll(&scheduler, &a, [] {});
    }
  }).join();
  EXPECT_EQ(polls(a), 2U);
  remove_arbiter(&scheduler);
  remove_arbiter(&other_scheduler);
}

TEST_F(worker_scope_test, a_removed_arbiter_is_not_asked_again) {
  add_arbiter(&scheduler, arbiter);
  std::thread([&] {
    poll(&scheduler, &a, [&] { time.run(2us); });
    remove_arbiter(&scheduler);
    poll(&scheduler, &a, [&] { EXPECT_EQ(this_thread().current, &a); });
    EXPECT_EQ(arbiter.workers, 0);
    poll(&scheduler, nullptr, [] {});
    EXPECT_EQ(arbiter.attachments, 1);
  }).join();
  EXPECT_EQ(polls(a), 1U);
}

// ---- several workers

TEST_F(worker_scope_test, one_becomes_several_and_one_again) {
  const worker_scope worker(&scheduler, arbiter, true);
  const auto shares = [&] {
    bool shared = false;
    poll(&scheduler, &a, [&] { shared = is_shared_here(); });
    return shared;
  };
  EXPECT_FALSE(shares());
  EXPECT_FALSE(shares());
  arbiter.state.fetch_add(path_state::generation | path_state::several_workers);
  EXPECT_TRUE(shares());
  EXPECT_TRUE(shares());
  arbiter.state.fetch_add(path_state::generation - path_state::several_workers);
  EXPECT_FALSE(shares());
}

TEST_F(worker_scope_test, two_threads_that_poll_one_task_lose_no_charge) {
  constexpr int each = 2'000;
  arbiter.state.fetch_or(path_state::several_workers);
  std::latch start(2);
  const auto work = [&](fake_arbiter& with) {
    start.arrive_and_wait();
    const worker_scope worker(&scheduler, with, true);
    for (int i = 0; i < each; ++i) poll(&scheduler, &a, [] {});
  };
  // Each thread has its own arbiter, because the fake is not thread-safe. For one of them the task
  // belongs to another context.
  other.state.fetch_or(path_state::several_workers);
  std::thread second([&] { work(other); });
  work(arbiter);
  second.join();
  EXPECT_EQ(polls(a), 2U * each);
  EXPECT_TRUE(a.is_shared());
}

// The thread that was alone goes on with plain stores until its poll ends. Nothing that the others add
// meanwhile is lost.
TEST_F(worker_scope_test, a_thread_that_has_not_seen_yet_that_others_came_overwrites_no_charge) {
  constexpr std::uint64_t each = 300'000;
  std::latch start(3);
  const auto others = [&] {
    start.arrive_and_wait();
    for (std::uint64_t i = 0; i < each; ++i) a.count_shared(1, 2);
  };
  std::thread second(others);
  std::thread third(others);
  start.arrive_and_wait();
  for (std::uint64_t i = 0; i < each; ++i) a.count_alone(1, 2);
  second.join();
  third.join();
  EXPECT_EQ(a.polls(), 3 * each);
  EXPECT_EQ(a.cost(), 6 * each);
}

TEST_F(worker_scope_test,
       a_task_that_another_contexts_worker_polls_is_charged_atomically_everywhere) {
  const auto before = arbiter.state.load();
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, [] { EXPECT_FALSE(is_shared_here()); });
  }
  EXPECT_FALSE(a.is_shared());
  {
    const worker_scope worker(&other_scheduler, other, true);
    a.attention = 0;
    poll(&other_scheduler, &a, [&] {
      EXPECT_TRUE(is_shared_here());
      time.run(4us);
    });
    // The arbiter of the thread that polls it is called.
    ASSERT_EQ(other.seen.size(), 1U);
    EXPECT_EQ(other.seen[0].task, &a);
    EXPECT_TRUE(arbiter.seen.empty());
  }
  EXPECT_TRUE(a.is_shared());
  EXPECT_NE(arbiter.state.load(), before) << "its own workers must leave their fast path";
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, [] { EXPECT_TRUE(is_shared_here()); });
  }
  EXPECT_EQ(polls(a), 3U);
}

// ---- tasks in groups

TEST_F(worker_scope_test, a_grouped_task_of_the_only_worker_is_charged_by_plain_stores) {
  task_record c{arbiter};
  a.charging = c.charging = charging_mode::grouped;
  {
    const worker_scope worker(&scheduler, arbiter, true);
    for (int i = 0; i != 2; ++i) {
      poll(&scheduler, &a, [&] {
        EXPECT_FALSE(is_shared_here());
        time.run(1us);
      });
      poll(&scheduler, &c, [&] { time.run(1us); });
    }
  }
  ASSERT_EQ(arbiter.charges.size(), 4U);
  for (const auto& each : arbiter.charges) EXPECT_TRUE(each.alone);
  EXPECT_EQ(arbiter.charges[0].task, &a);
  EXPECT_EQ(arbiter.charges[1].task, &c);
}

TEST_F(worker_scope_test, a_grouped_task_of_several_workers_is_charged_atomically) {
  a.charging = charging_mode::grouped;
  const auto burn = [&] { time.run(1us); };
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, burn);
    charge_pending();
    arbiter.state.fetch_add(path_state::generation | path_state::several_workers);
    poll(&scheduler, &a, burn);
    charge_pending();
  }
  {
    const worker_scope worker(&other_scheduler, other, true);  // of another context
    poll(&other_scheduler, &a, burn);
  }
  EXPECT_EQ(arbiter.charges,
            (std::vector<fake_arbiter::charge>{{&a, true}, {&a, false}, {&a, false}}));
  EXPECT_TRUE(other.charges.empty()) << "the group is one of its own context";
}

TEST_F(worker_scope_test, work_of_no_group_between_grouped_polls_is_passed_on_to_nobody) {
  a.charging = charging_mode::grouped;
  task_record plain{arbiter};
  const worker_scope worker(&scheduler, arbiter, true);
  poll(&scheduler, &a, [&] { time.run(1us); });
  poll(&scheduler, &plain, [&] { time.run(1us); });
  poll(&scheduler, nullptr, [&] { time.run(1us); });
  charge_pending();
  EXPECT_EQ(arbiter.charges, (std::vector<fake_arbiter::charge>{{&a, true}}));
}

TEST_F(worker_scope_test, operations_that_only_a_policy_holds_ask_once_the_calm_is_over) {
  const worker_scope worker(&scheduler, arbiter, true);
  poll(&scheduler, &a, [&] { time.run(1us); });  // stamps the clock
  const auto asks = [&] {
    operation op = operation_of(&a);
    arbiter.asked.clear();
    EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs);
    return !arbiter.asked.empty();
  };
  arbiter.calm_until = this_thread().clock.last() + 1;
  a.gated = gate_flag::unless_calm;
  EXPECT_FALSE(asks());
  a.gated = gate_flag::unless_calm | gate_flag::always;
  EXPECT_TRUE(asks());
  a.gated = gate_flag::unless_calm;
  arbiter.calm_until = this_thread().clock.last();
  EXPECT_TRUE(asks());
  arbiter.calm_until = 0;
  EXPECT_TRUE(asks());
}

}  // namespace
