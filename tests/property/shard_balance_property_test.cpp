// SPDX-License-Identifier: BSL-1.0
//
// The decisions of shards about moves, on shards that are sums: each has things that offer load, and what it
// cannot serve waits.
#include <asio_pulse/shard_balance.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace balance_property {

using namespace std::chrono_literals;
using asio_pulse::balance_decision;
using asio_pulse::balance_settings;
using asio_pulse::choose_moves;
using asio_pulse::movable_load;
using asio_pulse::move_reason;
using asio_pulse::shard_balancer;
using asio_pulse::shard_report;
using asio_pulse::stay_reason;
using ns = std::chrono::nanoseconds;
using kind = balance_decision::kind;

constexpr ns window = 20ms;

struct thing {
  double permille;  ///< of a CPU, that it offers
  bool movable = true;
  std::uint32_t moves = 0;
};

struct a_move {
  ns at;
  std::size_t from;
  std::size_t to;
  move_reason reason;
};

/// Shards that measure one after the other, in windows of their own.
class shards {
 public:
  shards(std::size_t n, std::uint64_t seed, const balance_settings& s = {})
      : things(n), reports(n), backlog_(n), served_(n, 1), random_(seed) {
    for (std::size_t i = 0; i != n; ++i) balancers.emplace_back(i, n, s);
  }

  void run(ns length) {
    const ns end = now + length;
    const std::size_t n = things.size();
    const ns step = window / static_cast<ns::rep>(n);
    while (now < end) {
      for (std::size_t i = 0; i != n; ++i) {
        now += step;
        measure(i);
        decide(i);
      }
    }
  }

  [[nodiscard]] double offered(std::size_t shard) const {
    double sum = 0;
    for (const thing& t : things[shard]) sum += t.permille;
    return sum;
  }
  [[nodiscard]] double worst_excess() const {
    double most = 0;
    double all = 0;
    for (std::size_t i = 0; i != things.size(); ++i) {
      most = std::max(most, offered(i));
      all += offered(i);
    }
    return most / (all / static_cast<double>(things.size())) - 1;
  }
  [[nodiscard]] std::size_t moves_since(ns then) const {
    return static_cast<std::size_t>(std::count_if(
        moves.begin(), moves.end(), [then](const a_move& m) { return m.at >= then; }));
  }

  std::vector<std::vector<thing>> things;
  std::vector<shard_report> reports;
  std::vector<shard_balancer> balancers;
  std::vector<a_move> moves;
  std::vector<stay_reason> stays = std::vector<stay_reason>(256);
  double noise = 0;  ///< standard deviation of what a thing uses in a window, as a part
  ns now = 1s;

 private:
  void measure(std::size_t i) {
    std::normal_distribution<double> spread(1, noise > 0 ? noise : 1);
    double movable = 0;
    double all = 0;
    std::uint32_t count = 0;
    for (const thing& t : things[i]) {
      const double used = noise > 0 ? std::max(t.permille * spread(random_), 0.0) : t.permille;
      all += used;
      if (!t.movable) continue;
      movable += used;
      ++count;
    }
    const double wanted = all + backlog_[i];
    const double used = std::min(wanted, 1000.0);
    backlog_[i] = wanted - used;
    served_[i] = all > 0 ? used / all : 1;
    shard_report& r = reports[i];
    r.load.cpu_permille = static_cast<std::uint32_t>(used);
    r.delay_before = r.load.delay;
    r.load.delay =
        ns(static_cast<ns::rep>(backlog_[i] / 1000 * static_cast<double>(window.count())));
    r.movable = count;
    r.movable_permille = static_cast<std::uint32_t>(all > 0 ? used * movable / all : 0);
    r.window_began = r.window_ended;
    r.window_ended = now;
  }

