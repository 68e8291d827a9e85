// SPDX-License-Identifier: BSL-1.0
#include "../bpf_statistics.hpp"
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <cstdio>

// The effect of an escalation on its worker, and its end.

namespace {

using namespace sched_test;

// A worker on CPU 1 that runs all the time, agreed to `policy`, and acknowledges when told to.
struct deaf_worker {
  deaf_worker(bench& b, std::uint8_t policy)
      : block(b.block(1)),
        thread(
            b, 1,
            [this, policy](const std::atomic<bool>& stop) {
              poke(block.policy, policy);
              poke(block.escapable, 1);
              while (!stop) {
                if (answers.load(std::memory_order_relaxed)) acknowledge(block);
                if (sleeps.exchange(false)) std::this_thread::sleep_for(1ms);
              }
            },
            1) {}
  std::atomic<bool> answers{false};
  std::atomic<bool> sleeps{false};
  asio_pulse_scb& block;
  ext_thread thread;
};

/// The share of one CPU: the median of five measurements, since pauses of the host are charged to
/// the running thread.
double share_of(const ext_thread& thread, std::chrono::nanoseconds time) {
  std::vector<double> shares;
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t cpu = thread.cpu_ns();
    const std::uint64_t begun = now_ns();
    std::this_thread::sleep_for(time / 5);
    shares.push_back(static_cast<double>(thread.cpu_ns() - cpu) /
                     static_cast<double>(now_ns() - begun));
  }
  return quantile(shares, 0.5);
}

bool wait_for(bench& b, std::uint64_t scx_pulse_counts::*count, std::uint64_t at_least = 1) {
  return vm::eventually([&] { return b.counts().*count >= at_least; });
}

TEST(scheduler_effect, a_kick_ends_the_slice_within_a_tick) {
  scx::scheduler_options options = enforced();
  options.slice = 200ms;  // so that nothing else ends the escalation
  options.grace = 30ms;
  options.throttle = 5ms;
  bench b(options);
  std::atomic<std::uint64_t> turns{0};
  ext_thread other(hog(&turns), 1);
  std::vector<double> late;
  // The worker notices that it was off its CPU by a jump of the wall time.
  std::atomic<std::uint64_t> gap_begins[64] = {};
  std::atomic<unsigned> gaps{0};
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        poke(b.block(1).policy, ASIO_PULSE_POLICY_THREAD_KICK);
        poke(b.block(1).escapable, 1);
        std::uint64_t seen_turns = turns;
        std::uint64_t last = now_ns();
        while (!stop) {
          const std::uint64_t now = now_ns();
          const std::uint64_t t = turns.load(std::memory_order_relaxed);
          if (t != seen_turns && gaps < 64) gap_begins[gaps++] = last;
          seen_turns = t;
          last = now;
        }
      },
      1);
  EXPECT_TRUE(vm::eventually([&] { return b.counts().kicks >= 5; }, 60s));
  w.join();
  for (const asio_pulse_hint& record : b.records()) {
    if (record.kind != ASIO_PULSE_KICKED) continue;
    for (unsigned i = 0; i < gaps; ++i) {
      const double after =
          static_cast<double>(gap_begins[i].load()) - static_cast<double>(record.time_ns);
      if (after < -20e6 || after > 100e6) continue;
      late.push_back(std::max(after, 0.0));
      break;
    }
  }
  ASSERT_GE(late.size(), 3U);
  std::printf("off its CPU after the kick: median %.3f ms, worst %.3f ms\n",
              quantile(late, 0.5) / 1e6, quantile(late, 1) / 1e6);
  EXPECT_LE(quantile(late, 0.5), static_cast<double>(tick.count()));
}

