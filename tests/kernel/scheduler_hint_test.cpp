// SPDX-License-Identifier: BSL-1.0
#include <gtest/gtest.h>

#include <cstdio>

#include "scheduler_support.hpp"

// Hints: when they come, and who is never escalated against.

namespace {

using namespace sched_test;

struct lateness {
  std::vector<double> ns, ticks;
  unsigned paused = 0;  // looks during which the host took the CPU away
};

// From the end of the slice until the worker sees that preempt_seq has moved. Counted in ticks,
// too: the first tick after the overrun must bring it. One that is under way as the slice ends does
// not count, and the ticks of two CPUs move the clock: hence two are allowed. What falls together
// with a pause of the virtual machine, or a tick that came late, tells nothing: it is counted
// apart.
lateness measure(bench& b, std::size_t hints) {
  lateness result;
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>&) {
        asio_pulse_scb& block = b.block(1);
        const std::uint64_t limit = now_ns() + in_ns(30s);
        while (result.ns.size() < hints && now_ns() < limit) {
          std::this_thread::sleep_for(1ms);  // the slice begins anew
          acknowledge(block);
          const std::uint64_t begun = now_ns();
          std::uint64_t last = begun;
          std::uint64_t last_tick = begun;
          std::uint64_t tick_seen = tick_clock_ns();
          std::uint64_t overrun_tick = 0;
          bool paused = false;
          while (peek(block.preempt_seq) == block.last_ack_seq) {
            const std::uint64_t now = now_ns();
            const std::uint64_t t = tick_clock_ns();
            if (overrun_tick == 0 && now - begun > in_ns(5ms)) overrun_tick = t;
            if (t != tick_seen) last_tick = now;
            tick_seen = t;
            paused = paused || now - last > in_ns(1ms) || now - last_tick > in_ns(tick + 1ms);
            last = now;
          }
          const double late = static_cast<double>(now_ns()) - static_cast<double>(begun) - 5e6;
          if (paused) {
            ++result.paused;
            continue;
          }
          result.ns.push_back(std::max(late, 0.0));
          result.ticks.push_back(overrun_tick == 0
                                     ? 0
                                     : static_cast<double>(tick_clock_ns() - overrun_tick) /
                                           static_cast<double>(tick.count()));
        }
      },
      1);
  w.join();
  return result;
}

TEST(scheduler_hint, within_one_tick_of_the_overrun) {
  bench b;
  const lateness l = measure(b, 200);
  std::printf(
      "hint after the overrun: median %.2f ms, 99%% %.2f ms, worst %.2f ms; %u not counted\n",
      quantile(l.ns, 0.5) / 1e6, quantile(l.ns, 0.99) / 1e6, quantile(l.ns, 1) / 1e6, l.paused);
  RecordProperty("hint_late_median_ns", std::to_string(quantile(l.ns, 0.5)));
  RecordProperty("hint_late_p99_ns", std::to_string(quantile(l.ns, 0.99)));
  ASSERT_GE(l.ns.size(), 50U) << "the machine was paused all the time";
  EXPECT_LE(quantile(l.ticks, 0.98), 2);
  EXPECT_LE(quantile(l.ns, 0.5), 1.25 * static_cast<double>(tick.count()));
}

// Beside a competitor: by the CPU time that the kernel says the worker had had.
TEST(scheduler_hint, within_one_tick_beside_a_competitor) {
  bench b;
  ext_thread other(hog(), 1);
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        while (!stop) acknowledge(b.block(1));
      },
      1);
  EXPECT_TRUE(vm::eventually([&] { return b.counts().hints >= 100; }, 30s));
  w.join();
  std::vector<double> late;
  for (const asio_pulse_hint& record : b.records())
    if (record.kind == ASIO_PULSE_HINT) late.push_back(static_cast<double>(record.ran_ns) - 5e6);
  ASSERT_GE(late.size(), 100U);
  std::printf("hint after the overrun: median %.2f ms, 90%% %.2f ms of CPU time\n",
              quantile(late, 0.5) / 1e6, quantile(late, 0.9) / 1e6);
  EXPECT_LE(quantile(late, 0.5), 1.25 * static_cast<double>(tick.count()));
}

