// SPDX-License-Identifier: BSL-1.0

// The fast path: polls that only have to undo their own state. It needs a clock that shows every
// disturbance. Here that is a published one, which the test disturbs. Durations are those of the
// TSC, so the tests assert counts and tasks.

#include <asio_pulse/hooks/poll_path.hpp>
//
#include "poll_path_fakes.hpp"

#include <memory>

namespace {

using namespace hooks_test;

class fast_path : public testing::Test {
 protected:
  void SetUp() override {
    if (!asio_pulse::timing::timebase::get().uses_tsc()) {
      GTEST_SKIP() << "no clock that shows disturbances here: "
                   << asio_pulse::timing::timebase::get().reason();
    }
    publish();
    make_known(&scheduler, arbiter);
  }
  ~fast_path() override {
    EXPECT_EQ(this_thread().current, nullptr);
    EXPECT_EQ(references(a), 1U);
    EXPECT_EQ(references(b), 1U);
  }
  /// A switch to another thread and back.
  void publish() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    source.publish(1'000'000, static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()));
  }
  /// Whether the operations that follow may chain their stamps.
  static bool open() {
    const thread_state& ts = this_thread();
    return ts.state->load() == ts.token && ts.clock.chains() && ts.clock.undisturbed();
  }

  asio_pulse::timing::published_cpu_time source;
  fake_arbiter arbiter{source};
  task_record a{arbiter};
  task_record b{arbiter};
  char scheduler = 0;
};

TEST_F(fast_path, opens_with_the_first_poll_and_charges_every_one) {
  {
    const worker_scope worker(&scheduler, arbiter, true);
    EXPECT_FALSE(open()) << "there is no stamp to continue from yet";
    std::unique_ptr<operation> next;
    poll(&scheduler, &a, [&] { next = std::make_unique<operation>(); });
    EXPECT_TRUE(open());
    const auto held = references(a);
    for (int i = 0; i < 200; ++i) {
      const auto now = std::move(next);
      const poll_frame frame(&scheduler, *now, handler);
      ASSERT_EQ(this_thread().current, &a);
      next = std::make_unique<operation>();
      ASSERT_EQ(references(a), held) << "no locked instruction in a chain";
    }
    EXPECT_TRUE(open());
    EXPECT_EQ(this_thread().current, nullptr);
  }
  EXPECT_EQ(polls(a), 201U);
  EXPECT_GT(cost(a), 0ns);
}

TEST_F(fast_path, another_tasks_poll_changes_the_account_and_stays_on_it) {
  {
    const worker_scope worker(&scheduler, arbiter, true);
    for (int i = 0; i < 100; ++i) {
      poll(&scheduler, i % 2 == 0 ? &a : &b, [] {});
      ASSERT_TRUE(open());
      poll(&scheduler, nullptr, [] { EXPECT_EQ(this_thread().current, nullptr); });
    }
  }
  EXPECT_EQ(polls(a), 50U);
  EXPECT_EQ(polls(b), 50U);
  EXPECT_EQ(polls(arbiter.unnamed_task), 100U);
}

TEST_F(fast_path, a_drain_and_its_handlers) {
  char impl = 0;
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, [] {});
    for (int batch = 0; batch < 20; ++batch) {
      ASSERT_TRUE(open());
      operation drain_op = operation_of(nullptr);
      const poll_frame drain(&scheduler, drain_op, strand);
      for (int i = 0; i < 5; ++i) {
        poll(&impl, i < 4 ? &a : &b, [&] { EXPECT_EQ(this_thread().current, i < 4 ? &a : &b); });
        EXPECT_EQ(this_thread().current, nullptr)
            << "the strand's own next turn belongs to no task";
      }
      EXPECT_EQ(drain.inner_polls(), 5U);
    }
  }
  EXPECT_EQ(polls(a), 1U + 20U * 4U);
  EXPECT_EQ(polls(b), 20U);
  EXPECT_EQ(polls(arbiter.unnamed_task), 0U);
}

TEST_F(fast_path, a_disturbance_before_during_or_after_loses_no_poll) {
  {
    const worker_scope worker(&scheduler, arbiter, true);
    for (int i = 0; i < 200; ++i) {
      if (i % 5 == 1) publish();
      poll(&scheduler, &a, [&] {
        if (i % 5 == 2) publish();
      });
      if (i % 5 == 3) {
        EXPECT_TRUE(open());
      }
    }
  }
  EXPECT_EQ(polls(a), 200U);
}

TEST_F(fast_path, a_change_of_the_arbiters_word_is_seen_by_the_next_poll) {
  const worker_scope worker(&scheduler, arbiter, true);
  poll(&scheduler, &a, [] {});
  EXPECT_TRUE(open());
  arbiter.state.fetch_or(path_state::poll_hooks);
  EXPECT_FALSE(open());
  poll(&scheduler, &a, [] {});
  EXPECT_EQ(arbiter.started.size(), 1U);
  EXPECT_FALSE(open()) << "hooks have to see the following polls, too";
  arbiter.state.fetch_add(path_state::generation - path_state::poll_hooks);
  poll(&scheduler, &a, [] {});
  EXPECT_EQ(arbiter.started.size(), 1U);
  EXPECT_TRUE(open());
}

TEST_F(fast_path, an_exception_through_it_undoes_it) {
  char impl = 0;
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, [] {});
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(open());
      EXPECT_THROW(poll(&scheduler, &a, [] { throw 1; }), int);
      EXPECT_EQ(this_thread().current, nullptr);
      const auto batch = [&] {
        poll(
            &scheduler, nullptr, [&] { poll(&impl, &a, [] { throw 2; }); }, strand);
      };
      EXPECT_THROW(batch(), int);
      EXPECT_EQ(this_thread().current, nullptr);
    }
  }
  EXPECT_EQ(polls(a), 21U);
}

TEST_F(fast_path, a_poll_may_leave_it_half_way) {
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, [] {});
    for (int i = 0; i < 10; ++i) {
      operation op = operation_of(&a);
      poll_frame frame(&scheduler, op, handler);
      frame.reassign(&b);
      frame.reassign(&a);
    }
  }
  EXPECT_EQ(polls(a), 21U) << "a part before and a part after";
  EXPECT_EQ(polls(b), 10U);
}

TEST_F(fast_path, a_watched_task_is_shown_every_poll_there_too) {
  a.attention = 0;
  const worker_scope worker(&scheduler, arbiter, true);
  for (int i = 0; i < 10; ++i) poll(&scheduler, &a, [] {});
  EXPECT_TRUE(open());
  EXPECT_EQ(arbiter.seen.size(), 10U);
  EXPECT_EQ(polls(a), 10U);
}

}  // namespace
