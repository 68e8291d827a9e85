// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/timing/timebase.hpp>
//
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::tick_scale;
using asio_pulse::timing::ticks;
using asio_pulse::timing::timebase;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

TEST(timebase, is_one_object_with_a_reason_and_a_rate) {
  const timebase& base = timebase::get();
  EXPECT_EQ(&base, &timebase::get());
  EXPECT_FALSE(base.reason().empty());
  EXPECT_GE(base.ticks_per_second(), 1e7);
  EXPECT_LE(base.ticks_per_second(), 1e11);
  EXPECT_EQ(base.reason().starts_with("tsc"), base.uses_tsc()) << base.reason();
  if (!base.uses_tsc()) {
    EXPECT_EQ(base.ticks_per_second(), 1e9);
  }
}

TEST(timebase, is_the_same_object_for_threads_that_race_for_it) {
  std::vector<const timebase*> seen(4);
  std::vector<std::thread> threads;
  for (auto& slot : seen) {
    threads.emplace_back([&slot] { slot = &timebase::get(); });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  for (const timebase* const each : seen) {
    EXPECT_EQ(each, &timebase::get());
  }
}

TEST(timebase, never_runs_backwards) {
  const timebase& base = timebase::get();
  ticks before = base.now();
  for (int i = 0; i < 100'000; ++i) {
    const ticks now = base.now();
    ASSERT_GE(now, before);
    before = now;
  }
}

// The two clocks are read in pairs that embrace each other, so the bound holds however long the
// thread is kept from running: an inequality, not a tolerance on elapsed time.
TEST(timebase, agrees_with_steady_clock_within_one_permille) {
  using clock = std::chrono::steady_clock;
  const timebase& base = timebase::get();
  const auto outer_start = clock::now();
  const ticks start = base.now();
  const auto inner_start = clock::now();
  while (clock::now() - inner_start < 20ms) {
  }
  const auto inner_end = clock::now();
  const ticks end = base.now();
  const auto outer_end = clock::now();
  const double measured = static_cast<double>(base.to_ns(end - start).count());
  EXPECT_GE(measured, static_cast<double>(nanoseconds(inner_end - inner_start).count()) * 0.999);
  EXPECT_LE(measured, static_cast<double>(nanoseconds(outer_end - outer_start).count()) * 1.001);
}

TEST(timebase, converts_there_and_back) {
  const timebase& base = timebase::get();
  if (base.ticks_per_second() < 1e9) {
    GTEST_SKIP() << "a tick is longer than a nanosecond here";
  }
  for (const nanoseconds value :
       {nanoseconds{0}, nanoseconds{1}, nanoseconds{999}, nanoseconds{1us}, nanoseconds{500us},
        nanoseconds{5ms}, nanoseconds{1s}, nanoseconds{1h}, nanoseconds{24h}}) {
    EXPECT_EQ(base.to_ns(base.from_ns(value)), value);
  }
}

TEST(timebase, saturates) {
  const timebase& base = timebase::get();
  EXPECT_EQ(base.from_ns(-1ns), 0U);
  EXPECT_EQ(base.from_ns(nanoseconds::min()), 0U);
  EXPECT_EQ(base.from_ns(0ns), 0U);
  EXPECT_EQ(base.to_ns(0), 0ns);
  EXPECT_GT(base.to_ns(std::numeric_limits<ticks>::max()), 24h * 365);
  EXPECT_GE(base.to_ns(std::numeric_limits<ticks>::max()),
            base.to_ns(std::numeric_limits<ticks>::max() - 1));
  EXPECT_GT(base.from_ns(nanoseconds::max()), base.from_ns(nanoseconds::max() / 2));
}

TEST(tick_scale, saturates_at_both_types_limits) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(tick_scale{2.0}.apply(most), most);
  EXPECT_EQ(tick_scale{2.0}.apply(most / 2 + 1), most);
  EXPECT_EQ(tick_scale{2.0}.apply(most / 2), most - 1);
  EXPECT_EQ(tick_scale{1e9}.apply(most), most);
  EXPECT_EQ(tick_scale{1.0}.apply(most), most);
  EXPECT_EQ(tick_scale{0.5}.apply(most), most / 2 + 1);  // to nearest
  EXPECT_EQ(tick_scale{std::ldexp(1.0, 60)}.apply(15), std::uint64_t{15} << 60U);
  EXPECT_EQ(tick_scale{std::ldexp(1.0, 60)}.apply(16), most);
  EXPECT_EQ(tick_scale{std::ldexp(1.0, -60)}.apply(std::uint64_t{1} << 60U), 1U);
  EXPECT_EQ(tick_scale{std::ldexp(1.0, -60)}.apply(0), 0U);
}

TEST(tick_scale, takes_nonsense_for_one) {
  for (const double ratio : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity(), 1e300, 1e-300}) {
    EXPECT_EQ(tick_scale{ratio}.apply(12'345), 12'345U);
  }
  EXPECT_EQ(tick_scale{}.apply(12'345), 12'345U);
}

TEST(tick_scale, is_monotone_and_right_for_random_rates) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 2'000; ++i) {
    const double ratio = std::exp2(std::uniform_real_distribution<>(-10.0, 10.0)(random));
    const tick_scale scale{ratio};
    const std::uint64_t value = random() >> (random() % 64U);
    const std::uint64_t result = scale.apply(value);
    const long double exact = static_cast<long double>(value) * static_cast<long double>(ratio);
    if (exact >= 18446744073709551615.0L) {
      EXPECT_GE(result, std::numeric_limits<std::uint64_t>::max() - 4096U);
    } else {
      EXPECT_NEAR(static_cast<double>(static_cast<long double>(result) - exact), 0.0,
                  0.5001 + static_cast<double>(exact) * 1e-15);
    }
    if (value != std::numeric_limits<std::uint64_t>::max()) {
      EXPECT_LE(result, scale.apply(value + 1));
    }
  }
}

}  // namespace
