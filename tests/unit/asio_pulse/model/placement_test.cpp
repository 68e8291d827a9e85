// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/placement.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asio_pulse::placed_on;
using asio_pulse::placement_rule;
using asio_pulse::placement_view;
using asio_pulse::placer;
using asio_pulse::shard_load;

TEST(placement, round_robin_takes_turns_from_where_it_begins) {
  placer p(2);
  std::vector<std::size_t> order;
  for (int i = 0; i != 6; ++i) order.push_back(p.round_robin(4));
  EXPECT_EQ(order, (std::vector<std::size_t>{2, 3, 0, 1, 2, 3}));
}

TEST(placement, a_shard_with_more_cpu_time_gets_nothing) {
  placer p;
  const std::array<shard_load, 3> loads{shard_load{900, 0ns}, {100, 0ns}, {500, 0ns}};
  for (int i = 0; i != 10; ++i) EXPECT_EQ(p.least_loaded(loads), 1U);
}

TEST(placement, a_shard_whose_queue_is_late_gets_nothing) {
  placer p;
  // The second one uses less CPU, but its operations wait: it blocks in a handler.
  const std::array<shard_load, 2> loads{shard_load{300, 0ns}, {0, 50ms}};
  for (int i = 0; i != 10; ++i) EXPECT_EQ(p.least_loaded(loads), 0U);
}

TEST(placement, loads_that_hardly_differ_share_a_burst) {
  placer p;
  const std::array<shard_load, 3> loads{shard_load{120, 10us}, {150, 0ns}, {999, 0ns}};
  std::array<int, 3> placed{};
  for (int i = 0; i != 1000; ++i) ++placed[p.least_loaded(loads)];
  EXPECT_EQ(placed, (std::array<int, 3>{500, 500, 0}));
}

TEST(placement, a_score_is_thousandths_and_tens_of_microseconds) {
  EXPECT_EQ(placer::score({250, 0ns}), 250U);
  EXPECT_EQ(placer::score({0, 1ms}), 100U);
  EXPECT_EQ(placer::score({7, 25us}), 9U);
  EXPECT_EQ(placer::score({0, -1ns}), 0U) << "clocks of two CPUs may differ a little";
}

TEST(placement, a_key_is_sticky_and_keys_are_spread) {
  std::array<int, 8> keys{};
  for (std::uint64_t key = 0; key != 8000; ++key) {
    const std::size_t shard = placer::by_key(key, 8);
    ASSERT_LT(shard, 8U);
    ASSERT_EQ(placer::by_key(key, 8), shard);
    ++keys[shard];
  }
  // Expected are 1000 each; the standard deviation is 30.
  for (const int n : keys) EXPECT_NEAR(n, 1000, 150);
}

TEST(placement, with_one_more_shard_keys_only_move_to_that_one) {
  int moved = 0;
  for (int i = 0; i != 5000; ++i) {
    const std::string key = "user" + std::to_string(i);
    const std::size_t before = placer::by_key(key, 4);
    const std::size_t after = placer::by_key(key, 5);
    if (before == after) continue;
    EXPECT_EQ(after, 4U);
    ++moved;
  }
  EXPECT_NEAR(moved, 1000, 150);
}

TEST(placement, the_programs_function_decides) {
  placer p;
  const std::array<shard_load, 3> loads{};
  const auto last = [](const placement_view& v) { return v.loads.size() - 1; };
  EXPECT_EQ(p.by_function(last, {loads, {}}), (placed_on{2, false}));
  const auto own = [](const placement_view& v) { return v.from.value(); };
  EXPECT_EQ(p.by_function(own, {loads, 1}), (placed_on{1, false}));
}

TEST(placement, a_function_that_throws_or_is_out_of_range_falls_back) {
  placer p;
  const std::array<shard_load, 3> loads{};
  const auto throws = [](const placement_view&) -> std::size_t { throw std::runtime_error("no"); };
  const auto throws_a_number = [](const placement_view&) -> std::size_t { throw 1; };
  const auto too_large = [](const placement_view&) -> std::size_t { return 3; };
  EXPECT_EQ(p.by_function(throws, {loads, {}}), (placed_on{0, true}));
  EXPECT_EQ(p.by_function(throws_a_number, {loads, {}}), (placed_on{1, true}));
  EXPECT_EQ(p.by_function(too_large, {loads, {}}), (placed_on{2, true}));
  EXPECT_EQ(p.by_function({}, {loads, {}}), (placed_on{0, true})) << "an empty function throws";
}

TEST(placement, rules_have_names) {
  EXPECT_EQ(to_string(placement_rule::round_robin), "round_robin");
  EXPECT_EQ(to_string(placement_rule::least_loaded), "least_loaded");
  EXPECT_EQ(to_string(static_cast<placement_rule>(9)), "unknown");
}

}  // namespace
