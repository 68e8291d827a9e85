// SPDX-License-Identifier: BSL-1.0
//
// Random overloads of a server with one queue, whose groups of clients do not slow down when they are
// refused. What the groups get is compared with the exact weighted max-min fair shares.
#include "group_shares.hpp"
#include "overload.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

namespace {

using asio_pulse::detail::group_share;
using asio_pulse::detail::group_shares;
using asio_pulse::detail::overload;
using asio_pulse::timing::ticks;

constexpr ticks us = 1000;  // a tick is a nanosecond here
constexpr ticks ms = 1000 * us;
constexpr ticks s = 1000 * ms;
constexpr ticks cost_of_a_refusal = 2 * us;

struct client {
  double weight;
  double offered;  ///< CPU time of its requests, as a part of the CPU
  ticks cost;      ///< of a request
  // Measured after the beginning.
  double asked = 0;  ///< CPU time of all its requests, as a part of the CPU
  double got = 0;    ///< of those that were admitted
  std::uint64_t refused = 0;
};

/// What each client gets of a CPU: its offer, or the level at which the offers of the others leave
/// nothing.
std::vector<double> max_min(const std::vector<client>& clients, double capacity) {
  std::vector<double> fair(clients.size(), -1);
  double weights = 0;
  for (const client& c : clients) weights += c.weight;
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t i = 0; i != clients.size(); ++i) {
      const client& c = clients[i];
      if (fair[i] >= 0 || c.asked > capacity * c.weight / weights) continue;
      fair[i] = c.asked;
      capacity -= c.asked;
      weights -= c.weight;
      changed = true;
    }
  }
  for (std::size_t i = 0; i != clients.size(); ++i) {
    if (fair[i] < 0) fair[i] = capacity * clients[i].weight / weights;
  }
  return fair;
}

struct result {
  double used = 0;           ///< part of the CPU that served requests
  double refusing = 0;       ///< and that refused others
  std::vector<ticks> waits;  ///< of admitted requests
};

/// A server that runs one queue in its order, and asks at the beginning of each request.
result serve(std::vector<client>& clients, ticks length, std::uint64_t seed,
             overload::limits limits = {.target = 5 * ms, .interval = 100 * ms}) {
  std::mt19937_64 random(seed);
  constexpr ticks beginning = s;
  const std::size_t n = clients.size();
  std::vector<group_share> state(n);
  const auto window = static_cast<double>(limits.interval);
  group_shares shares(window);
  overload control(limits);
  std::vector<double> next(n);
  std::vector<std::exponential_distribution<double>> gap;
  for (std::size_t i = 0; i != n; ++i) {
    state[i].weight = clients[i].weight;
    gap.emplace_back(clients[i].offered / static_cast<double>(clients[i].cost));
    next[i] = gap[i](random);
  }
  struct entry {
    std::size_t client;
    ticks ready;
  };
  const std::size_t probe = n;
  std::deque<entry> queue;
  result r;
  ticks now = 0;
  const auto arrive = [&](ticks until) {
    for (;;) {
      const auto first =
          static_cast<std::size_t>(std::min_element(next.begin(), next.end()) - next.begin());
      if (next[first] > static_cast<double>(until)) return;
      queue.push_back({first, static_cast<ticks>(next[first])});
      next[first] += gap[first](random);
    }
  };
  while (now < length) {
    arrive(now);
    if (queue.empty()) {
      now = static_cast<ticks>(*std::min_element(next.begin(), next.end())) + 1;
      continue;
    }
    const entry e = queue.front();
    queue.pop_front();
    if (e.client == probe) {
      control.waited(now - e.ready, now);
      continue;
    }
    client& c = clients[e.client];
    const double position = shares.position(state[e.client]);
    const bool admitted = control.admits(position, now);
    if (control.measure(now)) queue.push_back({probe, now});
    const bool counts = now >= beginning;
    if (!admitted) shares.refused(state[e.client]);
    const ticks cost = admitted ? c.cost : cost_of_a_refusal;
    now += cost;
    if (admitted) shares.used(state[e.client], cost);
    if (!counts) continue;
    const auto part = [&](ticks t) {
      return static_cast<double>(t) / static_cast<double>(length - beginning);
    };
    c.asked += part(c.cost);
    if (admitted) {
      c.got += part(cost);
      r.used += part(cost);
      r.waits.push_back(now - cost - e.ready);
    } else {
      ++c.refused;
      r.refusing += part(cost);
    }
  }
  std::sort(r.waits.begin(), r.waits.end());
  return r;
}

