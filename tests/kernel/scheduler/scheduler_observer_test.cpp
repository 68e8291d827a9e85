// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <random>

// In observer mode no thread is kicked, whatever the workers do and claim, and with any settings.
// The same workers are kicked and throttled as soon as the mode changes, which shows that the mode
// was the reason.

namespace {

using namespace sched_test;

constexpr unsigned comes_and_goes = 8;
constexpr unsigned workers = 8;

/// The behaviour of each worker. The first three never acknowledge.
void misbehave(bench& b, unsigned slot, const std::atomic<bool>& stop) {
  asio_pulse_scb& block = b.block(slot);
  std::mt19937_64 random(slot);
  const auto agree = [&block](asio_pulse_policy policy) {
    poke(block.policy, policy);
    poke(block.escapable, 1);
    poke(block.mode, ASIO_PULSE_MODE_ENFORCED);  // values that only the kernel may write
  };
  const auto policy = static_cast<asio_pulse_policy>(1 + slot % 3);
  agree(policy);
  while (!stop) {
    switch (slot) {
      case 4: {  // random bytes
        auto* const words = reinterpret_cast<std::uint64_t*>(&block);
        for (unsigned i = 0; i < sizeof(block) / 8; ++i) poke(words[i], random());
        break;
      }
      case 5:  // acknowledges hints that were never sent
        poke(block.last_ack_seq, ~std::uint64_t{0});
        break;
      case 6:  // critical for ever
        poke(block.critical, 1);
        break;
      case 7: {  // acknowledges at once, and sleeps now and then, but not so often that it gets no hints
        const std::uint64_t until = now_ns() + in_ns(100ms);
        while (now_ns() < until) acknowledge(block);
        std::this_thread::sleep_for(1ms);
        break;
      }
      case comes_and_goes:
        spin_for(30ms);
        b.remove_this(slot);
        b.register_this(slot);
        agree(policy);
        break;
      default:
        break;
    }
  }
}

void nobody_is_kicked(std::chrono::seconds time) {
  scx::scheduler_options options;
  options.grace = 1ms;
  options.throttle = 10ms;
  bench b(options);
  ASSERT_EQ(b.with([](scx::scheduler& s) { return s.settings().mode; }),
            std::uint32_t{ASIO_PULSE_MODE_OBSERVER_ONLY});
  std::vector<std::unique_ptr<ext_thread>> threads;
  for (unsigned slot = 1; slot <= workers; ++slot)
    threads.push_back(std::make_unique<ext_thread>(
        b, slot, [&b, slot](const std::atomic<bool>& stop) { misbehave(b, slot, stop); }));

  std::uint64_t stepped_in = 0;  // by the records, none of which may be lost without being counted
  const auto read_records = [&] {
    for (const asio_pulse_hint& record : b.records())
      stepped_in += record.kind == ASIO_PULSE_KICKED || record.kind == ASIO_PULSE_THROTTLED;
  };
  unsigned standstills = 0;  // seconds without a hint
  unsigned changes = 0;
  std::uint64_t hinted = 0;
  const std::uint64_t begun = now_ns();
  for (std::chrono::seconds second = 0s; second < time; ++second) {
    const std::uint64_t until = begun + in_ns(second + 1s);
    while (now_ns() < until) {
      std::this_thread::sleep_for(100ms);
      read_records();
      b.change([&](scx_pulse_settings& s) {
        ++changes;
        s.slice_ns = in_ns(std::chrono::milliseconds(1 + changes % 5));
        s.grace_ns = in_ns(std::chrono::milliseconds(changes % 2));
        s.max_critical_ns = in_ns(std::chrono::milliseconds(1 + changes % 50));
        s.throttle_percent = 1 + changes % 100;
      });
    }
    const std::uint64_t now = b.counts().hints;
    standstills += now == hinted;
    hinted = now;
  }
  const double took = static_cast<double>(now_ns() - begun) / 1e9;
  read_records();
  const scx_pulse_counts c = b.counts();
  std::printf(
      "observer for %.1f s: %llu hints, %llu acknowledged, %llu lies not believed, %llu "
      "violations, "
      "%llu registrations, %u changes of settings; %llu kicks, %llu throttles\n",
      took, static_cast<unsigned long long>(c.hints),
      static_cast<unsigned long long>(c.acknowledged), static_cast<unsigned long long>(c.hostile),
      static_cast<unsigned long long>(c.violations), static_cast<unsigned long long>(c.registered),
      changes, static_cast<unsigned long long>(c.kicks),
      static_cast<unsigned long long>(c.throttles));
  ::testing::Test::RecordProperty("observer_s", std::to_string(took));
  ::testing::Test::RecordProperty("observer_hints", std::to_string(c.hints));
  EXPECT_GE(took, static_cast<double>(time.count()));
  EXPECT_EQ(c.kicks, 0U);
  EXPECT_EQ(c.throttles, 0U);
  EXPECT_EQ(c.released, 0U) << "an escalation was undone that was never begun";
  EXPECT_EQ(stepped_in, 0U);
  EXPECT_EQ(c.lost_hints, 0U) << "not every record was seen";
  // The workers that do not write into the kernel's half of their block.
  for (const unsigned slot : {1U, 2U, 3U, 5U, 6U, 7U})
    EXPECT_EQ(peek(b.block(slot).escalations), 0U) << "slot " << slot;
  EXPECT_LE(standstills, static_cast<unsigned>(time.count()) / 10) << "seconds without a hint";
  EXPECT_GT(c.acknowledged, 0U);
  EXPECT_GT(c.hostile, 0U);
  EXPECT_GT(c.violations, 0U);
  EXPECT_GT(c.registered, std::uint64_t{workers});
  EXPECT_EQ(b.trouble(), "");

  b.change([](scx_pulse_settings& s) { s.mode = ASIO_PULSE_MODE_ENFORCED; });
  EXPECT_TRUE(vm::eventually([&] { return b.counts().kicks > 0 && b.counts().throttles > 0; }))
      << "kicks " << b.counts().kicks << ", throttles " << b.counts().throttles;
}

// One of them in each boot (tests/kernel/CMakeLists.txt).
TEST(scheduler_observer, kicks_nobody_for_ten_seconds) { nobody_is_kicked(10s); }
TEST(scheduler_observer, kicks_nobody_over_a_hostile_minute) { nobody_is_kicked(60s); }

}  // namespace
