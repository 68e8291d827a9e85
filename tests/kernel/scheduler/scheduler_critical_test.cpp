// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <cstdio>

// Critical sections beside a thread that wants the same CPU. If that thread gets a turn meanwhile,
// the section was interrupted; a switch to one of the kernel's own threads does not count.

namespace {

using namespace sched_test;

struct outcome {
  unsigned sections = 0;
  unsigned disturbed = 0;              // the competitor had a turn
  std::vector<double> undisturbed_ns;  // the time until it had
};

// One section of a worker that has just slept, so that it begins with a new slice.
outcome run_sections(bench& b, std::atomic<std::uint64_t>& turns, std::chrono::nanoseconds length,
                     unsigned count) {
  outcome result;
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>&) {
        asio_pulse_scb& block = b.block(1);
        for (unsigned i = 0; i < count; ++i) {
          std::this_thread::sleep_for(3ms);
          acknowledge(block);
          // The kernel sees the flag at a tick: the section begins with one, within its slice.
          const std::uint64_t before_tick = tick_clock_ns();
          poke(block.critical, 1);
          while (tick_clock_ns() == before_tick) {
          }
          const std::uint64_t before = turns.load();
          const std::uint64_t begun = now_ns();
          std::uint64_t disturbed = 0;
          while (now_ns() - begun < in_ns(length))
            if (disturbed == 0 && turns.load(std::memory_order_relaxed) != before)
              disturbed = now_ns();
          poke(block.critical, 0);
          ++result.sections;
          if (disturbed == 0) continue;
          ++result.disturbed;
          result.undisturbed_ns.push_back(static_cast<double>(disturbed - begun));
        }
      },
      1);
  w.join();
  return result;
}

TEST(scheduler_critical, of_50_ms_is_not_interrupted_below_the_bound) {
  scx::scheduler_options options = enforced();
  options.max_critical = 100ms;
  options.grace = 1ms;
  bench b(options);
  b.block(1).escapable = 1;
  std::atomic<std::uint64_t> turns{0};
  ext_thread other(hog(&turns), 1);
  const outcome o = run_sections(b, turns, 50ms, 20);
  EXPECT_EQ(o.sections, 20U);
  EXPECT_EQ(o.disturbed, 0U);
  const scx_pulse_counts counts = b.counts();
  EXPECT_GT(counts.protected_ticks, 20U);
  EXPECT_EQ(counts.violations, 0U);
  EXPECT_EQ(counts.kicks + counts.throttles, 0U);
}

TEST(scheduler_critical, beyond_the_bound_the_competitor_runs_and_it_is_counted) {
  scx::scheduler_options options;
  options.max_critical = 50ms;
  bench b(options);
  std::atomic<std::uint64_t> turns{0};
  ext_thread other(hog(&turns), 1);
  const outcome o = run_sections(b, turns, 500ms, 4);
  EXPECT_EQ(o.sections, 4U);
  EXPECT_EQ(o.disturbed, 4U);
  // The kernel's bound begins at its tick, and the worker's measurement when the worker notices the
  // tick.
  EXPECT_GE(quantile(o.undisturbed_ns, 0.5), static_cast<double>((50ms - 2 * tick).count()));
  EXPECT_EQ(peek(b.block(1).violations), 4U);
  EXPECT_EQ(b.counts().violations, 4U);
  unsigned records = 0;
  for (const asio_pulse_hint& record : b.records())
    records += record.kind == ASIO_PULSE_VIOLATION ? 1 : 0;
  EXPECT_EQ(records, 4U);
  std::printf("the competitor ran after %.1f ms of a bound of 50\n",
              quantile(o.undisturbed_ns, 0.5) / 1e6);
}

// Without the flag the same thread is interrupted, so the protection is no accident.
TEST(scheduler_critical, without_the_flag_it_is_interrupted) {
  bench b;
  std::atomic<std::uint64_t> turns{0};
  ext_thread other(hog(&turns), 1);
  std::uint64_t before = 0;
  std::uint64_t after = 0;
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>&) {
        before = turns;
        spin_for(100ms);
        after = turns;
      },
      1);
  w.join();
  EXPECT_GT(after, before);
}

// A worker that acknowledges inside a section that never ends is not protected again.
TEST(scheduler_critical, a_liar_that_acknowledges_gets_no_more) {
  scx::scheduler_options options;
  options.max_critical = 50ms;
  bench b(options);
  std::atomic<std::uint64_t> turns{0};
  ext_thread other(hog(&turns), 1);
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        poke(b.block(1).critical, 1);
        while (!stop) acknowledge(b.block(1));
      },
      1);
  std::this_thread::sleep_for(500ms);
  const std::uint64_t liar = w.cpu_ns();
  const std::uint64_t honest = other.cpu_ns();
  std::this_thread::sleep_for(2s);
  const double share = static_cast<double>(other.cpu_ns() - honest) /
                       static_cast<double>(other.cpu_ns() - honest + w.cpu_ns() - liar);
  w.join();
  std::printf("beside the hostile worker: %.1f %% of the CPU\n", share * 100);
  EXPECT_GT(share, 0.3);
}

}  // namespace
