// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/tier_manager.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <cstdint>
#include <latch>
#include <limits>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using asio_pulse::poll_result;
using asio_pulse::reason;
using asio_pulse::task_budget;
using asio_pulse::tier;
using asio_pulse::tier_decision;
using asio_pulse::tier_limits;
using asio_pulse::tier_manager;
using asio_pulse::tier_metrics;
using asio_pulse::tier_state;

// One tick is taken as one nanosecond.
constexpr std::uint64_t us = 1'000;
constexpr std::uint64_t ms = 1'000 * us;
constexpr std::uint64_t s = 1'000 * ms;
constexpr std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();

struct step {
  tier from, to;
  reason why;
  bool operator==(const step&) const = default;
};

std::vector<step> steps(const tier_decision& d) {
  std::vector<step> result;
  d.for_each_step([&](tier from, tier to, reason why) { result.push_back({from, to, why}); });
  return result;
}

// A task with the default thresholds: 0.5 ms in every 5 ms.
class tier_manager_test : public ::testing::Test {
 protected:
  tier_manager_test() {
    limits.slow_poll = limits.quiet_below = 5 * ms;
    limits.yield_poll = 20 * ms;
    limits.isolate_poll = 50 * ms;
    limits.clean_window = 100 * ms;
    limits.isolate_clean_window = 1 * s;
    limits.yield_after = 2;
    limits.isolate_after = 3;
    budget.configure(500 * us, 5 * ms);
  }

  tier_decision poll(std::uint64_t cost, bool exact = true, bool would_park = false) {
    now += cost;
    return tier_manager::on_poll(state, budget,
                                 {.now = now,
                                  .cost = cost,
                                  .over_budget = budget.charge(now, cost),
                                  .exact = exact,
                                  .would_park = would_park},
                                 limits);
  }

  tier_decision idle(std::uint64_t time) {
    now += time;
    return tier_manager::on_idle(state, budget, now, limits);
  }

  void wait(std::uint64_t time) { now += time; }

  tier_limits limits;
  tier_state state{};
  task_budget budget;
  std::uint64_t now = 10 * s;
};

TEST_F(tier_manager_test, zero_state_is_monitor_and_small) {
  static_assert(sizeof(tier_state) <= 40);
  static_assert(std::is_trivially_copyable_v<tier_state>);
  EXPECT_EQ(state.level, tier::monitor);
}

TEST_F(tier_manager_test, well_behaved_task_stays_in_monitor_untouched) {
  for (int i = 0; i < 10'000; ++i) {
    wait(200 * us);
    const tier_decision d = poll(20 * us);
    ASSERT_FALSE(d.changed());
    ASSERT_FALSE(d.report);
    ASSERT_TRUE(d.enforce);
  }
  EXPECT_EQ(state.last_poll, 0U) << "nothing is stored for a task within its budget";
}

TEST_F(tier_manager_test, slow_poll_warns) {
  const tier_decision d = poll(5 * ms);
  EXPECT_EQ(d.from, tier::monitor);
  EXPECT_EQ(d.to, tier::warn);
  EXPECT_EQ(d.why, reason::slow_poll);
  EXPECT_TRUE(d.report);
  EXPECT_TRUE(d.slow);
  EXPECT_TRUE(d.overrun);
  EXPECT_EQ(state.level, tier::warn);
}

TEST_F(tier_manager_test, poll_just_below_the_threshold_is_not_slow) {
  budget.configure(0, 0);
  EXPECT_FALSE(poll(5 * ms - 1).changed());
  EXPECT_TRUE(poll(5 * ms).changed());
}

TEST_F(tier_manager_test, one_long_poll_jumps_in_one_call) {
  EXPECT_EQ(poll(20 * ms).to, tier::yield);
  state = {};
  tier_decision d = poll(50 * ms);
  EXPECT_EQ(d.to, tier::isolate);
  EXPECT_EQ(d.why, reason::long_poll);
  EXPECT_EQ(steps(d), (std::vector<step>{{tier::monitor, tier::isolate, reason::long_poll}}));
  state = {};
  EXPECT_EQ(poll(10 * s).to, tier::isolate);
}

