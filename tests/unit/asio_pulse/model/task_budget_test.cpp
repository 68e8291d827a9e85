// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/task_budget.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <cstdint>
#include <latch>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using asio_pulse::task_budget;

constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

// Multiples of 1024 ticks, the tolerance's unit, so that figures are exact.
constexpr std::uint64_t budget = 1024 * 100;
constexpr std::uint64_t window = 1024 * 1000;
constexpr std::uint64_t start = 1'000'000'000;

static_assert(sizeof(task_budget) == 16);
static_assert(std::is_trivially_destructible_v<task_budget>);
static_assert(std::is_nothrow_default_constructible_v<task_budget>);
static_assert(!std::is_copy_constructible_v<task_budget>);

constinit task_budget static_budget;  // constant initialisation: safe in any static's constructor

TEST(task_budget, default_is_unlimited) {
  task_budget& b = static_budget;
  EXPECT_TRUE(b.unlimited());
  EXPECT_FALSE(b.charge(start, max));
  EXPECT_FALSE(b.charge_shared(start, max));
  EXPECT_FALSE(b.over(start));
  EXPECT_FALSE(b.over(0));
  EXPECT_DOUBLE_EQ(b.fill(start), 1.0);
  EXPECT_EQ(b.remaining(start), max);
  EXPECT_EQ(b.debt(start), 0U);
  EXPECT_EQ(b.burst(), max);
}

TEST(task_budget, zero_budget_is_unlimited_again) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_TRUE(b.charge(start, window));
  b.configure(0, window);
  EXPECT_TRUE(b.unlimited());
  EXPECT_FALSE(b.over(start));
  EXPECT_FALSE(b.charge(start, max));
}

TEST(task_budget, is_over_beyond_the_budget_and_not_at_it) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_EQ(b.burst(), budget);
  EXPECT_EQ(b.refill_time(), window);
  EXPECT_EQ(b.remaining(start), budget);
  EXPECT_FALSE(b.charge(start, budget));
  EXPECT_FALSE(b.over(start));
  EXPECT_EQ(b.remaining(start), 0U);
  EXPECT_TRUE(b.charge(start, 1));
  EXPECT_TRUE(b.over(start));
}

TEST(task_budget, refills_with_time) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_FALSE(b.charge(start, budget));
  EXPECT_DOUBLE_EQ(b.fill(start), 0.0);
  EXPECT_DOUBLE_EQ(b.fill(start + window / 2), 0.5);
  EXPECT_EQ(b.remaining(start + window / 2), budget / 2);
  EXPECT_DOUBLE_EQ(b.fill(start + window), 1.0);
  EXPECT_DOUBLE_EQ(b.fill(start + 100 * window), 1.0);
  EXPECT_FALSE(b.charge(start + 100 * window, budget)) << "a full bucket does not fill further";
  EXPECT_TRUE(b.charge(start + 100 * window, 1));
}

TEST(task_budget, burst_is_spent_at_once_and_rate_holds_after_it) {
  task_budget b;
  b.configure(budget, window, 5 * budget);
  EXPECT_EQ(b.burst(), 5 * budget);
  EXPECT_FALSE(b.charge(start, 5 * budget));
  std::uint64_t now = start;
  for (int i = 0; i < 1000; ++i) {
    now += window;
    ASSERT_FALSE(b.charge(now, budget)) << "window " << i;
  }
  EXPECT_TRUE(b.charge(now, 1));
}

TEST(task_budget, debt_is_capped_at_one_window) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_TRUE(b.charge(start, 1'000 * budget));
  EXPECT_EQ(b.debt(start), window);
  EXPECT_TRUE(b.over(start + window - 1));
  EXPECT_FALSE(b.over(start + window));
  EXPECT_EQ(b.debt(start + window), 0U);
  EXPECT_DOUBLE_EQ(b.fill(start + window), 0.0);
  EXPECT_DOUBLE_EQ(b.fill(start + 2 * window), 1.0);
}

TEST(task_budget, debt_tells_when_it_is_paid) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_TRUE(b.charge(start, budget + budget / 4));
  const std::uint64_t debt = b.debt(start);
  EXPECT_EQ(debt, window / 4);
  EXPECT_TRUE(b.over(start + debt - 1));
  EXPECT_FALSE(b.over(start + debt));
}

