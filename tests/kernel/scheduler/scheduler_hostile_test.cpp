// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

// Control blocks with false contents. The scheduler continues to run, and honest threads beside the
// hostile ones get their share.

namespace {

using namespace sched_test;

struct honest_latency {
  double longest_wait_ns = 0;
  double share = 0;
};

// An honest thread beside `liars` on CPU 1: the longest time that it was off the CPU, and its
// share.
honest_latency beside(bench& b, const std::function<void(asio_pulse_scb&, std::mt19937_64&)>& lie,
                      unsigned liars, std::chrono::nanoseconds time = 2s) {
  std::vector<std::unique_ptr<ext_thread>> threads;
  for (unsigned slot = 1; slot <= liars; ++slot)
    threads.push_back(std::make_unique<ext_thread>(
        b, slot,
        [&, slot](const std::atomic<bool>& stop) {
          std::mt19937_64 random(slot);
          while (!stop) lie(b.block(slot), random);
        },
        1));
  honest_latency result;
  std::atomic<std::uint64_t> longest{0};
  std::atomic<bool> measure{false};
  ext_thread honest(
      b, 100,
      [&](const std::atomic<bool>& stop) {
        std::uint64_t last = now_ns();
        while (!stop) {
          const std::uint64_t now = now_ns();
          if (measure) longest = std::max(longest.load(), now - last);
          last = now;
          acknowledge(b.block(100));
        }
      },
      1);
  std::this_thread::sleep_for(
      500ms);  // the bound of the critical sections that they claim at first
  const std::uint64_t cpu = honest.cpu_ns();
  const std::uint64_t begun = now_ns();
  measure = true;
  std::this_thread::sleep_for(time);
  measure = false;
  result.share = static_cast<double>(honest.cpu_ns() - cpu) / static_cast<double>(now_ns() - begun);
  result.longest_wait_ns = static_cast<double>(longest);
  EXPECT_EQ(b.trouble(), "");
  std::printf("honest thread: %.1f %% of the CPU, longest wait %.1f ms\n", result.share * 100,
              result.longest_wait_ns / 1e6);
  return result;
}

// The ticks are for the kernel's own threads and the host, which take time as well.
double wait_bound_ns(unsigned liars, std::chrono::nanoseconds each) {
  return static_cast<double>(liars) * static_cast<double>((each + 2 * tick).count()) + 60e6;
}

TEST(scheduler_hostile, random_bytes) {
  bench b(enforced());
  const honest_latency h = beside(
      b,
      [](asio_pulse_scb& block, std::mt19937_64& random) {
        auto* const words = reinterpret_cast<std::uint64_t*>(&block);
        for (unsigned i = 0; i < sizeof(block) / 8; ++i) poke(words[i], random());
      },
      3, 4s);
  // By chance, the random bytes may make all of them critical for the bound.
  EXPECT_LE(h.longest_wait_ns, wait_bound_ns(3, 50ms));
  EXPECT_GT(h.share, 0.15);
  EXPECT_GT(b.counts().hostile, 0U);
}

TEST(scheduler_hostile, acknowledges_the_future) {
  scx::scheduler_options options = enforced();
  options.grace = 20ms;
  options.throttle = 20ms;
  bench b(options);
  const honest_latency h = beside(
      b,
      [](asio_pulse_scb& block, std::mt19937_64&) {
        poke(block.last_ack_seq, ~std::uint64_t{0});
        poke(block.preempt_seq, ~std::uint64_t{0});
        poke(block.policy, ASIO_PULSE_POLICY_THREAD_KICK);
        poke(block.escapable, 1);
      },
      1);
  EXPECT_GT(b.counts().hostile, 0U);
  EXPECT_GT(b.block(1).escalations, 0U) << "the false contents had an effect";
  EXPECT_GT(h.share, 0.4);
}

TEST(scheduler_hostile, critical_for_ever) {
  scx::scheduler_options options = enforced();
  options.max_critical = 20ms;
  bench b(options);
  const honest_latency h = beside(
      b, [](asio_pulse_scb& block, std::mt19937_64&) { poke(block.critical, 1); }, 2);
  EXPECT_EQ(b.counts().violations, 2U);
  EXPECT_GT(h.share, 0.25);
  EXPECT_LE(h.longest_wait_ns, wait_bound_ns(2, 5ms));
}

TEST(scheduler_hostile, most_urgent_of_all) {
  scx::scheduler_options options;
  options.policy = SCX_PULSE_PRIORITY;
  bench b(options);
  const honest_latency h = beside(
      b, [](asio_pulse_scb& block, std::mt19937_64&) { poke(block.priority, 1000); }, 3, 4s);
  // It waits for its level's turn: 20 slices of 5 ms, each up to a tick longer. Twice that, for the
  // host's pauses.
  EXPECT_LE(h.longest_wait_ns, 200e6 + wait_bound_ns(3, 5ms));
  EXPECT_GT(h.share, 0.02);
  // An invalid priority is ignored.
  poke(b.block(100).priority, 65535);
  const std::uint64_t before = b.counts().hostile;
  ext_thread w(b, 101, [&](const std::atomic<bool>& stop) {
    poke(b.block(101).priority, 65535);
    while (!stop) {
    }
  });
  EXPECT_TRUE(vm::eventually([&] { return b.counts().hostile > before; }));
}

TEST(scheduler_hostile, anothers_block) {
  scx::scheduler_options options = enforced();
  options.grace = 20ms;
  bench b(options);
  // The worker of slot 2 writes the block of slot 1: it acknowledges hints, and agrees to
  // escalations. Within a process that is permitted; the kernel's state of slot 1 does not change.
  ext_thread victim(b, 1, hog(), 0);
  ext_thread liar(
      b, 2,
      [&](const std::atomic<bool>& stop) {
        while (!stop) {
          poke(b.block(1).cpu_sequence, 0);
          poke(b.block(1).escalations, 0);
          poke(b.block(2).cpu_sequence, 1);
          poke(b.block(2).worker_state, ASIO_PULSE_WORKER_DEAD);
          std::this_thread::sleep_for(1ms);
        }
      },
      1);
  std::this_thread::sleep_for(500ms);
  liar.join();
  // The worker of slot 1 does not answer, so one hint is outstanding. The other worker may have got
  // a hint itself.
  EXPECT_EQ(b.counts().hints, peek(b.block(1).preempt_seq) + peek(b.block(2).preempt_seq));
  EXPECT_EQ(peek(b.block(1).preempt_seq), 1U);
  EXPECT_EQ(b.counts().kicks + b.counts().throttles, 0U);  // neither agreed
  EXPECT_EQ(b.trouble(), "");
  // Another process's array is another map: its worker is not found by this one's numbers.
  b.with([](scx::scheduler& s) { s.close_process(::getpid()); });
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(b.trouble(), "");
}

}  // namespace