TEST_F(tier_manager_test, one_long_poll_escalates_whatever_the_budget) {
  budget.configure(0, 0);
  EXPECT_EQ(poll(10 * s).to, tier::isolate);
}

TEST_F(tier_manager_test, overrun_warns_without_a_slow_poll) {
  EXPECT_FALSE(poll(400 * us).changed());
  const tier_decision d = poll(200 * us);
  EXPECT_EQ(d.to, tier::warn);
  EXPECT_EQ(d.why, reason::overrun);
  EXPECT_TRUE(d.report);
  EXPECT_FALSE(d.slow);
}

TEST_F(tier_manager_test, storm_is_in_yield_after_about_a_budget_and_a_quarter) {
  std::uint64_t spent = 0;
  std::uint64_t warned = 0;
  while (state.level != tier::yield) {
    poll(10 * us);
    spent += 10 * us;
    if (state.level == tier::warn && warned == 0) {
      warned = spent;
    }
    ASSERT_LT(spent, 10 * ms);
  }
  // While it runs it refills at a tenth: the budget lasts 10/9 of itself.
  EXPECT_GE(warned, 500 * us);
  EXPECT_LE(warned, 580 * us);
  EXPECT_GE(spent - warned, 120 * us);
  EXPECT_LE(spent - warned, 140 * us);
}

TEST_F(tier_manager_test, storm_does_not_isolate_where_yield_helps) {
  for (int i = 0; i < 100'000; ++i) {
    poll(10 * us);
  }
  EXPECT_EQ(state.level, tier::yield);
}

TEST_F(tier_manager_test, slow_polls_in_yield_isolate) {
  poll(20 * ms);
  ASSERT_EQ(state.level, tier::yield);
  EXPECT_FALSE(poll(6 * ms).changed());
  EXPECT_FALSE(poll(6 * ms).changed());
  const tier_decision d = poll(6 * ms);
  EXPECT_EQ(d.to, tier::isolate);
  EXPECT_EQ(d.why, reason::yield_did_not_help);
}

TEST_F(tier_manager_test, offence_without_a_change_is_still_reported) {
  poll(60 * ms);
  const tier_decision d = poll(60 * ms);
  EXPECT_FALSE(d.changed());
  EXPECT_TRUE(d.report);
  EXPECT_EQ(d.why, reason::long_poll);
  EXPECT_TRUE(steps(d).empty());
}

TEST_F(tier_manager_test, comes_down_one_tier_for_each_clean_window) {
  poll(60 * ms);
  const std::uint64_t offence = now;
  std::vector<std::uint64_t> at;
  while (state.level != tier::monitor) {
    wait(1 * ms);
    const tier_decision d = poll(10 * us);
    if (d.changed()) {
      ASSERT_EQ(d.demotions, 1);
      ASSERT_EQ(d.why, reason::clean);
      ASSERT_FALSE(d.report);
      at.push_back(now - offence);
    }
    ASSERT_LT(now, offence + 10 * s);
  }
  ASSERT_EQ(at.size(), 3U);
  // A window starts when the debt is paid, 5 ms after the offence; a poll comes every 1.01 ms.
  EXPECT_NEAR(static_cast<double>(at[0]), 1.005e9, 3e6);
  EXPECT_NEAR(static_cast<double>(at[1]), 1.105e9, 5e6);
  EXPECT_NEAR(static_cast<double>(at[2]), 1.205e9, 7e6);
}

TEST_F(tier_manager_test, offence_restarts_the_window) {
  poll(5 * ms);
  wait(90 * ms);
  poll(5 * ms);
  wait(90 * ms);
  EXPECT_FALSE(poll(10 * us).changed());
  wait(10 * ms);
  EXPECT_EQ(poll(10 * us).why, reason::clean);
}

