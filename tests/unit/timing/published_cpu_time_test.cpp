// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/timing/published_cpu_time.hpp>
//
#include "support.hpp"

#include <asio_pulse/timing/poll_clock.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <latch>
#include <thread>

namespace {

using namespace asio_pulse::timing;
using namespace std::chrono_literals;
using timing_test::ns;

TEST(published_cpu_time, nothing_published_is_not_consistent) {
  const published_cpu_time source;
  EXPECT_FALSE(source.try_read().consistent);
}

TEST(published_cpu_time, reads_back_what_was_published) {
  published_cpu_time source;
  source.publish(1'000, 2'000);
  const auto first = source.try_read();
  EXPECT_TRUE(first.consistent);
  EXPECT_EQ(first.run_ns, 1'000U);
  EXPECT_EQ(first.run_start_ns, 2'000U);
  source.publish(3'000, 4'000);
  const auto second = source.try_read();
  EXPECT_TRUE(second.consistent);
  EXPECT_NE(second.sequence, first.sequence);
  EXPECT_EQ(second.run_ns, 3'000U);
}

TEST(published_cpu_time, a_writer_at_work_is_not_consistent) {
  published_cpu_time source;
  source.publish(1, 2);
  source.sequence.fetch_add(1);
  EXPECT_FALSE(source.try_read().consistent);
  source.publish(3, 4);  // from odd, too
  EXPECT_TRUE(source.try_read().consistent);
}

TEST(published_cpu_time, a_consistent_snapshot_was_never_torn_by_the_writer) {
  published_cpu_time source;
  std::latch start{2};
  std::atomic<bool> done{false};
  constexpr std::uint64_t rounds = 50'000;
  std::thread writer([&] {
    start.arrive_and_wait();
    for (std::uint64_t i = 1; i <= rounds; ++i) {
      source.publish(i * 3, i * 7);
    }
    done.store(true);
  });
  start.arrive_and_wait();
  std::uint64_t consistent = 0;
  bool last_round = false;
  do {
    last_round = done.load();
    const auto seen = source.try_read();
    if (seen.consistent) {
      ++consistent;
      EXPECT_EQ(seen.run_ns / 3, seen.run_start_ns / 7);
      EXPECT_EQ(seen.sequence, seen.run_ns / 3 * 2);
    }
  } while (!last_round);
  writer.join();
  EXPECT_GT(consistent, 0U);
}

#if defined(__linux__)
std::uint64_t monotonic() {
  return static_cast<std::uint64_t>(timing_test::clock_ns(CLOCK_MONOTONIC));
}

class published_clock : public testing::Test {
 protected:
  void SetUp() override {
    if (!timebase::get().uses_tsc()) {
      GTEST_SKIP() << "the timebase is not the TSC: " << timebase::get().reason();
    }
  }
  published_cpu_time source_;
  poll_clock clock_;
};

TEST_F(published_clock, the_undisturbed_lap_is_the_wall_time) {
  source_.publish(5'000, monotonic());
  clock_.attach(source_);
  EXPECT_EQ(clock_.kind(), clock_kind::published);
  for (int i = 0; i < 1'000; ++i) {
    const ticks before = clock_.last();
    const lap result = clock_.take();
    EXPECT_TRUE(result.exact);
    EXPECT_EQ(result.now, clock_.last());
    EXPECT_LE(result.cost, result.now - before);
  }
}

// The scheduler says that the thread was off the CPU for all but `ran` of the segment.
TEST_F(published_clock, a_switch_takes_the_time_off_the_cpu_out) {
  constexpr std::int64_t ran = 40'000;
  std::int64_t best = INT64_MAX;  // of some tries: a real preemption is not published here
  bool went_on = false;
  for (int i = 0; i < 500 && (best > 2'000 || !went_on); ++i) {
    const std::uint64_t start = monotonic();
    source_.publish(1'000'000, start);
    clock_.attach(source_);
    timing_test::burn(300us);
    const std::uint64_t back = monotonic();
    source_.publish(1'000'000 + ran, back);
    const ticks before = clock_.last();
    const lap result = clock_.take();
    ASSERT_LE(result.cost, result.now - before);
    if (!result.exact) {
      continue;  // interrupted while it read, and nobody published that
    }
    const std::int64_t off = static_cast<std::int64_t>(back - start) - ran;
    best = std::min(best, std::abs(ns(result.now - before) - ns(result.cost) - off));
    went_on = clock_.take().exact || went_on;
  }
  EXPECT_TRUE(went_on) << "the chain ends with a switch";
  EXPECT_LE(best, timing_test::sanitized ? 20'000 : 2'000);
}

TEST_F(published_clock, without_a_publication_a_lap_is_occupancy) {
  clock_.attach(source_);
  EXPECT_EQ(clock_.kind(), clock_kind::published);
  const lap none = clock_.take();
  EXPECT_FALSE(none.exact);
  EXPECT_GT(none.cost, 0U);
  source_.publish(0, monotonic());
  EXPECT_FALSE(clock_.take().exact);  // started when nothing was known
  EXPECT_TRUE(clock_.take().exact);
}

TEST_F(published_clock, a_writer_that_stopped_is_noticed) {
  source_.publish(0, monotonic());
  clock_.attach(source_);
  source_.sequence.fetch_add(1);  // left odd
  for (int i = 0; i < 3; ++i) {
    const lap gone = clock_.take();
    EXPECT_FALSE(gone.exact);
    EXPECT_GT(gone.cost, 0U);
  }
}

TEST_F(published_clock, survives_a_writer_on_another_cpu) {
  std::latch start{2};
  std::atomic<bool> stop{false};
  std::uint64_t published = 0;
  std::thread writer([&] {
    start.arrive_and_wait();
    while (!stop.load(std::memory_order_relaxed)) {
      source_.publish(published * 100, monotonic());
      ++published;
    }
  });
  clock_.attach(source_);
  start.arrive_and_wait();
  for (int i = 0; i < 5'000; ++i) {
    const ticks before = clock_.last();
    const lap result = i % 7 == 0 ? (clock_.waited(), clock_.take()) : clock_.take();
    ASSERT_GE(result.now, before);
    ASSERT_LE(result.cost, result.now - before);
  }
  stop = true;
  writer.join();
}
#endif

}  // namespace
