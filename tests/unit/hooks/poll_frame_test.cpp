// SPDX-License-Identifier: BSL-1.0

// A poll with a manual clock: what is charged, to which task, what the arbiter sees, and what is
// undone at the end. fast_path_test.cpp has the fast path, which needs a clock that shows every
// disturbance.

#include <asio_pulse/hooks/poll_path.hpp>
//
#include "poll_path_fakes.hpp"

#include <stdexcept>

namespace {

using namespace hooks_test;

class poll_frame_test : public testing::Test {
 protected:
  poll_frame_test() { make_known(&scheduler, arbiter); }
  ~poll_frame_test() override {
    EXPECT_EQ(this_thread().current, nullptr);
    EXPECT_TRUE(arbiter.destroyed.empty());
    for (const task_record* t : {&a, &b}) EXPECT_EQ(references(*t), 1U);
  }
  /// A worker that polls `scheduler`.
  template <class Body>
  void work(Body body) {
    const worker_scope worker(&scheduler, arbiter, true);
    body();
  }
  void poll_for(task_record* t, std::chrono::nanoseconds cpu) {
    poll(&scheduler, t, [&] { time.run(cpu); });
  }

  asio_pulse::timing::manual_clock time;
  fake_arbiter arbiter{time};
  task_record a{arbiter};
  task_record b{arbiter};
  char scheduler = 0;
};

// ---- the task of a poll

TEST_F(poll_frame_test, the_task_is_current_in_its_poll_and_not_after) {
  work([&] {
    poll(&scheduler, &a, [&] { EXPECT_EQ(this_thread().current, &a); });
    EXPECT_EQ(this_thread().current, nullptr);
    poll(&scheduler, nullptr, [&] { EXPECT_EQ(this_thread().current, nullptr); });
    poll(&scheduler, &b, [&] { EXPECT_EQ(this_thread().current, &b); });
    EXPECT_EQ(this_thread().current, nullptr);
  });
}

TEST_F(poll_frame_test, a_worker_inside_a_scope_comes_back_to_the_scopes_task) {
  {
    const belongs_to scope(&b);
    work([&] {
      poll_for(&a, 1us);
      EXPECT_EQ(this_thread().current, &b);
      poll_for(nullptr, 1us);
      EXPECT_EQ(this_thread().current, &b);
    });
  }
  EXPECT_EQ(polls(b), 0U);
}

TEST_F(poll_frame_test, of_no_worker_of_ours_is_labelled_and_not_charged) {
  poll(&scheduler, &a, [&] {
    EXPECT_EQ(this_thread().current, &a);
    time.run(1ms);
  });
  EXPECT_EQ(this_thread().current, nullptr);
  for (int i = 0; i < 2; ++i) {  // and known as not observed the second time
    poll(&scheduler, nullptr, [&] { EXPECT_EQ(this_thread().current, nullptr); });
  }
  EXPECT_EQ(polls(a), 0U);
  EXPECT_EQ(polls(arbiter.unnamed_task), 0U);
}

TEST_F(poll_frame_test, completing_inside_another_operation_is_labelled_and_not_charged) {
  work([&] {
    poll(&scheduler, &a, [&] {
      time.run(1us);
      poll(&no_scheduler, &b, [&] {
        EXPECT_EQ(this_thread().current, &b);
        time.run(2us);
      });
      EXPECT_EQ(this_thread().current, &a);
    });
  });
  EXPECT_EQ(polls(b), 0U);
  EXPECT_EQ(polls(a), 1U);
  expect_about(cost(a), 3us);
}

TEST_F(poll_frame_test, an_operation_that_is_destroyed_gives_its_reference_back) {
  work([&] {
    poll(nullptr, &a, [&] {
      EXPECT_EQ(this_thread().current, nullptr);
      EXPECT_EQ(references(a), 2U);
    });
    EXPECT_EQ(references(a), 1U);
  });
  EXPECT_EQ(polls(a), 0U);
}

// ---- the cost of a poll

TEST_F(poll_frame_test, charges_cpu_time_and_not_the_wall) {
  work([&] {
    poll(&scheduler, &a, [&] {
      time.run(3us);
      time.advance(10ms);  // descheduled
      time.run(4us);
    });
    time.run(5ms);  // the reactor
    poll_for(nullptr, 2us);
  });
  EXPECT_EQ(polls(a), 1U);
  expect_about(cost(a), 7us);
  EXPECT_EQ(polls(arbiter.unnamed_task), 1U);
  expect_about(cost(arbiter.unnamed_task), 2us);
}

TEST_F(poll_frame_test, the_account_is_settled_at_20_us) {
  work([&] {
    poll_for(&a, 7us);
    poll_for(&a, 7us);
    EXPECT_EQ(polls(a), 0U) << "14 us are pending";
    poll_for(&a, 7us);
    EXPECT_EQ(polls(a), 3U);
    expect_about(cost(a), 21us);
    poll_for(&a, 19us);
    EXPECT_EQ(polls(a), 3U);
    poll_for(&a, 19us);
    EXPECT_EQ(polls(a), 5U);
  });
}

TEST_F(poll_frame_test, the_account_is_settled_when_another_task_is_polled) {
  work([&] {
    poll_for(&a, 1us);
    poll_for(&a, 1us);
    poll_for(&b, 1us);
    EXPECT_EQ(polls(a), 2U);
    EXPECT_EQ(polls(b), 0U);
    poll_for(nullptr, 1us);
    EXPECT_EQ(polls(b), 1U);
    poll_for(&a, 1us);
    EXPECT_EQ(polls(arbiter.unnamed_task), 1U);
  });
  EXPECT_EQ(polls(a), 3U) << "and when the worker leaves";
}

TEST_F(poll_frame_test, several_turns_of_several_tasks_add_up) {
  work([&] {
    for (int i = 0; i < 300; ++i) {
      poll_for(i % 3 == 0 ? &a : i % 3 == 1 ? &b : nullptr, 1us * (i % 7));
    }
  });
  EXPECT_EQ(polls(a) + polls(b) + polls(arbiter.unnamed_task), 300U);
  std::chrono::nanoseconds expected[3] = {};
  for (int i = 0; i < 300; ++i) expected[i % 3] += 1us * (i % 7);
  const task_record* const tasks[3] = {&a, &b, &arbiter.unnamed_task};
  for (int n = 0; n < 3; ++n) {
    EXPECT_NEAR(static_cast<double>(cost(*tasks[n]).count()),
                static_cast<double>(expected[n].count()), 100.0);
  }
}

// ---- the calls of the arbiter

TEST_F(poll_frame_test, a_task_that_behaves_is_not_shown) {
  a.attention = in_ticks(50us);
  work([&] {
    for (int i = 0; i < 100; ++i) poll_for(&a, 30us);
  });
  EXPECT_TRUE(arbiter.seen.empty()) << "3 ms in all, and no poll of 50 us";
}

TEST_F(poll_frame_test, one_long_poll_among_short_ones_is_shown_with_its_own_length) {
  a.attention = in_ticks(50us);
  work([&] {
    poll_for(&a, 15us);
    poll_for(&a, 60us);
    poll_for(&a, 15us);
  });
  ASSERT_EQ(arbiter.seen.size(), 1U);
  EXPECT_EQ(arbiter.seen[0].task, &a);
  expect_about(arbiter.seen[0].total, 60us);
  EXPECT_FALSE(arbiter.seen[0].over_budget);
  EXPECT_FALSE(arbiter.seen[0].part);
}

TEST_F(poll_frame_test, one_that_is_long_in_pieces_is_shown_as_a_whole) {
  a.attention = in_ticks(50us);
  work([&] {
    operation op = operation_of(&a);
    poll_frame frame(&scheduler, op, handler);
    for (int i = 0; i < 6; ++i) {
      time.run(10us);
      frame.split();  // work of another task begins
    }
    expect_about(ns(frame.accrued()), 60us);
  });
  ASSERT_EQ(arbiter.seen.size(), 1U);
  expect_about(arbiter.seen[0].total, 60us);
  EXPECT_EQ(polls(a), 1U);
}

TEST_F(poll_frame_test, a_watched_task_is_shown_every_poll) {
  a.attention = 0;
  work([&] {
    for (int i = 0; i < 5; ++i) {
      poll_for(&a, 1us);
      poll_for(&b, 1us);
    }
  });
  EXPECT_EQ(arbiter.seen.size(), 5U);
  for (const auto& s : arbiter.seen) EXPECT_EQ(s.task, &a);
}

TEST_F(poll_frame_test, attention_that_changes_holds_from_the_next_poll_on) {
  work([&] {
    poll_for(&a, 1us);
    a.attention = 0;
    poll_for(&a, 1us);
    EXPECT_EQ(arbiter.seen.size(), 1U);
    a.attention = ~ticks{0};
    poll_for(&a, 1us);
    EXPECT_EQ(arbiter.seen.size(), 1U);
  });
}

TEST_F(poll_frame_test, over_budget_is_shown_when_the_account_is_settled) {
  a.budget.configure(in_ticks(100us), in_ticks(10ms));
  work([&] {
    for (int i = 0; i < 9; ++i) poll_for(&a, 10us);
    EXPECT_TRUE(arbiter.seen.empty());
    for (int i = 0; i < 4; ++i) poll_for(&a, 10us);
    ASSERT_FALSE(arbiter.seen.empty());
    EXPECT_TRUE(arbiter.seen.back().over_budget);
    EXPECT_TRUE(a.budget.over(time.now()));
  });
  for (const auto& s : arbiter.seen) EXPECT_EQ(s.task, &a);
}

TEST_F(poll_frame_test, poll_hooks_see_each_start_and_end) {
  arbiter.state.fetch_or(path_state::poll_hooks);
  work([&] {
    poll_for(&a, 1us);
    poll_for(nullptr, 1us);
    arbiter.state.fetch_add(path_state::generation - path_state::poll_hooks);
    poll_for(&b, 1us);
  });
  EXPECT_EQ(arbiter.started, (std::vector<const task_record*>{&a, nullptr}));
  ASSERT_EQ(arbiter.seen.size(), 2U);
  EXPECT_EQ(arbiter.seen[0].task, &a);
  EXPECT_EQ(arbiter.seen[1].task, &arbiter.unnamed_task);
}

// ---- exceptions

TEST_F(poll_frame_test, an_exception_through_it_undoes_everything) {
  work([&] {
    EXPECT_THROW(poll(&scheduler, &a,
                      [&] {
                        time.run(5us);
                        poll(&no_scheduler, &b, [] { throw std::runtime_error("inner"); });
                      }),
                 std::runtime_error);
    EXPECT_EQ(this_thread().current, nullptr);
    poll_for(&a, 5us);
    EXPECT_THROW(poll(
                     &scheduler, &a, [&] { throw 1; }, strand),
                 int);
    poll_for(&b, 5us);
  });
  EXPECT_EQ(polls(a), 2U);
  expect_about(cost(a), 10us);
  EXPECT_EQ(polls(b), 1U);
}

// ---- one inside another

TEST_F(poll_frame_test, a_poll_inside_another_takes_its_time_out_of_it) {
  char inner = 0;
  work([&] {
    operation outer_op = operation_of(&a);
    const poll_frame outer(&scheduler, outer_op, handler);
    time.run(10us);
    poll(&inner, &b, [&] {
      EXPECT_EQ(this_thread().current, &b);
      time.run(30us);
    });
    EXPECT_EQ(this_thread().current, &a);
    time.run(5us);
    EXPECT_EQ(outer.inner_polls(), 1U);
    poll(&inner, &a, [&] { time.run(2us); });  // its own task's, too
    time.run(1us);
    EXPECT_EQ(outer.inner_polls(), 2U);
  });
  EXPECT_EQ(polls(b), 1U);
  expect_about(cost(b), 30us);
  EXPECT_EQ(polls(a), 2U);
  expect_about(cost(a), 18us);
}

TEST_F(poll_frame_test, the_length_of_the_outer_one_is_its_own_time_before_and_after) {
  char inner = 0;
  a.attention = in_ticks(50us);
  b.attention = in_ticks(50us);
  work([&] {
    poll(&scheduler, &a, [&] {
      time.run(30us);
      poll(&inner, &b, [&] { time.run(40us); });
      time.run(30us);
    });
  });
  ASSERT_EQ(arbiter.seen.size(), 1U);
  EXPECT_EQ(arbiter.seen[0].task, &a);
  expect_about(arbiter.seen[0].total, 60us);
}

TEST_F(poll_frame_test, a_strands_drain_costs_nothing_and_counts_its_handlers) {
  char impl = 0;
  work([&] {
    operation drain_op = operation_of(nullptr);
    {
      const poll_frame drain(&scheduler, drain_op, strand);
      for (int i = 0; i < 4; ++i) {
        time.run(1us);  // the drain's, between its handlers: the next one's
        poll(&impl, i % 2 == 0 ? &a : &b, [&] { time.run(10us); });
        EXPECT_EQ(this_thread().current, nullptr) << "its own next turn belongs to no task";
      }
      EXPECT_EQ(drain.inner_polls(), 4U);
    }
    EXPECT_EQ(this_thread().current, nullptr);
  });
  EXPECT_EQ(polls(a), 2U);
  EXPECT_EQ(polls(b), 2U);
  EXPECT_EQ(polls(arbiter.unnamed_task), 0U);
  expect_about(cost(a) + cost(b), 44us);
}

TEST_F(poll_frame_test, what_a_drain_creates_after_its_handlers_is_nobodys) {
  char impl = 0;
  work([&] {
    operation drain_op = operation_of(&a);  // posted by one of its handlers
    {
      const poll_frame drain(&scheduler, drain_op, strand);
      poll(&impl, &b, [&] { time.run(1us); });
      EXPECT_EQ(this_thread().current, nullptr) << "the next handler may be another task's";
      EXPECT_EQ(operation{}.task(), nullptr);
    }
    EXPECT_EQ(references(a), 1U);
  });
  EXPECT_EQ(polls(a), 0U);
  EXPECT_EQ(polls(b), 1U);
}

TEST_F(poll_frame_test, a_drain_that_names_its_task_overrules_its_handlers) {
  char impl = 0;
  work([&] {
    operation drain_op = operation_of(&a);
    drain_op.set(tracked_operation::names);
    const poll_frame drain(&scheduler, drain_op, strand);
    poll(&impl, &b, [&] {
      EXPECT_EQ(this_thread().current, &a);
      time.run(10us);
    });
    poll(&impl, nullptr, [&] { EXPECT_EQ(this_thread().current, &a); });
  });
  EXPECT_EQ(polls(a), 2U);
  EXPECT_EQ(polls(b), 0U);
}

// ---- another task in the middle

TEST_F(poll_frame_test, what_follows_a_reassignment_is_the_other_tasks) {
  work([&] {
    operation op = operation_of(&a);
    poll_frame frame(&scheduler, op, handler);
    time.run(5us);
    frame.reassign(&b);
    EXPECT_EQ(frame.task(), &b);
    EXPECT_EQ(polls(a), 1U) << "what it was until now is settled";
    expect_about(cost(a), 5us);
    time.run(7us);
    frame.reassign(&a);
    EXPECT_EQ(polls(b), 1U);
    expect_about(cost(b), 7us);
    time.run(3us);
    frame.reassign(nullptr);
    time.run(2us);
  });
  expect_about(cost(a), 8us);
  expect_about(cost(b), 7us);
  EXPECT_EQ(polls(arbiter.unnamed_task), 1U);
  expect_about(cost(arbiter.unnamed_task), 2us);
}

TEST_F(poll_frame_test, each_part_is_judged_by_itself) {
  a.attention = in_ticks(50us);
  b.attention = in_ticks(50us);
  work([&] {
    operation op = operation_of(&a);
    poll_frame frame(&scheduler, op, handler);
    time.run(60us);
    frame.reassign(&b);
    time.run(40us);
    frame.reassign(&a);
    time.run(40us);
  });
  ASSERT_EQ(arbiter.seen.size(), 1U);
  EXPECT_EQ(arbiter.seen[0].task, &a);
  EXPECT_TRUE(arbiter.seen[0].part);
  expect_about(arbiter.seen[0].total, 60us);
}

TEST_F(poll_frame_test, a_reassigned_poll_inside_another_leaves_the_outer_one_its_account) {
  char inner = 0;
  work([&] {
    poll(&scheduler, &a, [&] {
      time.run(1us);
      operation op = operation_of(nullptr);
      {
        poll_frame frame(&inner, op, handler);
        time.run(2us);
        frame.reassign(&b);
        time.run(3us);
      }
      EXPECT_EQ(this_thread().current, &a);
      time.run(4us);
    });
    poll_for(&a, 1us);
  });
  expect_about(cost(a), 6us);
  expect_about(cost(b), 3us);
  expect_about(cost(arbiter.unnamed_task), 2us);
}

}  // namespace