TEST_F(tier_manager_test, window_is_not_clean_with_the_bucket_below_half) {
  limits.clean_window = 1 * ms;
  poll(5 * ms);  // a window in debt
  wait(7400 * us);
  EXPECT_LT(budget.fill(now), 0.5);
  EXPECT_FALSE(idle(0).changed());
  EXPECT_FALSE(poll(0).changed());
  wait(200 * us);
  EXPECT_EQ(poll(0).to, tier::monitor);
}

TEST_F(tier_manager_test, idle_takes_several_single_steps) {
  poll(60 * ms);
  const tier_decision d = idle(60 * s);
  EXPECT_EQ(d.from, tier::isolate);
  EXPECT_EQ(d.to, tier::monitor);
  EXPECT_EQ(d.demotions, 3);
  EXPECT_FALSE(d.promoted());
  EXPECT_EQ(steps(d), (std::vector<step>{{tier::isolate, tier::yield, reason::idle},
                                         {tier::yield, tier::warn, reason::idle},
                                         {tier::warn, tier::monitor, reason::idle}}));
}

TEST_F(tier_manager_test, idle_steps_each_want_their_own_window) {
  poll(60 * ms);
  EXPECT_EQ(idle(999 * ms).demotions, 0);
  EXPECT_EQ(idle(1 * ms).demotions, 1);
  EXPECT_EQ(idle(199 * ms).demotions, 1);
  EXPECT_EQ(idle(1 * ms).demotions, 1);
  EXPECT_EQ(state.level, tier::monitor);
}

TEST_F(tier_manager_test, old_offences_do_not_add_to_new_ones) {
  poll(400 * us);
  poll(200 * us);
  ASSERT_EQ(state.level, tier::warn);
  wait(60 * s);
  const tier_decision d = poll(600 * us);  // without this rule: the second overrun, so Yield
  EXPECT_EQ(d.demotions, 1);
  EXPECT_TRUE(d.promoted());
  EXPECT_EQ(d.from, tier::warn);
  EXPECT_EQ(d.to, tier::warn);
  EXPECT_TRUE(d.changed());
  EXPECT_EQ(steps(d), (std::vector<step>{{tier::warn, tier::monitor, reason::idle},
                                         {tier::monitor, tier::warn, reason::overrun}}));
}

TEST_F(tier_manager_test, long_idle_then_long_poll_comes_down_and_goes_up_in_one_call) {
  poll(60 * ms);
  wait(60 * s);
  const tier_decision d = poll(20 * ms);
  EXPECT_EQ(d.from, tier::isolate);
  EXPECT_EQ(d.to, tier::yield);
  EXPECT_EQ(d.demotions, 3);
  EXPECT_EQ(steps(d).back(), (step{tier::monitor, tier::yield, reason::long_poll}));
}

TEST_F(tier_manager_test, poll_of_unknown_cost_is_no_offence_by_its_length) {
  budget.configure(0, 0);
  for (int i = 0; i < 100; ++i) {
    const tier_decision d = poll(10 * s, false);
    ASSERT_FALSE(d.changed());
    ASSERT_FALSE(d.report);
  }
}

TEST_F(tier_manager_test, poll_of_unknown_cost_is_no_overrun_by_itself) {
  ASSERT_FALSE(poll(30 * ms, false).changed());
  ASSERT_TRUE(budget.over(now));
  ASSERT_FALSE(poll(50 * us).changed()) << "nor is the next poll, in the debt that it left";
  wait(20 * ms);
  ASSERT_FALSE(poll(50 * us).changed());
  EXPECT_FALSE(state.excused);
}

TEST_F(tier_manager_test, storm_of_unknown_cost_is_found_out) {
  int polls = 0;
  while (state.level != tier::yield && polls < 1000) {
    poll(10 * us, false);
    ++polls;
  }
  EXPECT_EQ(state.level, tier::yield);
  EXPECT_LT(polls, 100);
}

TEST_F(tier_manager_test, occupancy_counts_where_the_user_chose_it) {
  limits.trust_occupancy = true;
  EXPECT_EQ(poll(60 * ms, false).to, tier::isolate);
}

