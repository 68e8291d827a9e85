// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <cstdio>

// The seven conditions of an escalation: every combination, by one thread that stands for each of
// them in turn, alone on its CPU and beside another that wants it.

namespace {

using namespace sched_test;

enum class standing { unregistered, registered, running, removed };

struct row {
  bool enforced, escapable, critical, acknowledges, elapsed;
  std::uint8_t policy;
};

constexpr auto grace = 4ms;
// Longer than a slice, the grace, and the ticks by which each of them may be noticed late.
const auto looked_at = default_slice + grace + 3 * tick;

std::vector<row> all_rows() {
  std::vector<row> rows;
  for (unsigned bits = 0; bits < 32; ++bits)
    for (std::uint8_t policy = 0; policy <= ASIO_PULSE_POLICY_HYBRID; ++policy)
      rows.push_back({(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0,
                      (bits & 16) != 0, policy});
  return rows;
}

void stand(bench& b, standing where) {
  switch (where) {
    case standing::unregistered:
      vm::enter_sched_ext();
      break;
    case standing::registered:
      vm::leave_sched_ext();
      b.register_this(1);
      break;
    case standing::running:
      b.register_this(1);
      vm::enter_sched_ext();
      break;
    case standing::removed:
      b.register_this(1);
      vm::enter_sched_ext();
      spin_for(3 * tick);
      b.remove_this(1);
      break;
  }
}

// The tick clock stands still while the virtual machine gets no CPU, so it is the ticks that count.
void behave(bench& b, const row& r, bool listens) {
  asio_pulse_scb& block = b.block(1);
  const std::uint64_t begun = tick_clock_ns();
  std::uint64_t hinted = listens ? 0 : begun;
  while (true) {
    const std::uint64_t now = tick_clock_ns();
    if (hinted == 0 && peek(block.preempt_seq) != block.last_ack_seq) hinted = now;
    if (r.acknowledges) acknowledge(block);
    if (hinted != 0 && now - hinted > in_ns(looked_at)) break;
    if (now - begun > in_ns(2s)) break;  // no hint came; the test checks that
  }
}

void whole_table(bool competitor) {
  scx::scheduler_options options = enforced();
  options.max_critical = 10s;
  options.throttle = 10ms;
  bench b(options);
  std::atomic<std::uint64_t> turns{0};
  std::atomic<bool> none{false};
  std::unique_ptr<ext_thread> other;
  if (competitor) other = std::make_unique<ext_thread>(hog(&turns), 1);

  unsigned escalating = 0;
  unsigned rows = 0;
  std::thread([&] {
    pin_to(1);
    for (const standing where :
         {standing::unregistered, standing::registered, standing::running, standing::removed}) {
      stand(b, where);
      asio_pulse_scb& block = b.block(1);
      for (const row& r : all_rows()) {
        b.change([&](scx_pulse_settings& s) {
          s.mode = r.enforced ? ASIO_PULSE_MODE_ENFORCED : ASIO_PULSE_MODE_OBSERVER_ONLY;
          s.grace_ns = in_ns(r.elapsed ? std::chrono::nanoseconds{grace} : 50s);
        });
        poke(block.policy, r.policy);
        poke(block.escapable, r.escapable);
        poke(block.critical, r.critical);
        poke(block.last_ack_seq, peek(block.preempt_seq));
        std::this_thread::sleep_for(1ms);  // earlier escalations are over
        const scx_pulse_counts before = b.counts();
        std::this_thread::sleep_for(1ms);
        behave(b, r, where == standing::running);
        const scx_pulse_counts after = b.counts();

        const bool expected = r.enforced && where == standing::running &&
                              r.policy != ASIO_PULSE_POLICY_NONE && r.escapable && !r.critical &&
                              !r.acknowledges && r.elapsed;
        const std::uint64_t kicks = after.kicks - before.kicks;
        const std::uint64_t throttles = after.throttles - before.throttles;
        ++rows;
        escalating += kicks + throttles > 0 ? 1 : 0;
        EXPECT_EQ(kicks + throttles > 0, expected)
            << "standing " << static_cast<int>(where) << " enforced " << r.enforced << " policy "
            << static_cast<int>(r.policy) << " escapable " << r.escapable << " critical "
            << r.critical << " acknowledges " << r.acknowledges << " elapsed " << r.elapsed;
        // Only the first escalation is checked: a HYBRID may have reached the throttle by now.
        EXPECT_EQ(kicks > 0, expected && r.policy != ASIO_PULSE_POLICY_CGROUP_THROTTLE);
        EXPECT_EQ(after.hints > before.hints, where == standing::running);
      }
    }
  }).join();
  EXPECT_EQ(rows, 4U * 128U);
  EXPECT_EQ(escalating, 3U);  // one combination, with each of the three policies
  EXPECT_EQ(b.trouble(), "");
  std::printf("%u rows, %u of them escalated\n", rows, escalating);
}

TEST(scheduler_escalation, truth_table_alone) { whole_table(false); }
TEST(scheduler_escalation, truth_table_with_competitor) { whole_table(true); }

TEST(scheduler_escalation, slice_not_exceeded_means_no_hint) {
  scx::scheduler_options options = enforced();
  options.slice = 50ms;
  options.grace = 1ms;
  bench b(options);
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        b.block(1).policy = ASIO_PULSE_POLICY_THREAD_KICK;
        b.block(1).escapable = 1;
        while (!stop) {
          spin_for(2ms);
          std::this_thread::sleep_for(1ms);
        }
      },
      1);
  std::this_thread::sleep_for(1s);
  w.join();
  EXPECT_EQ(b.counts().hints, 0U);
  EXPECT_EQ(b.counts().kicks, 0U);
}

TEST(scheduler_escalation, revoked_trust_protects_no_more) {
  scx::scheduler_options options = enforced();
  options.grace = 20ms;
  options.max_critical = 40ms;
  bench b(options);
  ext_thread w(
      b, 1,
      [&](const std::atomic<bool>& stop) {
        b.block(1).policy = ASIO_PULSE_POLICY_THREAD_KICK;
        b.block(1).escapable = 1;
        poke(b.block(1).critical, 1);
        while (!stop) {
        }
      },
      1);
  EXPECT_TRUE(vm::eventually([&] { return b.counts().kicks > 0; }));
  w.join();
  EXPECT_EQ(b.block(1).violations, 1U);
  std::uint64_t violated = 0;
  for (const asio_pulse_hint& record : b.records()) {
    if (record.kind == ASIO_PULSE_VIOLATION) violated = record.time_ns;
    EXPECT_TRUE(record.kind != ASIO_PULSE_KICKED || violated != 0)
        << "kicked while it was protected";
  }
}

}  // namespace