// By the ticks that came between the end of the grace, as the worker sees it, and the escalation:
// an emulated machine loses some. By the clock, too, for the median. The grace is over when the
// worker has also run for a slice since the hint: a worker without CPU time could not react to it.
TEST(scheduler_effect, grace_is_followed_by_the_kick_within_a_tick) {
  scx::scheduler_options options = enforced();
  options.grace = 50ms;
  options.throttle = 5ms;
  bench b(options);
  const tick_count counted;
  std::vector<double> late;
  std::vector<double> ticks;
  for (int i = 0; i < 20; ++i) {
    ext_thread w(
        b, 1,
        [&](const std::atomic<bool>&) {
          asio_pulse_scb& block = b.block(1);
          poke(block.policy, ASIO_PULSE_POLICY_THREAD_KICK);
          poke(block.escapable, 1);
          std::uint64_t hinted = 0;
          std::uint64_t ran_at_hint = 0;
          std::uint64_t at_grace = 0;
          const std::uint64_t limit = now_ns() + in_ns(10s);
          while (peek(block.escalations) == 0 && now_ns() < limit) {
            if (hinted == 0) {
              if (peek(block.preempt_seq) == 0) continue;
              ran_at_hint = thread_cpu_ns();
              hinted = now_ns();
            } else if (at_grace == 0 && now_ns() > hinted + in_ns(options.grace) &&
                       thread_cpu_ns() > ran_at_hint + in_ns(options.slice)) {
              at_grace = counted.now();
            }
          }
          ticks.push_back(at_grace == 0 ? 0 : static_cast<double>(counted.now() - at_grace));
        },
        1);
    ASSERT_TRUE(vm::eventually([&] { return peek(b.block(1).escalations) > 0; }));
    w.join();
    std::uint64_t hinted = 0;
    bool first = true;
    for (const asio_pulse_hint& record : b.records()) {
      if (record.kind == ASIO_PULSE_HINT) hinted = record.time_ns;
      if (record.kind != ASIO_PULSE_KICKED || !first) continue;
      EXPECT_GT(record.time_ns, hinted + in_ns(options.grace));
      late.push_back(static_cast<double>(record.time_ns - hinted - in_ns(options.grace)));
      first = false;
    }
  }
  ASSERT_EQ(late.size(), 20U);
  ASSERT_EQ(ticks.size(), 20U);
  std::printf(
      "kicked after the grace: at worst %.0f tick(s) later; by the clock: median %.2f ms, worst "
      "%.2f ms\n",
      quantile(ticks, 1), quantile(late, 0.5) / 1e6, quantile(late, 1) / 1e6);
  RecordProperty("kick_late_worst_ticks", std::to_string(quantile(ticks, 1)));
  RecordProperty("kick_late_median_ns", std::to_string(quantile(late, 0.5)));
  EXPECT_LE(quantile(ticks, 1), 1);
  EXPECT_LE(quantile(late, 0.5), 1.25 * static_cast<double>(tick.count()));
}

TEST(scheduler_effect, a_kicked_worker_has_shorter_slices_until_it_acknowledges) {
  scx::scheduler_options options = enforced();
  options.slice = 30ms;
  options.grace = 20ms;
  options.throttle = 20s;
  bench b(options);
  ext_thread other(hog(), 1);
  deaf_worker w(b, ASIO_PULSE_POLICY_THREAD_KICK);
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::kicks));
  const double kicked = share_of(w.thread, 1500ms);
  w.answers = true;
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::released));
  const double again = share_of(w.thread, 1500ms);
  w.thread.join();
  std::printf("share beside an equal: kicked %.2f, after acknowledging %.2f\n", kicked, again);
  EXPECT_LT(kicked, 0.33);  // a quarter of 30 ms, in ticks of at most 4, against 30
  EXPECT_NEAR(again, 0.5, 0.08);
}