ticks percentile(const result& r, double p) {
  return r.waits.empty()
             ? 0
             : r.waits[static_cast<std::size_t>(p * static_cast<double>(r.waits.size() - 1))];
}

double total_offered(const std::vector<client>& clients) {
  return std::accumulate(clients.begin(), clients.end(), 0.0,
                         [](double sum, const client& c) { return sum + c.offered; });
}

std::vector<client> random_clients(std::mt19937_64& random, double load) {
  const auto pick = [&](double low, double high) {
    return std::exp(std::uniform_real_distribution<double>(std::log(low), std::log(high))(random));
  };
  std::vector<client> clients(std::uniform_int_distribution<std::size_t>(1, 16)(random));
  for (client& c : clients) {
    c = {.weight = pick(1, 100),
         .offered = pick(0.01, 1),
         .cost = static_cast<ticks>(pick(20, 500)) * us};
  }
  const double sum = total_offered(clients);
  for (client& c : clients) c.offered *= load / sum;
  return clients;
}

class group_property : public testing::TestWithParam<std::uint64_t> {};

TEST_P(group_property, an_overloaded_cpu_is_shared_by_weight) {
  std::mt19937_64 random(GetParam());
  const double load = std::uniform_real_distribution<double>(1.2, 4)(random);
  std::vector<client> clients = random_clients(random, load);
  const result r = serve(clients, 11 * s, GetParam());
  EXPECT_GE(r.used + r.refusing, 0.97) << "of the CPU is used";
  EXPECT_LE(percentile(r, 0.99), 10 * ms) << "twice the target";
  const std::vector<double> fair = max_min(clients, 1 - r.refusing);
  for (std::size_t i = 0; i != clients.size(); ++i) {
    const client& c = clients[i];
    // What a window holds of a small share is not much more than a request.
    const bool small = fair[i] < 0.01;
    EXPECT_GE(c.got, fair[i] * (small ? 0.7 : 0.9)) << "weight " << c.weight;
    EXPECT_LE(c.got, fair[i] * (small ? 1.2 : 1.1)) << "weight " << c.weight;
  }
}

TEST_P(group_property, nothing_is_refused_without_an_overload) {
  std::mt19937_64 random(GetParam());
  std::vector<client> clients = random_clients(random, 0.8);
  (void)serve(clients, 5 * s, GetParam());
  for (const client& c : clients) EXPECT_EQ(c.refused, 0U);
}

TEST_P(group_property, a_flood_of_one_group_does_not_hurt_another) {
  std::vector<client> clients{{.weight = 100, .offered = 0.3, .cost = 100 * us},
                              {.weight = 100, .offered = 5, .cost = 100 * us}};
  const result r = serve(clients, 11 * s, GetParam(), {.target = ms, .interval = 20 * ms});
  EXPECT_GE(clients[0].got, 0.98 * clients[0].asked);
  EXPECT_GE(r.used, 0.9) << "of which the flood gets what is left";
  EXPECT_LE(percentile(r, 0.99), 2 * ms);
}

INSTANTIATE_TEST_SUITE_P(seeds, group_property, testing::Range<std::uint64_t>(0, 12));

TEST(overload_property, one_group_alone_gets_the_whole_cpu) {
  std::vector<client> clients{{.weight = 1, .offered = 3, .cost = 100 * us}};
  const result r = serve(clients, 11 * s, 1);
  EXPECT_GE(r.used + r.refusing, 0.99);
  EXPECT_LE(percentile(r, 0.99), 10 * ms);
}

// ---- the parts by themselves

TEST(overload_rules, a_burst_is_no_overload) {
  overload control({.target = 5 * ms, .interval = 100 * ms});
  control.waited(50 * ms, s);
  EXPECT_TRUE(control.admits(8, s));
  EXPECT_TRUE(control.admits(8, s + 99 * ms));
  control.waited(ms, s + 99 * ms);
  EXPECT_TRUE(control.admits(8, s + 99 * ms));
  control.waited(50 * ms, s + 101 * ms);
  EXPECT_TRUE(control.admits(8, s + 150 * ms)) << "counts from the beginning again";
  EXPECT_FALSE(control.overloaded());
}