TEST(task_budget, whole_window_may_be_the_budget) {
  task_budget b;
  b.configure(window, window);
  std::uint64_t now = start;
  for (int i = 0; i < 100; ++i) {  // one thread cannot be over: its cost is at most the time
    now += 10'000;
    ASSERT_FALSE(b.charge(now, 10'000));
  }
  b.configure(2 * window, window);  // as the window
  EXPECT_EQ(b.refill_time(), 2 * window);
  EXPECT_EQ(b.burst(), 2 * window);
}

TEST(task_budget, reset_forgives) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_TRUE(b.charge(start, max));
  b.reset();
  EXPECT_FALSE(b.over(start));
  EXPECT_DOUBLE_EQ(b.fill(start), 1.0);
  EXPECT_FALSE(b.unlimited());
}

TEST(task_budget, time_that_runs_backwards_costs_one_window_at_most) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_TRUE(b.charge(start, 2 * budget));
  EXPECT_TRUE(b.charge(start / 2, 0));
  EXPECT_EQ(b.debt(start / 2), window);
  EXPECT_FALSE(b.over(start / 2 + window));
  EXPECT_TRUE(b.charge(0, 0));
  EXPECT_FALSE(b.over(window));
}

TEST(task_budget, nothing_wraps_at_the_ends) {
  for (const std::uint64_t now :
       {std::uint64_t{0}, std::uint64_t{1}, max / 2, max - window, max - 1, max}) {
    for (const std::uint64_t cost : {std::uint64_t{0}, std::uint64_t{1}, budget, max / 2, max}) {
      for (const std::uint64_t amount : {std::uint64_t{1}, budget, max / 2, max}) {
        for (const std::uint64_t per : {std::uint64_t{0}, std::uint64_t{1}, window, max}) {
          for (const std::uint64_t burst : {std::uint64_t{0}, std::uint64_t{1}, max}) {
            task_budget b;
            b.configure(amount, per, burst);
            ASSERT_FALSE(b.unlimited());
            ASSERT_FALSE(b.over(now));
            ASSERT_GE(b.refill_time(), 1024U);
            ASSERT_LE(b.refill_time(), std::uint64_t{0xffffffff} << 10);
            b.charge(now, cost);
            b.charge_shared(now, cost);
            ASSERT_LE(b.debt(now), b.refill_time());
            ASSERT_GE(b.fill(now), 0.0);
            ASSERT_LE(b.fill(now), 1.0);
            ASSERT_LE(b.remaining(now), b.burst() + 1);
          }
        }
      }
    }
  }
}

TEST(task_budget, huge_cost_is_over_wherever_there_is_room_to_say_so) {
  task_budget b;
  b.configure(1, max, 1);  // the slowest refill there is
  EXPECT_TRUE(b.charge(start, max));
  b.configure(max, max, max);  // the largest burst there is
  b.reset();
  EXPECT_TRUE(b.charge(start, max));
  EXPECT_EQ(b.debt(start), b.refill_time());
}

TEST(task_budget, configure_keeps_what_was_charged) {
  task_budget b;
  b.configure(budget, window);
  EXPECT_FALSE(b.charge(start, budget));
  b.configure(budget / 2, window, budget / 4);
  EXPECT_TRUE(b.over(start));
  EXPECT_LE(b.debt(start), b.refill_time());
}

TEST(task_budget, charge_and_charge_shared_agree) {
  task_budget a;
  task_budget b;
  a.configure(budget, window);
  b.configure(budget, window);
  std::uint64_t now = start;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    now += i * 37 % 5000;
    const std::uint64_t cost = i * 101 % 900;
    ASSERT_EQ(a.charge(now, cost), b.charge_shared(now, cost)) << i;
    ASSERT_EQ(a.remaining(now), b.remaining(now)) << i;
  }
}

TEST(task_budget, charge_shared_loses_nothing) {
  constexpr std::uint64_t threads = 4;
  constexpr std::uint64_t charges = 20'000;
  constexpr std::uint64_t cost = 3;
  constexpr std::uint64_t burst = 1024 * 1024;
  static_assert(threads * charges * cost < burst);
  task_budget b;
  b.configure(budget, 2 * budget, burst);
  std::latch ready{threads};
  std::vector<std::thread> pool;
  for (std::uint64_t t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      ready.arrive_and_wait();
      for (std::uint64_t i = 0; i < charges; ++i) {
        EXPECT_FALSE(b.charge_shared(start, cost));
      }
    });
  }
  for (auto& thread : pool) {
    thread.join();
  }
  EXPECT_EQ(b.remaining(start), burst - threads * charges * cost);
}

TEST(task_budget, readers_and_configure_beside_charges_are_no_race) {
  task_budget b;
  b.configure(budget, window);
  std::latch ready{3};
  std::thread charger{[&] {
    ready.arrive_and_wait();
    for (std::uint64_t i = 0; i < 20'000; ++i) {
      b.charge(start + i, 10);
    }
  }};
  std::thread reader{[&] {
    ready.arrive_and_wait();
    for (std::uint64_t i = 0; i < 20'000; ++i) {
      const double fill = b.fill(start + i);
      EXPECT_TRUE(fill >= 0.0 && fill <= 1.0);
    }
  }};
  std::thread configurer{[&] {
    ready.arrive_and_wait();
    for (std::uint64_t i = 1; i < 2'000; ++i) {
      b.configure(budget, window, budget * i);
    }
  }};
  charger.join();
  reader.join();
  configurer.join();
}

}  // namespace