  void decide(std::size_t me) {
    for (int rounds = 0;; ++rounds) {
      ASSERT_LT(rounds, 10000) << "decide() must come to an end";
      const balance_decision d = balancers[me].decide(reports, now);
      stays[me] = d.why;
      if (d.what == kind::stay) return;
      const std::size_t from = d.what == kind::take ? d.shard : me;
      const std::size_t to = d.what == kind::take ? me : d.shard;
      ASSERT_NE(from, to);
      ASSERT_FALSE(reports[to].draining || reports[to].stopped);
      ASSERT_GT(d.things, 0U);
      std::vector<movable_load> candidates;
      for (std::size_t t = 0; t != things[from].size(); ++t) {
        if (!things[from][t].movable) continue;
        const double got = things[from][t].permille * served_[from];
        const auto ppm = static_cast<std::uint32_t>(got * 1000);
        candidates.push_back({t, ppm});
      }
      ASSERT_FALSE(candidates.empty()) << "never asks for a move if nothing may move";
      const std::size_t n = choose_moves(candidates, d);
      std::uint64_t load = 0;
      std::vector<std::size_t> chosen;
      for (std::size_t c = 0; c != n; ++c) {
        load += candidates[c].ppm;
        chosen.push_back(candidates[c].id);
      }
      EXPECT_LE(n, d.things);
      EXPECT_LE(load, d.most_ppm);
      std::sort(chosen.rbegin(), chosen.rend());
      for (const std::size_t t : chosen) {
        thing moved = things[from][t];
        ++moved.moves;
        things[to].push_back(moved);
        things[from].erase(things[from].begin() + static_cast<std::ptrdiff_t>(t));
        moves.push_back({now, from, to, d.reason});
        --reports[from].movable;
      }
      if (n != 0) reports[to].moved_in = now;
      balancers[me].moved(d, static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(load), now);
    }
  }

  std::vector<double> backlog_;
  std::vector<double> served_;  ///< CPU that things have got for each unit that they have offered
  std::mt19937_64 random_;
};

std::vector<thing> equal(std::size_t n, double permille) {
  return std::vector<thing>(n, thing{permille});
}

// ---- tests

TEST(shard_balance_property,
     sticky_overloads_are_balanced_within_200_ms_and_then_hardly_anything_moves) {
  for (const std::size_t n : {2U, 3U, 8U, 64U}) {
    for (std::uint64_t seed = 1; seed != 9; ++seed) {
      std::mt19937_64 random(seed * 100 + n);
      shards s(n, seed);
      s.noise = 0.05;
      // Half of the mean everywhere, and as much again with one or a quarter of the shards.
      std::uniform_real_distribution<double> size(0.2, 1.8);
      for (std::size_t i = 0; i != n; ++i) {
        for (int k = 0; k != 40; ++k) s.things[i].push_back({6 * size(random)});
      }
      s.run(1s);
      // One shard gets twice of what it can serve, or a quarter of them all that it can.
      const std::size_t hot = seed % 2 == 0 ? 1 : std::max<std::size_t>(n / 4, 1);
      const double extra = seed % 2 == 0 ? std::min(1760.0, 510.0 * static_cast<double>(n)) : 760;
      for (std::size_t i = 0; i != hot; ++i) {
        for (int k = 0; k != 200; ++k) s.things[i].push_back({extra / 200 * size(random)});
      }
      // Many that decide at the same time need a second step.
      s.run(hot == 1 ? 200ms : 2s);
      EXPECT_LE(s.worst_excess(), 0.15) << n << " shards, seed " << seed;
      const ns then = s.now;
      s.run(10s);
      EXPECT_LE(s.worst_excess(), 0.15) << n << " shards, seed " << seed;
      EXPECT_LE(s.moves_since(then), 10U) << "in 10 s, " << n << " shards, seed " << seed;
    }
  }
}

TEST(shard_balance_property, nothing_moves_if_nothing_may_and_the_shard_says_so) {
  for (std::uint64_t seed = 1; seed != 6; ++seed) {
    shards s(4, seed);
    s.noise = 0.1;
    s.things[0] = equal(30, 40);
    for (thing& t : s.things[0]) t.movable = false;
    s.things[1] = equal(10, 10);
    s.run(5s);
    EXPECT_TRUE(s.moves.empty());
    EXPECT_EQ(s.stays[0], stay_reason::nothing_movable);
    EXPECT_EQ(s.stays[1], stay_reason::balanced);
  }
}

TEST(shard_balance_property, a_thing_that_is_the_whole_load_stays_and_small_ones_leave_it) {
  shards s(2, 1);
  s.things[0] = {{600}};
  s.things[1] = equal(10, 20);
  for (int i = 0; i != 10; ++i) s.things[0].push_back({20});
  s.run(10s);
  EXPECT_EQ(s.things[0].size(), 1U) << "all that can be done";
  EXPECT_EQ(s.things[0].front().moves, 0U);
  EXPECT_EQ(s.moves.size(), 10U);
  EXPECT_EQ(s.stays[0], stay_reason::too_large);
}

