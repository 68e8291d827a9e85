// SPDX-License-Identifier: BSL-1.0

#include "hint_local.hpp"
//
#include <gtest/gtest.h>

#include <array>
#include <chrono>

namespace {

using namespace std::chrono_literals;
using asio_pulse::detail::local_hints;
using asio_pulse::detail::parse_pressure_total;
using asio_pulse::detail::thread_usage;

constexpr std::int64_t one_ms = 1'000'000;

thread_usage used(std::int64_t cpu_ns, std::uint64_t involuntary = 0, std::uint64_t voluntary = 0) {
  thread_usage u;
  u.valid = u.have_switches = true;
  u.cpu_ns = cpu_ns;
  u.involuntary = involuntary;
  u.voluntary = voluntary;
  return u;
}

class local : public testing::Test {
 protected:
  bool look(const thread_usage& u) { return hints.look(u, block, 20); }

  asio_pulse_scb block{};
  local_hints hints{3ms};
};

TEST_F(local, nobody_else_wants_the_cpu) {
  for (int n = 0; n < 100; ++n) EXPECT_FALSE(look(used(n * 10 * one_ms)));
  EXPECT_EQ(block.preempt_seq, 0U);
}

TEST_F(local, displaced_before_its_slice_is_over) {
  EXPECT_FALSE(look(used(0)));
  EXPECT_FALSE(look(used(2 * one_ms, 1)));
  EXPECT_EQ(block.preempt_seq, 0U);
  EXPECT_EQ(block.budget_ns, 1 * one_ms);
}

TEST_F(local, displaced_after_its_slice) {
  EXPECT_FALSE(look(used(0)));
  EXPECT_TRUE(look(used(4 * one_ms, 1)));
  EXPECT_EQ(block.preempt_seq, 1U);
  EXPECT_EQ(block.pressure, 20U);
  EXPECT_EQ(block.budget_ns, -1 * one_ms);
}

TEST_F(local, the_first_look_knows_of_nothing) {
  EXPECT_FALSE(look(used(1'000'000 * one_ms, 77)));
  EXPECT_EQ(block.preempt_seq, 0U);
}

TEST_F(local, one_is_outstanding_at_a_time) {
  EXPECT_FALSE(look(used(0)));
  EXPECT_TRUE(look(used(4 * one_ms, 1)));
  for (int n = 2; n < 50; ++n) EXPECT_FALSE(look(used(n * 10 * one_ms, static_cast<unsigned>(n))));
  EXPECT_EQ(block.preempt_seq, 1U);
  block.last_ack_seq = 1;
  EXPECT_FALSE(look(used(600 * one_ms, 60)));  // a new slice begins with the acknowledgement
  EXPECT_TRUE(look(used(604 * one_ms, 61)));
  EXPECT_EQ(block.preempt_seq, 2U);
}

TEST_F(local, sleeping_gives_a_new_slice) {
  EXPECT_FALSE(look(used(0)));
  EXPECT_FALSE(look(used(4 * one_ms, 1, 1)));
  EXPECT_FALSE(look(used(6 * one_ms, 2, 1)));
  EXPECT_TRUE(look(used(8 * one_ms, 3, 1)));
}

TEST_F(local, what_cannot_be_read_is_no_hint) {
  EXPECT_FALSE(look(used(0)));
  thread_usage blind = used(100 * one_ms, 9);
  blind.have_switches = false;
  EXPECT_FALSE(look(blind));
  blind = used(100 * one_ms, 9);
  blind.valid = false;
  EXPECT_FALSE(look(blind));
}

TEST(pressure_total, is_read_from_the_first_line) {
  std::uint64_t total = 0;
  EXPECT_TRUE(
      parse_pressure_total("some avg10=0.12 avg60=0.00 avg300=0.00 total=123456\n"
                           "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
                           total));
  EXPECT_EQ(total, 123456U);
}

TEST(pressure_total, of_hostile_text_is_none) {
  for (const char* text :
       {"", "some", "some ", "full avg10=0.00 total=1\n", "some total=\n", "some x total=-1\n",
        "some x total=99999999999999999999999\n", "some x total=12x\n", "total=1\n"}) {
    std::uint64_t total = 0;
    EXPECT_FALSE(parse_pressure_total(text, total)) << text;
  }
}

}  // namespace
