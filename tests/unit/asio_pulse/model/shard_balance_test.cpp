// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/shard_balance.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <vector>

// The decisions as a whole are in tests/property/shard_balance_property_test.cpp.

namespace {

using namespace std::chrono_literals;
using asio_pulse::balance_decision;
using asio_pulse::balance_settings;
using asio_pulse::choose_moves;
using asio_pulse::movable_load;
using asio_pulse::move_reason;
using asio_pulse::shard_balancer;
using asio_pulse::shard_report;
using asio_pulse::stay_reason;

TEST(shard_balance, refuses_settings_by_name) {
  const auto refused = [](auto change) {
    balance_settings s;
    change(s);
    return invalid_reason(s);
  };
  EXPECT_EQ(invalid_reason(balance_settings{}), "");
  EXPECT_EQ(refused([](auto& s) { s.imbalance_permille = 9; }),
            "asio_pulse::balance_settings.imbalance_permille must be from 10 to 10000");
  EXPECT_EQ(refused([](auto& s) { s.lasting = 0ns; }),
            "asio_pulse::balance_settings.lasting must be from 1 ms to 1 h");
  EXPECT_EQ(refused([](auto& s) { s.again = 0; }),
            "asio_pulse::balance_settings.again must be from 1 to 1000");
  EXPECT_EQ(refused([](auto& s) { s.least_permille = 1001; }),
            "asio_pulse::balance_settings.least_permille must be at most 1000");
  EXPECT_EQ(refused([](auto& s) { s.moves_per_second = 9; }),
            "asio_pulse::balance_settings.moves_per_second must be at least 10");
  EXPECT_EQ(refused([](auto& s) { s.stuck_after = 0ns; }),
            "asio_pulse::balance_settings.stuck_after must be positive, and at most 1 h");
  EXPECT_EQ(refused([](auto& s) { s.stuck_memory = -1ns; }),
            "asio_pulse::balance_settings.stuck_memory must be from 0 to 1 h");
}

TEST(shard_balance, names_its_reasons) {
  EXPECT_EQ(to_string(move_reason::imbalance), "imbalance");
  EXPECT_EQ(to_string(move_reason::ordered), "ordered");
  EXPECT_EQ(to_string(static_cast<move_reason>(asio_pulse::move_reasons)), "unknown");
  EXPECT_EQ(to_string(stay_reason::moves), "moves");
  EXPECT_EQ(to_string(stay_reason::no_target), "no_target");
  EXPECT_EQ(to_string(static_cast<stay_reason>(99)), "unknown");
}

shard_report with(std::uint32_t cpu_permille, std::chrono::nanoseconds delay,
                  std::chrono::nanoseconds before) {
  shard_report r;
  r.load = {cpu_permille, delay};
  r.delay_before = before;
  r.window_began = 1000ms;
  r.window_ended = 1020ms;
  return r;
}

TEST(shard_balance, the_load_is_what_a_shard_is_offered) {
  EXPECT_DOUBLE_EQ(shard_balancer::load_of(with(300, 0ns, 0ns)), 300);
  // The delay has grown by 10 ms in 20 ms, so half as much again is offered.
  EXPECT_DOUBLE_EQ(shard_balancer::load_of(with(1000, 10ms, 0ms)), 1500);
  // It is worked off: the CPU is used, and less is offered.
  EXPECT_DOUBLE_EQ(shard_balancer::load_of(with(1000, 10ms, 20ms)), 500);
  // It stays: 1 for each 100 us, and no more than one CPU.
  EXPECT_DOUBLE_EQ(shard_balancer::load_of(with(1000, 10ms, 10ms)), 1100);
  EXPECT_DOUBLE_EQ(shard_balancer::load_of(with(1000, 10s, 10s)), 2000);
  EXPECT_DOUBLE_EQ(shard_balancer::load_of(with(0, -1ms, 0ms)), 0) << "clocks may differ a little";
}

TEST(shard_balance, few_and_large_things_are_chosen_up_to_what_is_wanted) {
  balance_decision d;
  d.things = 10;
  d.load_ppm = 100;
  d.most_ppm = 150;
  std::vector<movable_load> things{{1, 10}, {2, 60}, {3, 200}, {4, 30}, {5, 0}};
  ASSERT_EQ(choose_moves(things, d), 3U);
  EXPECT_EQ(things[0].id, 2U);
  EXPECT_EQ(things[1].id, 4U);
  EXPECT_EQ(things[2].id, 1U);
  // One that is a little too large is better than none, but not one that is much too large.
  d.most_ppm = 250;
  things = {{1, 210}, {2, 400}, {3, 220}};
  ASSERT_EQ(choose_moves(things, d), 1U);
  EXPECT_EQ(things[0].id, 1U);
  things = {{1, 260}, {2, 400}};
  EXPECT_EQ(choose_moves(things, d), 0U);
  things.clear();
  EXPECT_EQ(choose_moves(things, d), 0U);
  // Not more than allowed.
  d.things = 2;
  things.assign(5, {1, 10});
  EXPECT_EQ(choose_moves(things, d), 2U);
  // Without a limit also what has used nothing.
  d.load_ppm = balance_decision::any;
  d.things = 10;
  things = {{1, 0}, {2, 0}};
  EXPECT_EQ(choose_moves(things, d), 2U);
}

TEST(shard_balance, the_window_before_says_which_and_the_last_one_how_much) {
  balance_decision d;
  d.things = 10;
  d.load_ppm = 100;
  d.most_ppm = 150;
  // The second has used most in the last window: by chance.
  std::vector<movable_load> things{{1, 20, 90}, {2, 80, 10}, {3, 30, 80}};
  ASSERT_EQ(choose_moves(things, d), 3U);
  EXPECT_EQ(things[0].id, 1U);
  EXPECT_EQ(things[1].id, 3U);
  EXPECT_EQ(things[2].id, 2U);
  // Sessions that had used nothing before count half.
  things = {{1, 80, 0}};
  ASSERT_EQ(choose_moves(things, d), 1U);
  EXPECT_EQ(things[0].ppm, 40U);
}

}  // namespace
