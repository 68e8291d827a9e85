// SPDX-License-Identifier: BSL-1.0
#include "../bpf_statistics.hpp"
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <cstdio>

// Hints: when they come, and which threads are never escalated against.

namespace {

using namespace sched_test;

struct lateness {
  std::vector<double> ns;     // from the end of the slice until the worker sees the hint
  std::vector<double> ticks;  // that came meanwhile
  unsigned lost = 0;          // waits in which the machine had fewer ticks than its clock
};

// From the end of the slice, by the CPU time that the kernel has for the worker, until it sees that
// preempt_seq has moved. An emulated machine loses ticks when its host is busy, and no scheduler
// can send a hint in a tick that does not come. So the test counts the ticks. No wait is left out.
lateness measure(bench& b, std::size_t hints) {
  lateness result;
  const tick_count ticks;  // no other thread is SCHED_EXT, so these are the worker's ticks
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>&) {
        asio_pulse_scb& block = b.block(1);
        const std::uint64_t limit = now_ns() + in_ns(60s);
        while (result.ns.size() < hints && now_ns() < limit) {
          std::this_thread::sleep_for(1ms);  // the slice begins anew
          acknowledge(block);
          const std::uint64_t cpu = thread_cpu_ns();
          const std::uint64_t begun = now_ns();
          const std::uint64_t at_begin = ticks.now();
          std::uint64_t at_overrun = 0;
          while (peek(block.preempt_seq) == block.last_ack_seq)
            if (at_overrun == 0 && thread_cpu_ns() - cpu > in_ns(5ms)) at_overrun = ticks.now();
          const std::uint64_t took = now_ns() - begun;
          const std::uint64_t seen = ticks.now();
          result.ns.push_back(std::max(static_cast<double>(took) - 5e6, 0.0));
          // The kernel's slice began a little earlier, with the sleep: its hint may come before.
          result.ticks.push_back(at_overrun == 0 ? 0 : static_cast<double>(seen - at_overrun));
          result.lost += took / in_ns(tick) > seen - at_begin;
        }
      },
      1);
  w.join();
  return result;
}

TEST(scheduler_hint, within_one_tick_of_the_overrun) {
  bench b;
  const lateness l = measure(b, 400);
  ASSERT_EQ(l.ns.size(), 400U);
  const auto within =
      std::count_if(l.ticks.begin(), l.ticks.end(), [](double t) { return t <= 1; });
  const auto in_the_first =
      std::count_if(l.ticks.begin(), l.ticks.end(), [](double t) { return t == 1; });
  std::printf(
      "%zu hints, %td in the first tick after the overrun or before it was seen, %.0f ticks after "
      "it at worst\n"
      "by the clock: median %.2f ms, 98%% %.2f ms, 99%% %.2f ms, worst %.2f ms; the machine lost "
      "ticks in %u of these waits\n",
      l.ns.size(), within, quantile(l.ticks, 1), quantile(l.ns, 0.5) / 1e6,
      quantile(l.ns, 0.98) / 1e6, quantile(l.ns, 0.99) / 1e6, quantile(l.ns, 1) / 1e6, l.lost);
  RecordProperty("hint_within_one_tick", std::to_string(within));
  RecordProperty("hint_late_median_ns", std::to_string(quantile(l.ns, 0.5)));
  RecordProperty("hint_late_p99_ns", std::to_string(quantile(l.ns, 0.99)));
  EXPECT_LE(quantile(l.ticks, 0.99), 1);
  EXPECT_GT(in_the_first, 200) << "the ticks are not those of the worker";
  EXPECT_LE(quantile(l.ns, 0.5), 1.25 * static_cast<double>(tick.count()));
}

// Beside a competitor: by the worker's CPU time, as the kernel reports it.
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