TEST(scheduler_hint, one_is_outstanding_at_a_time) {
  bench b;
  ext_thread w(b, 1, hog(), 1);
  std::this_thread::sleep_for(500ms);
  EXPECT_EQ(b.counts().hints, 1U);
  EXPECT_EQ(peek(b.block(1).preempt_seq), 1U);
  poke(b.block(1).last_ack_seq, 1);
  EXPECT_TRUE(vm::eventually([&] { return peek(b.block(1).preempt_seq) == 2; }));
  EXPECT_EQ(b.counts().acknowledged, 1U);
  EXPECT_LT(peek(b.block(1).budget_ns), 5'000'000);
  const auto records = b.records();
  ASSERT_GE(records.size(), 2U);
  EXPECT_EQ(records[0].kind, ASIO_PULSE_HINT);
  EXPECT_EQ(records[0].seq, 1U);
  EXPECT_EQ(records[0].slot, 1U);
  EXPECT_EQ(records[0].tgid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(records[0].tid, static_cast<std::uint32_t>(w.tid()));
  EXPECT_GE(records[0].ran_ns, 5'000'000U);
}

TEST(scheduler_hint, lost_ones_are_counted_and_the_sequence_goes_on) {
  scx::scheduler_options options;
  options.ring_bytes = 4096;
  options.slice = 1ms;
  bench b(options);
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        while (!stop) acknowledge(b.block(1));
      },
      1);
  EXPECT_TRUE(vm::eventually([&] { return peek(b.block(1).lost_hints) >= 10; }, 30s));
  w.join();
  const scx_pulse_counts counts = b.counts();
  EXPECT_EQ(b.block(1).lost_hints, counts.lost_hints);
  EXPECT_EQ(b.block(1).preempt_seq, counts.hints);
  EXPECT_EQ(b.records().size(), counts.hints - counts.lost_hints);
}

TEST(scheduler_hint, observer_never_kicks) {
  scx::scheduler_options options;
  options.grace = 1ms;
  options.throttle = 10ms;
  bench b(options);
  std::vector<std::unique_ptr<ext_thread>> hogs;
  for (unsigned slot = 1; slot <= 6; ++slot) {
    hogs.push_back(std::make_unique<ext_thread>(b, slot, hog()));
    poke(b.block(slot).policy, static_cast<std::uint8_t>(1 + slot % 3));
    poke(b.block(slot).escapable, 1);
    poke(b.block(slot).mode, ASIO_PULSE_MODE_ENFORCED);  // its own half is not read
  }
  // A worker that acknowledges what was never asked, and one that answers, among those that do not.
  poke(b.block(5).last_ack_seq, ~std::uint64_t{0});
  for (int i = 0; i < 40; ++i) {
    acknowledge(b.block(6));
    std::this_thread::sleep_for(100ms);
  }
  const scx_pulse_counts counts = b.counts();
  std::printf("hints %llu, kicks %llu, throttles %llu\n",
              static_cast<unsigned long long>(counts.hints),
              static_cast<unsigned long long>(counts.kicks),
              static_cast<unsigned long long>(counts.throttles));
  EXPECT_GT(counts.hints, 6U);
  EXPECT_EQ(counts.kicks, 0U);
  EXPECT_EQ(counts.throttles, 0U);
  for (unsigned slot = 1; slot <= 6; ++slot) EXPECT_EQ(b.block(slot).escalations, 0U);
  EXPECT_EQ(b.trouble(), "");
}

TEST(scheduler_hint, who_acknowledges_is_never_escalated_against) {
  scx::scheduler_options options = enforced();
  options.grace = 40ms;
  bench b(options);
  ext_thread other(hog(), 1);
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        poke(b.block(1).policy, ASIO_PULSE_POLICY_HYBRID);
        poke(b.block(1).escapable, 1);
        while (!stop) acknowledge(b.block(1));
      },
      1);
  EXPECT_TRUE(vm::eventually([&] { return b.counts().hints >= 100; }, 30s));
  w.join();
  const scx_pulse_counts counts = b.counts();
  EXPECT_EQ(counts.kicks + counts.throttles, 0U);
  EXPECT_EQ(b.block(1).escalations, 0U);
  EXPECT_GE(counts.acknowledged + 2, counts.hints);
}

}  // namespace