TEST_F(tier_manager_test, zero_switches_thresholds_off) {
  limits.slow_poll = limits.yield_poll = limits.isolate_poll = limits.quiet_below =
      tier_limits::off;
  limits.yield_after = limits.isolate_after = 0;
  for (int i = 0; i < 1000; ++i) {
    poll(10 * s);
  }
  EXPECT_EQ(state.level, tier::warn) << "over budget for long, but without another overrun";
  EXPECT_EQ(poll(largest).to, tier::warn);
}

TEST_F(tier_manager_test, yield_after_one_goes_straight_there) {
  limits.yield_after = 1;
  const tier_decision d = poll(600 * us);
  EXPECT_EQ(d.to, tier::yield);
  EXPECT_EQ(d.why, reason::repeated_overruns);
}

TEST_F(tier_manager_test, climbing_again_too_soon_doubles_the_window_up_to_eight_times) {
  std::vector<std::uint64_t> windows;
  for (int i = 0; i < 6; ++i) {
    poll(5 * ms);
    ASSERT_EQ(state.level, tier::warn);
    const std::uint64_t offence = now;
    while (state.level != tier::monitor) {
      idle(1 * ms);
    }
    windows.push_back((now - offence) / ms);
  }
  EXPECT_EQ(windows, (std::vector<std::uint64_t>{100, 200, 400, 800, 800, 800}));
}

TEST_F(tier_manager_test, window_is_single_again_after_a_clean_one_in_monitor) {
  for (int i = 0; i < 3; ++i) {
    poll(5 * ms);
    while (state.level != tier::monitor) {
      idle(1 * ms);
    }
  }
  EXPECT_EQ(state.backoff, 2);
  wait(400 * ms);
  poll(5 * ms);
  EXPECT_EQ(state.backoff, 0);
  EXPECT_EQ(idle(99 * ms).demotions, 0);
  EXPECT_EQ(idle(1 * ms).demotions, 1);
}

TEST_F(tier_manager_test, flapping_task_changes_tier_ever_less_often) {
  // A slow poll 101 ms after the last one: just over the window each time.
  int changes = 0;
  for (int i = 0; i < 1000; ++i) {
    wait(101 * ms);
    idle(0);
    changes += poll(5 * ms).changed() ? 1 : 0;
  }
  EXPECT_LE(changes, 5) << "after one doubling the pattern no longer fits in a window";
}

TEST_F(tier_manager_test, shadow_decides_and_does_not_enforce) {
  limits.shadow = true;
  tier_decision d = poll(20 * ms);
  EXPECT_EQ(d.to, tier::yield);
  EXPECT_FALSE(d.enforce);
  EXPECT_EQ(state.saved, 0U);
  d = poll(100 * us, true, true);
  EXPECT_EQ(d.saved, 100 * us);
  EXPECT_FALSE(d.enforce);
  d = poll(100 * us, true, false);
  EXPECT_EQ(d.saved, 0U);
  EXPECT_EQ(state.saved, 100 * us);
  d = poll(largest, true, true);
  EXPECT_EQ(state.saved, largest) << "saturates";
  EXPECT_EQ(d.saved, largest - 100 * us);
}

TEST_F(tier_manager_test, saved_counts_in_shadow_mode_only) {
  poll(20 * ms);
  EXPECT_EQ(poll(100 * us, true, true).saved, 0U);
}