void throttled_share(unsigned percent, bool competitor, scx_pulse_local_policy policy) {
  scx::scheduler_options options = enforced();
  options.policy = policy;
  options.grace = 20ms;
  options.throttle = 50s;
  options.throttle_percent = percent;
  bench b(options);
  std::unique_ptr<ext_thread> other;
  if (competitor) other = std::make_unique<ext_thread>(hog(), 1);
  deaf_worker w(b, ASIO_PULSE_POLICY_CGROUP_THROTTLE);
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::throttles));
  std::this_thread::sleep_for(200ms);
  const double throttled = share_of(w.thread, 3s);
  w.answers = true;
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::released));
  const double back = share_of(w.thread, 1s);
  w.thread.join();
  std::printf("throttled to %u %%: %.1f %%, then %.1f %%\n", percent, throttled * 100, back * 100);
  ::testing::Test::RecordProperty("share_percent", std::to_string(throttled * 100));
  EXPECT_NEAR(throttled * 100, percent, percent * 0.1);
  EXPECT_NEAR(back, competitor ? 0.5 : 1, 0.15);
  EXPECT_EQ(b.trouble(), "");
}

TEST(scheduler_effect, throttle_holds_to_the_share_alone) {
  throttled_share(25, false, SCX_PULSE_ROUND_ROBIN);
}
TEST(scheduler_effect, throttle_holds_to_the_share_beside_a_competitor) {
  throttled_share(25, true, SCX_PULSE_ROUND_ROBIN);
}
TEST(scheduler_effect, throttle_holds_to_the_share_fair) {
  throttled_share(20, true, SCX_PULSE_FAIR);
}
TEST(scheduler_effect, throttle_holds_to_the_share_priority) {
  throttled_share(40, false, SCX_PULSE_PRIORITY);
}

TEST(scheduler_effect, it_ends_by_itself_by_sleep_and_by_the_mode) {
  scx::scheduler_options options = enforced();
  options.grace = 20ms;
  options.throttle = 100ms;
  bench b(options);
  deaf_worker w(b, ASIO_PULSE_POLICY_CGROUP_THROTTLE);
  // The escalation ends after its time, and then begins again, because the worker still ignores
  // hints.
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::throttles, 3));
  EXPECT_GE(b.counts().released, 2U);
  // It ends when the worker sleeps.
  b.change([](scx_pulse_settings& s) { s.throttle_ns = in_ns(30s); });
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::throttles, b.counts().throttles + 1));
  std::uint64_t released = b.counts().released;
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(b.counts().released, released);
  w.sleeps = true;
  EXPECT_TRUE(wait_for(b, &scx_pulse_counts::released, released + 1));
  // It ends when the mode changes.
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::throttles, b.counts().throttles + 1));
  released = b.counts().released;
  b.change([](scx_pulse_settings& s) { s.mode = ASIO_PULSE_MODE_OBSERVER_ONLY; });
  EXPECT_TRUE(wait_for(b, &scx_pulse_counts::released, released + 1));
  EXPECT_GT(share_of(w.thread, 500ms), 0.8);
  w.thread.join();
  EXPECT_EQ(b.counts().kicks, 0U);
}

TEST(scheduler_effect, hybrid_kicks_first_and_throttles_then) {
  scx::scheduler_options options = enforced();
  options.grace = 40ms;
  options.throttle = 10s;
  bench b(options);
  deaf_worker w(b, ASIO_PULSE_POLICY_HYBRID);
  ASSERT_TRUE(wait_for(b, &scx_pulse_counts::throttles));
  w.thread.join();
  std::uint64_t hinted = 0;
  std::uint64_t kicked = 0;
  std::uint64_t throttled = 0;
  for (const asio_pulse_hint& record : b.records()) {
    if (record.kind == ASIO_PULSE_HINT && hinted == 0) hinted = record.time_ns;
    if (record.kind == ASIO_PULSE_KICKED && kicked == 0) kicked = record.time_ns;
    if (record.kind == ASIO_PULSE_THROTTLED && throttled == 0) throttled = record.time_ns;
  }
  EXPECT_EQ(b.counts().kicks, 1U);
  EXPECT_GT(kicked, hinted + in_ns(options.grace));
  EXPECT_GT(throttled, kicked + in_ns(options.grace));
}

}  // namespace