TEST(shard_balance_property, noise_alone_moves_little_and_nothing_back_and_forth) {
  for (const double noise : {0.1, 0.3, 0.6}) {
    for (std::uint64_t seed = 1; seed != 9; ++seed) {
      shards s(4, seed);
      s.noise = noise;
      for (auto& t : s.things) t = equal(20, 30);  // the whole shard's noise is a fourth of this
      const ns then = s.now;
      s.run(20s);
      // A move a second and shard would be 80.
      EXPECT_LE(s.moves_since(then), 40U) << "noise " << noise << ", seed " << seed;
      for (const auto& its : s.things) {
        for (const thing& t : its) EXPECT_LE(t.moves, 2U) << "noise " << noise << ", seed " << seed;
      }
    }
  }
}

TEST(shard_balance_property, load_that_changes_sides_is_followed_but_seldom_at_once) {
  // Two large things take turns with their load, faster than moving could help.
  shards s(2, 3);
  for (int i = 0; i != 10; ++i) {
    s.things[0].push_back({35});
    s.things[1].push_back({35});
  }
  for (std::size_t turn = 0; turn != 100; ++turn) {
    for (thing& t : s.things[turn % 2]) t.permille = 60;
    for (thing& t : s.things[(turn + 1) % 2]) t.permille = 35;
    s.run(100ms);
  }
  // Each swing is an excess of a quarter. 5 moves a second are a twentieth of what following each would take.
  EXPECT_LE(s.moves.size(), 50U);
}

TEST(shard_balance_property, the_limit_of_moves_holds_for_each_shard) {
  balance_settings few;
  few.moves_per_second = 50;
  shards s(3, 1, few);
  s.things[0] = equal(900, 1);
  s.run(200ms);
  EXPECT_LE(s.moves.size(), 15U) << "a tenth of a second's at once, and then 50 a second";
  s.run(10s);
  EXPECT_LE(s.moves.size(), 516U);
  EXPECT_GE(s.moves.size(), 400U);
}

TEST(shard_balance_property, a_draining_shard_is_emptied_to_the_others_and_gets_nothing) {
  for (std::uint64_t seed = 1; seed != 6; ++seed) {
    shards s(5, seed);
    for (auto& t : s.things) t = equal(50, 8);
    s.things[2].push_back({5, false});
    s.reports[2].draining = true;
    s.run(100ms);
    ASSERT_EQ(s.things[2].size(), 1U) << "what may not move";
    EXPECT_EQ(s.moves.size(), 50U);
    for (const a_move& m : s.moves) EXPECT_EQ(m.reason, move_reason::drain);
    std::size_t least = 1000;
    for (const std::size_t i : {0U, 1U, 3U, 4U}) least = std::min(least, s.things[i].size());
    EXPECT_GT(least, 53U) << "all of the others get some of it";
    s.run(5s);
    EXPECT_EQ(s.things[2].size(), 1U);
  }
}

TEST(shard_balance_property,
     a_stuck_shards_things_are_taken_over_and_it_gets_nothing_for_as_long_as_it_was_stuck) {
  shards s(4, 1);
  for (auto& t : s.things) t = equal(30, 10);
  s.things[1].push_back({300, false});  // its handler blocks the shard
  s.run(1s);
  const std::size_t before = s.moves.size();
  s.reports[1].poll_began = s.now - 1ms;
  s.run(window);
  EXPECT_EQ(s.things[1].size(), 1U);
  for (std::size_t i = before; i != s.moves.size(); ++i) {
    EXPECT_EQ(s.moves[i].from, 1U);
    EXPECT_EQ(s.moves[i].reason, move_reason::stuck);
  }
  // It ends, and has the least load of all; but the handler that blocked it may do so again.
  s.run(500ms - window);
  s.things[1].clear();
  s.reports[1].poll_began = 0ns;
  s.run(400ms);
  EXPECT_TRUE(s.things[1].empty());
  s.run(3s);
  EXPECT_FALSE(s.things[1].empty());
  EXPECT_LE(s.worst_excess(), 0.15);
}