TEST_F(tier_manager_test, shadow_and_enforcing_decide_alike) {
  tier_state other{};
  tier_limits shadow = limits;
  shadow.shadow = true;
  for (std::uint64_t i = 0; i < 500; ++i) {
    const std::uint64_t cost = i * i * 7919 % (8 * ms);
    wait(i * 104'729 % (30 * ms));
    now += cost;
    const poll_result p{.now = now, .cost = cost, .over_budget = budget.charge(now, cost)};
    const tier_decision a = tier_manager::on_poll(state, budget, p, limits);
    const tier_decision b = tier_manager::on_poll(other, budget, p, shadow);
    ASSERT_EQ(steps(a), steps(b));
    ASSERT_EQ(a.report, b.report);
  }
}

TEST_F(tier_manager_test, time_that_runs_backwards_restarts_the_window) {
  poll(5 * ms);
  now = 1 * s;
  EXPECT_EQ(idle(0).demotions, 0);
  EXPECT_FALSE(poll(0).changed()) << "in debt, by the new time";
  EXPECT_EQ(idle(99 * ms).demotions, 0);
  EXPECT_EQ(idle(1 * ms).demotions, 1);
}

TEST_F(tier_manager_test, ends_of_the_counter_are_harmless) {
  now = largest - 10;
  const tier_decision d = tier_manager::on_poll(
      state, budget, {.now = now, .cost = largest, .over_budget = true}, limits);
  EXPECT_EQ(d.to, tier::isolate);
  now = 0;
  EXPECT_EQ(idle(0).demotions, 0);
  poll(0);
  EXPECT_EQ(idle(60 * s).demotions, 3) << "a wrong time does not keep a task in its tier for ever";
}

TEST_F(tier_manager_test, counters_saturate) {
  limits.isolate_after = 0;
  poll(20 * ms);
  for (int i = 0; i < 1000; ++i) {
    poll(6 * ms);
  }
  EXPECT_EQ(state.level, tier::yield);
  EXPECT_EQ(state.slow_polls, 255);
  EXPECT_EQ(state.overruns, 255);
}

TEST_F(tier_manager_test, metrics_count_every_step) {
  tier_metrics metrics;
  metrics.count(poll(10 * us));
  EXPECT_EQ(metrics.snapshot().promotions(), 0U);
  wait(1 * s);
  metrics.count(poll(60 * ms));
  metrics.count(idle(60 * s));
  metrics.count(poll(6 * ms));
  const auto counts = metrics.snapshot();
  EXPECT_EQ(counts.into(tier::isolate), 1U);
  EXPECT_EQ(counts.into(tier::warn), 1U);
  EXPECT_EQ(counts.into(tier::yield), 0U);
  EXPECT_EQ(counts.into(tier::monitor), 0U);
  EXPECT_EQ(counts.into(static_cast<tier>(200)), 0U);
  EXPECT_EQ(counts.promotions(), 2U);
  EXPECT_EQ(counts.demotions(), 3U);
  EXPECT_EQ(counts.overruns, 2U);
  EXPECT_EQ(counts.slow_polls, 2U);
}

TEST(tier_metrics, saved_saturates) {
  tier_metrics metrics;
  metrics.count(tier_decision{.saved = largest - 1});
  metrics.count(tier_decision{.saved = 10});
  EXPECT_EQ(metrics.snapshot().saved, largest);
}

TEST(tier_metrics, counts_from_several_threads) {
  constexpr int threads = 4;
  constexpr std::uint64_t rounds = 5'000;
  tier_metrics metrics;
  std::latch ready{threads};
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      ready.arrive_and_wait();
      for (std::uint64_t i = 0; i < rounds; ++i) {
        metrics.count(tier_decision{
            .from = tier::monitor, .to = tier::warn, .report = true, .overrun = true, .saved = 2});
      }
    });
  }
  for (auto& thread : pool) {
    thread.join();
  }
  const auto counts = metrics.snapshot();
  EXPECT_EQ(counts.into(tier::warn), threads * rounds);
  EXPECT_EQ(counts.overruns, threads * rounds);
  EXPECT_EQ(counts.saved, 2 * threads * rounds);
}

TEST(tier_names, every_enumerator_and_none_besides) {
  EXPECT_EQ(to_string(tier::monitor), "monitor");
  EXPECT_EQ(to_string(tier::warn), "warn");
  EXPECT_EQ(to_string(tier::yield), "yield");
  EXPECT_EQ(to_string(tier::isolate), "isolate");
  EXPECT_EQ(to_string(static_cast<tier>(4)), "unknown");
  for (std::uint8_t i = 0; i <= static_cast<std::uint8_t>(reason::idle); ++i) {
    EXPECT_NE(to_string(static_cast<reason>(i)), "unknown");
  }
  EXPECT_EQ(to_string(static_cast<reason>(200)), "unknown");
}

}  // namespace