// Between two bursts nobody may have asked, so that nobody saw the queue empty.
TEST(overload_rules, two_bursts_far_apart_are_no_overload) {
  overload control({.target = 5 * ms, .interval = 100 * ms});
  control.waited(50 * ms, s);
  EXPECT_TRUE(control.admits(8, s));
  control.waited(50 * ms, 10 * s);
  EXPECT_TRUE(control.admits(8, 10 * s));
  EXPECT_TRUE(control.admits(8, 10 * s + 99 * ms));
  control.waited(50 * ms, 10 * s + 100 * ms);
  EXPECT_FALSE(control.admits(8, 10 * s + 100 * ms)) << "this one lasts";
  control.waited(50 * ms, 60 * s);
  EXPECT_TRUE(control.admits(8, 60 * s)) << "the overload was over long ago";
}

// Requests that take longer than the interval: what waits meanwhile shows that the overload lasts.
TEST(overload_rules, rare_questions_do_not_hide_an_overload) {
  overload control({.target = 5 * ms, .interval = 100 * ms});
  control.waited(300 * ms, s);
  EXPECT_TRUE(control.admits(8, s));
  control.waited(300 * ms, s + 300 * ms);
  EXPECT_FALSE(control.admits(8, s + 300 * ms));
  control.waited(300 * ms, s + 600 * ms);
  EXPECT_FALSE(control.admits(8, s + 600 * ms));
}

// An overload at `now`, with a delay of `delay`.
overload overloaded(ticks delay, ticks now) {
  overload control({.target = 5 * ms, .interval = 100 * ms});
  control.waited(delay, now - 100 * ms);
  (void)control.admits(0, now - 100 * ms);
  control.waited(delay, now);
  return control;
}

TEST(overload_rules, who_has_had_more_is_refused_at_a_shorter_delay) {
  EXPECT_FALSE(overloaded(21 * ms, s).admits(-1, s))
      << "above four times the target no request is admitted";
  EXPECT_FALSE(overloaded(9 * ms, s).admits(0, s));
  EXPECT_TRUE(overloaded(19 * ms, s).admits(-1, s));
  overload control = overloaded(9 * ms, s);
  EXPECT_FALSE(control.admits(0.5, s));
  control.waited(4 * ms, s + ms);
  EXPECT_TRUE(control.admits(0, s + ms));
  EXPECT_FALSE(control.admits(0.5, s + ms));
  control.waited(50 * us, s + 2 * ms);
  EXPECT_TRUE(control.admits(group_shares::farthest, s + 2 * ms)) << "the CPU is not left idle";
}

TEST(overload_rules, under_a_policy_a_group_is_refused_by_its_own_wait) {
  overload control({.target = 5 * ms, .interval = 100 * ms});
  const overload::waits of_flood{.longest = 80 * ms, .own = 80 * ms};
  const overload::waits of_small{.longest = 80 * ms, .own = ms};
  EXPECT_TRUE(control.admits(1, of_flood, s)) << "may be a burst";
  EXPECT_TRUE(control.admits(-1, of_small, s + 50 * ms));
  EXPECT_FALSE(control.admits(1, of_flood, s + 100 * ms));
  EXPECT_TRUE(control.admits(-1, of_small, s + 100 * ms));
  EXPECT_TRUE(control.admits(0, of_small, s + 100 * ms));
  EXPECT_FALSE(control.admits(0, {.longest = 80 * ms, .own = 6 * ms}, s + 101 * ms));
}

TEST(overload_rules, it_is_over_when_nothing_was_refused_for_an_interval) {
  overload control = overloaded(9 * ms, s);
  EXPECT_FALSE(control.admits(0, s));
  control.waited(4 * ms, s + 90 * ms);
  EXPECT_FALSE(control.admits(1, s + 90 * ms));
  control.waited(4 * ms, s + 189 * ms);
  EXPECT_TRUE(control.admits(0, s + 189 * ms));
  EXPECT_TRUE(control.overloaded());
  EXPECT_TRUE(control.admits(1, s + 190 * ms));
  EXPECT_FALSE(control.overloaded());
}