TEST(shard_balance_property, without_a_shard_that_may_get_something_nothing_moves) {
  shards s(2, 1);
  s.things[0] = equal(20, 45);
  s.reports[1].stopped = true;
  s.run(2s);
  EXPECT_TRUE(s.moves.empty());
  s.reports[1].stopped = false;
  s.reports[1].draining = true;
  s.run(2s);
  EXPECT_TRUE(s.moves.empty());
  s.reports[0].draining = true;
  s.run(1s);
  EXPECT_TRUE(s.moves.empty());
  EXPECT_EQ(s.stays[0], stay_reason::no_target);
}

TEST(shard_balance_property, what_was_moved_counts_at_once_and_its_window_is_corrected) {
  shard_balancer b(0, 2, {});
  std::vector<shard_report> r(2);
  const auto at = [&](ns from, ns to, std::uint32_t mine, std::uint32_t its) {
    for (shard_report& each : r) {
      each.window_began = from;
      each.window_ended = to;
    }
    r[0].load.cpu_permille = mine;
    r[1].load.cpu_permille = its;
    r[0].movable = 100;
    r[0].movable_permille = mine;
    return b.decide(r, to);
  };
  EXPECT_EQ(at(1000ms, 1020ms, 900, 100).why, stay_reason::too_short);
  const balance_decision d = at(1020ms, 1040ms, 900, 100);
  ASSERT_EQ(d.what, kind::give);
  EXPECT_EQ(d.load_ppm, 400'000U);
  EXPECT_EQ(d.most_ppm, 600'000U);
  b.moved(d, 40, 400'000, 1049ms);  // it has arrived at 1050 ms
  // Old measurements do not make it move again.
  for (ns t = 1050ms; t != 1060ms; t += 1ms) EXPECT_EQ(b.decide(r, t).what, kind::stay);
  // In this window each of them had it for half of the time.
  EXPECT_EQ(at(1040ms, 1060ms, 700, 300).why, stay_reason::balanced);
  EXPECT_NEAR(b.excess_permille(), 0, 1);
  EXPECT_EQ(at(1060ms, 1080ms, 500, 500).why, stay_reason::balanced);
  EXPECT_NEAR(b.excess_permille(), 0, 1);
}

/// Reports of shards that have hogs, and turns lately: of each, so many were long.
class with_hogs {
 public:
  with_hogs(std::size_t n, std::uint32_t turns, std::uint32_t long_turns) : reports(n) {
    for (std::size_t i = 0; i != n; ++i) {
      reports[i].movable = 100;
      reports[i].turns = turns;
      reports[i].long_turns = long_turns;
      balancers.emplace_back(i, n, balance_settings{});
    }
  }
  /// Each hog has a long turn, and moves if it lives elsewhere. Returns how many have moved.
  std::size_t round() {
    std::size_t moves = 0;
    for (std::size_t i = 0; i != reports.size(); ++i) {
      for (std::uint32_t left = reports[i].hogs; left != 0; --left) {
        const std::size_t home = balancers[i].home_of_hog(reports, 1100ms);
        if (home == i) continue;
        EXPECT_FALSE(reports[home].draining || reports[home].stopped);
        --reports[i].hogs;
        ++reports[home].hogs;
        ++moves;
      }
    }
    return moves;
  }
  [[nodiscard]] std::size_t homes() const {
    return static_cast<std::size_t>(
        std::count_if(reports.begin(), reports.end(), [](const auto& r) { return r.hogs != 0; }));
  }

  std::vector<shard_report> reports;
  std::vector<shard_balancer> balancers;
};

TEST(shard_balance_property, hogs_live_on_at_most_half_of_the_shards_and_are_spread_over_these) {
  for (const std::size_t n : {1U, 2U, 3U, 8U, 64U}) {
    for (std::uint64_t seed = 1; seed != 20; ++seed) {
      std::mt19937_64 random(seed * 100 + n);
      with_hogs s(n, 1000, 5);
      const std::size_t hogs = 1 + random() % (2 * n);
      for (std::size_t i = 0; i != hogs; ++i) ++s.reports[random() % n].hogs;
      if (n > 2) s.reports[random() % n].draining = true;
      // What is drained has left by itself.
      for (shard_report& r : s.reports) {
        if (!r.draining) continue;
        s.reports[&r == &s.reports[0] ? 1 : 0].hogs += std::exchange(r.hogs, 0U);
      }
      int rounds = 0;
      while (s.round() != 0) ASSERT_LT(++rounds, 100) << "they come to rest";
      const std::size_t able = n > 2 ? n - 1 : n;
      const std::size_t most = std::max<std::size_t>(able / 2, 1);
      EXPECT_EQ(s.homes(), std::min(most, hogs)) << n << " shards, seed " << seed;
      std::uint32_t least = ~0U;
      std::uint32_t largest = 0;
      for (const shard_report& r : s.reports) {
        if (r.hogs == 0) continue;
        least = std::min(least, r.hogs);
        largest = std::max(largest, r.hogs);
      }
      EXPECT_LE(largest, least + 1) << n << " shards, seed " << seed;
    }
  }
}

TEST(shard_balance_property, what_is_no_hog_leaves_their_homes_and_does_not_come_back) {
  for (const std::size_t n : {2U, 3U, 8U, 64U}) {
    with_hogs s(n, 1000, 5);
    s.reports[0].hogs = 2;
    // The home is stuck: the others take what is no hog, and nothing else.
    s.reports[0].poll_began = 1000ms;
    balance_decision d = s.balancers[1].decide(s.reports, 1050ms);
    EXPECT_EQ(d.what, kind::take);
    EXPECT_EQ(d.shard, 0U);
    EXPECT_FALSE(d.hogs);
    EXPECT_EQ(d.things, n == 2 ? 98U : (98 + n - 2) / (n - 1));
    s.reports[0].movable = 2;
    EXPECT_EQ(s.balancers[1].decide(s.reports, 1051ms).what, kind::stay) << "only hogs are left";
    // Another shard is stuck: the home takes nothing, and no shard gives it anything.
    s.reports[0].poll_began = 0ms;
    s.reports[1].poll_began = 1050ms;
    EXPECT_EQ(s.balancers[0].decide(s.reports, 1100ms).what, kind::stay);
    s.reports[1].poll_began = 0ms;
    s.reports[1].load.cpu_permille = 1000;
    s.reports[1].movable_permille = 1000;
    int given = 0;
    for (ns t = 2000ms; t != 4000ms; t += window) {
      for (shard_report& r : s.reports) {
        r.window_began = t - window;
        r.window_ended = t;
      }
      d = s.balancers[1].decide(s.reports, t);
      if (d.what == kind::stay) continue;
      ++given;
      EXPECT_EQ(d.what, kind::give);
      EXPECT_NE(d.shard, 0U);
      EXPECT_FALSE(d.hogs);
      s.balancers[1].moved(d, 0, 0, t);
    }
    EXPECT_EQ(given != 0, n > 2) << "with two shards, the home is the only other one";
    // What is drained goes wherever it can.
    for (std::size_t i = 1; i != n; ++i) s.reports[i].draining = true;
    d = s.balancers[1].decide(s.reports, 5000ms);
    EXPECT_EQ(d.what, kind::give);
    EXPECT_EQ(d.shard, 0U);
    EXPECT_TRUE(d.hogs);
  }
}

TEST(shard_balance_property,
     hogs_are_not_kept_apart_if_nearly_all_turns_are_long_or_none_was_lately) {
  for (const std::size_t n : {2U, 8U}) {
    for (const std::uint32_t long_turns : {76U, 100U, 0U}) {
      with_hogs s(n, 100, long_turns);
      for (std::size_t i = 0; i != n; ++i) s.reports[i].hogs = static_cast<std::uint32_t>(i) + 3;
      // A session that asks for its home has just had a long turn.
      if (long_turns != 0) {
        EXPECT_EQ(s.round(), 0U) << "each stays where it is";
      }
      s.reports[0].poll_began = 1000ms;
      const balance_decision d = s.balancers[1].decide(s.reports, 1050ms);
      EXPECT_EQ(d.what, kind::take);
      EXPECT_EQ(d.hogs, long_turns != 0) << "of " << long_turns;
    }
    with_hogs s(n, 100, 75);
    for (shard_report& r : s.reports) r.hogs = 2;
    EXPECT_NE(s.round(), 0U);
  }
}

TEST(shard_balance_property, equal_reports_give_equal_decisions) {
  const auto moves_of = [](std::uint64_t seed) {
    shards s(6, seed);
    s.noise = 0.2;
    s.things[4] = equal(80, 9);
    s.run(2s);
    std::vector<std::size_t> all;
    for (const a_move& m : s.moves) all.push_back(m.from * 10 + m.to);
    return all;
  };
  const auto first = moves_of(7);
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, moves_of(7));
}

}  // namespace balance_property