TEST(overload_rules, an_old_measurement_does_not_count) {
  overload control = overloaded(9 * ms, s);
  EXPECT_FALSE(control.admits(0, s));
  EXPECT_TRUE(control.admits(0, s + 101 * ms));
}

TEST(overload_rules, one_delay_is_measured_at_a_time_and_counts_while_it_lasts) {
  overload control({.target = 5 * ms, .interval = 100 * ms});
  EXPECT_TRUE(control.measure(s));
  EXPECT_FALSE(control.measure(s + ms));
  EXPECT_EQ(control.delay(s + 7 * ms), 7 * ms);
  control.waited(8 * ms, s + 8 * ms);
  EXPECT_EQ(control.delay(s + 9 * ms), 8 * ms);
  EXPECT_TRUE(control.measure(s + 9 * ms));
  control.not_measured();
  EXPECT_TRUE(control.measure(s + 9 * ms));
}

struct rates {
  group_share heavy, light;
  double window = 100 * ms;
  group_shares all{window};
  rates() { heavy.weight = 3; }
  ~rates() {
    all.leave(heavy);
    all.leave(light);
  }
  // `a` and `b` use this much of a second, in steps of a millisecond.
  void use(double a, double b) {
    for (int i = 0; i != 1000; ++i) {
      if (a > 0) all.used(heavy, static_cast<ticks>(a * ms));
      if (b > 0) all.used(light, static_cast<ticks>(b * ms));
    }
  }
};

TEST(group_shares, who_uses_more_than_its_share_is_ahead) {
  rates r;
  r.use(0.5, 0.5);
  EXPECT_GE(r.all.position(r.light), 0);
  EXPECT_LT(r.all.position(r.heavy), -0.9);
  rates other;
  other.use(0.9, 0.1);
  EXPECT_GE(other.all.position(other.heavy), 0);
  EXPECT_LT(other.all.position(other.light), -0.9);
  EXPECT_FALSE(other.all.alone(other.heavy)) << "there is another";
  other.use(1, 0);
  EXPECT_TRUE(other.all.alone(other.heavy));
}

TEST(group_shares, a_pause_is_forgotten_and_so_is_an_excess) {
  rates r;
  r.use(0.1, 0.9);
  EXPECT_GE(r.all.position(r.light), 0);
  r.use(1, 0);
  EXPECT_LT(r.all.position(r.light), 0);
  for (int i = 0; i != 20; ++i) r.use(0.75, 0.25);
  EXPECT_LE(r.all.position(r.light), group_shares::farthest);
}

TEST(group_shares, a_new_weight_counts_from_then_on) {
  rates r;
  r.use(0.75, 0.25);
  r.all.set_weight(r.light, 27);
  r.use(0.75, 0.25);
  EXPECT_GE(r.all.position(r.heavy), 0);
  EXPECT_LT(r.all.position(r.light), 0);
}

TEST(group_shares, a_satisfied_group_that_is_refused_contends) {
  rates r;
  r.use(0.9, 0.1);
  EXPECT_FALSE(r.light.contends);
  r.all.refused(r.light);
  EXPECT_TRUE(r.light.contends);
  EXPECT_LT(r.all.position(r.light), 0);
  EXPECT_GT(r.all.position(r.heavy), 0);
}

TEST(group_shares, there_is_always_one_that_is_not_behind) {
  std::mt19937_64 random(1);
  std::vector<group_share> groups(50);
  const double window = 100 * ms;
  group_shares all(window);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  for (group_share& g : groups) g.weight = static_cast<double>(1 + below(100));
  for (int i = 0; i != 200'000; ++i) {
    group_share& g = groups[below(1 + below(groups.size()))];
    switch (below(20)) {
      case 0:
        all.leave(g);
        break;
      case 1:
        all.refused(g);
        break;
      case 2:
        all.set_weight(g, static_cast<double>(1 + below(100)));
        break;
      default:
        all.used(g, (1 + below(1000)) * us);
    }
    double most = -1;
    for (const group_share& each : groups) most = std::max(most, all.position(each));
    ASSERT_GE(most, 0) << "after " << i;
  }
  for (group_share& g : groups) all.leave(g);
}

}  // namespace
