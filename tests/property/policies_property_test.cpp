// SPDX-License-Identifier: BSL-1.0
//
// The policies on random loads of one CPU: fair shares against an exact fluid model, deadlines against
// an exact schedule, and the bound on the wait under priorities.
#include "deadline_policy.hpp"
#include "fair_policy.hpp"
#include "priority_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace {

using asio_pulse::detail::deadline_policy;
using asio_pulse::detail::fair_group;
using asio_pulse::detail::fair_policy;
using asio_pulse::detail::priority_policy;
using asio_pulse::detail::turn;
using asio_pulse::detail::turn_policy;
using asio_pulse::timing::ticks;

constexpr ticks us = 1000;  // a tick is a nanosecond here
constexpr ticks ms = 1000 * us;
constexpr ticks s = 1000 * ms;
constexpr ticks memory = 100 * ms;

// ---- fair shares

struct group {
  group* parent = nullptr;
  std::unique_ptr<fair_group> state;
  std::vector<group*> below;
  // Leaves only.
  turn work;
  ticks poll = 0;     // CPU time of each operation
  bool wants = true;  // it has operations without end
  // The fluid model.
  bool flows = false;
  double ideal = 0;
};

double now_of(ticks t) { return static_cast<double>(t); }

struct tree {
  std::vector<std::unique_ptr<group>> all;
  std::vector<group*> top;
  std::vector<group*> leaves;

  group& add(group* parent, unsigned weight) {
    group& g = *all.emplace_back(std::make_unique<group>());
    g.parent = parent;
    g.state =
        std::make_unique<fair_group>(parent != nullptr ? parent->state.get() : nullptr, weight);
    (parent != nullptr ? parent->below : top).push_back(&g);
    return g;
  }
  group& leaf(group* parent, unsigned weight, ticks poll) {
    group& g = add(parent, weight);
    g.poll = poll;
    g.work.group = g.state.get();
    leaves.push_back(&g);
    return g;
  }
};

bool wants(const group& g) {
  return g.below.empty() ? g.wants
                         : std::ranges::any_of(g.below, [](group* b) { return wants(*b); });
}

// Gives `amount` of CPU time to those that want it, by weight on each level.
void pour(const std::vector<group*>& groups, double amount) {
  double weights = 0;
  for (const group* g : groups) weights += wants(*g) ? g->state->weight.load() : 0;
  for (group* g : groups) {
    if (!wants(*g)) continue;
    const double part = amount * g->state->weight.load() / weights;
    if (g->below.empty()) {
      g->ideal += part;
    } else {
      pour(g->below, part);
    }
  }
}

double share(const group& g, const tree& t) {
  double result = 1;
  for (const group* at = &g; at != nullptr; at = at->parent) {
    double weights = 0;
    for (const group* b : at->parent != nullptr ? at->parent->below : t.top)
      weights += wants(*b) ? b->state->weight.load() : 0;
    result *= at->state->weight.load() / weights;
  }
  return result;
}

ticks longest(const group& g) {
  ticks result = g.poll;
  for (const group* b : g.below) result = std::max(result, longest(*b));
  return result;
}

// The bound of start-time fair queueing on what a leaf is behind the fluid model: on each level one
// poll of the group, and its part of one poll of each group beside it; of that the leaf's part.
double lag_bound(const group& leaf, const tree& t) {
  double result = 0;
  double part = 1;
  for (const group* at = &leaf; at != nullptr; at = at->parent) {
    double weights = 0;
    double polls = 0;
    for (const group* b : at->parent != nullptr ? at->parent->below : t.top) {
      weights += b->state->weight.load();
      polls += now_of(longest(*b));
    }
    const double share = at->state->weight.load() / weights;
    result += part * (now_of(longest(*at)) + share * polls);
    part *= share;
  }
  return result;
}

// One CPU, which runs what the policy picks. A leaf that wants the CPU always waits, except while its
// operation runs.
struct cpu {
  explicit cpu(tree& its_tree) : t(its_tree) {}

  void begin(group& g) { policy.add(g.work, now); }

  // Returns whose operation ran.
  group& step() {
    const turn_policy::choice c = policy.next(now);
    EXPECT_NE(c.next, nullptr);
    group& g = **std::ranges::find_if(t.leaves, [&](group* l) { return &l->work == c.next; });
    policy.remove(g.work, now);
    now += g.poll * slowdown;
    g.work.cost += g.poll;
    for (fair_group* at = g.work.group; at != nullptr; at = at->parent) at->cost.add(g.poll);
    policy.served(c.what, g.poll);
    pour(t.top, now_of(g.poll));
    if (g.wants) policy.add(g.work, now);
    return g;
  }
  ~cpu() {
    while (turn* left = policy.next(now).next) policy.remove(*left, now);
  }

  tree& t;
  fair_policy policy{memory};
  ticks now = 1;
  ticks slowdown = 1;  // if the machine gives part of its CPU time to others
};

void grow(tree& t, group* parent, std::size_t depth, std::size_t leaves, std::mt19937_64& random,
          ticks longest_poll = 500 * us) {
  const auto weight = [&] {
    return static_cast<unsigned>(std::pow(100.0, std::uniform_real_distribution<>(0, 1)(random)));
  };
  const auto poll = [&] {
    constexpr auto shortest = static_cast<double>(5 * us);
    return static_cast<ticks>(shortest * std::pow(static_cast<double>(longest_poll) / shortest,
                                                  std::uniform_real_distribution<>(0, 1)(random)));
  };
  if (depth == 1 || leaves == 1) {
    for (std::size_t i = 0; i != leaves; ++i) t.leaf(parent, weight(), poll());
    return;
  }
  const std::size_t parts = 1 + random() % std::min<std::size_t>(leaves, 8);
  for (std::size_t i = 0; i != parts; ++i) {
    grow(t, &t.add(parent, weight()), depth - 1, leaves / parts + (i < leaves % parts), random,
         longest_poll);
  }
}

// How far a leaf is behind the fluid model at the worst, as a part of its bound.
double worst_lag(std::uint64_t seed, std::size_t leaves, std::size_t depth, bool changes) {
  std::mt19937_64 random(seed);
  tree t;
  grow(t, nullptr, depth, leaves, random);
  cpu c(t);
  for (group* g : t.leaves) c.begin(*g);
  std::vector<double> before(t.leaves.size(), 0);
  std::vector<double> bounds;
  const auto bound = [&] {
    bounds.clear();
    for (const group* g : t.leaves) bounds.push_back(lag_bound(*g, t));
  };
  bound();
  double worst = 0;
  ticks next_change = 60 * ms;
  while (c.now < 300 * ms) {
    c.step();
    if (changes && c.now > next_change) {
      next_change += 60 * ms;
      group& changed = *t.all[random() % t.all.size()];
      changed.state->weight = 1 + static_cast<unsigned>(random() % 100);
      c.policy.weight_changed(*changed.state);
      bound();
      // What a group is behind was measured by the old weights.
      for (std::size_t i = 0; i != t.leaves.size(); ++i)
        before[i] = t.leaves[i]->ideal - now_of(t.leaves[i]->work.cost);
    }
    for (std::size_t i = 0; i != t.leaves.size(); ++i) {
      const group& g = *t.leaves[i];
      const double lag = g.ideal - now_of(g.work.cost) - before[i];
      worst = std::max(worst, lag / bounds[i]);
    }
  }
  return worst;
}

TEST(fair_policy, is_behind_the_fluid_model_by_no_more_than_stated) {
  double worst = 0;
  for (const std::size_t depth : {1U, 2U, 3U, 4U}) {
    for (const std::size_t leaves : {2U, 5U, 16U, 64U}) {
      for (std::uint64_t seed = 1; seed <= 4; ++seed)
        worst = std::max(worst, worst_lag(seed * 97 + leaves, leaves, depth, false));
    }
  }
  std::printf("worst lag: %.2f of the bound\n", worst);
  EXPECT_LE(worst, 1);
}

TEST(fair_policy, follows_changes_of_weights) {
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed)
    worst = std::max(worst, worst_lag(seed, 12, 1 + seed % 4, true));
  std::printf("worst lag with changes: %.2f of the bound\n", worst);
  EXPECT_LE(worst, 1.5);  // more than 1: a change leaves what was ahead or behind then
}

// A group gets its first group below while its own tasks wait: from then on these are one more group.
TEST(fair_policy, a_group_below_may_come_while_the_tasks_of_its_parent_wait) {
  tree t;
  group& parent = t.leaf(nullptr, 100, 20 * us);
  t.leaf(nullptr, 100, 20 * us);
  cpu c(t);
  for (group* g : t.leaves) c.begin(*g);
  while (c.now < 100 * ms) c.step();
  group& below = t.leaf(&parent, 300, 20 * us);
  const ticks before = parent.work.cost;
  c.begin(below);
  while (c.now < 500 * ms) c.step();
  const double own = now_of(parent.work.cost - before);
  EXPECT_NEAR(own + now_of(below.work.cost), 200.0 * ms, 2.0 * ms) << "half of the CPU";
  EXPECT_NEAR(now_of(below.work.cost) / own, 3, 0.1);
}

// The shares in each window of a second that begins at a multiple of 100 ms.
TEST(fair_policy, shares_of_saturated_groups_are_within_5_percent_over_any_second) {
  for (const std::size_t depth : {1U, 2U, 4U}) {
    for (const std::size_t leaves : {2U, 8U, 64U}) {
      std::mt19937_64 random(depth * 100 + leaves);
      tree t;
      constexpr ticks poll = 50 * us;
      grow(t, nullptr, depth, leaves, random, poll);
      cpu c(t);
      for (group* g : t.leaves) c.begin(*g);
      std::vector<std::vector<ticks>> marks;
      while (c.now < 4 * s) {
        c.step();
        if (c.now < marks.size() * 100 * ms) continue;
        marks.emplace_back();
        for (const group* g : t.leaves) marks.back().push_back(g->work.cost);
      }
      for (std::size_t from = 0; from + 10 < marks.size(); ++from) {
        for (std::size_t i = 0; i != t.leaves.size(); ++i) {
          const double want = share(*t.leaves[i], t) * now_of(s);
          const double got = now_of(marks[from + 10][i] - marks[from][i]);
          // A group of a small weight gets only some polls in a second.
          const double polls = want < 20.0 * ms ? 2 * lag_bound(*t.leaves[i], t) : 0;
          EXPECT_NEAR(got, want, 0.05 * want + polls)
              << leaves << " groups, " << depth << " levels";
        }
      }
    }
  }
}

TEST(fair_policy, gives_equal_parts_to_long_and_short_handlers) {
  tree t;
  for (int i = 0; i != 8; ++i) t.leaf(nullptr, 100, i % 2 == 0 ? 5 * us : 500 * us);
  cpu c(t);
  for (group* g : t.leaves) c.begin(*g);
  while (c.now < s) c.step();
  double sum = 0;
  double squares = 0;
  for (const group* g : t.leaves) {
    sum += now_of(g->work.cost);
    squares += now_of(g->work.cost) * now_of(g->work.cost);
  }
  const double jain = sum * sum / (8 * squares);
  std::printf("Jain's index: %.5f\n", jain);
  EXPECT_GE(jain, 0.99);
}

// A poll that is longer than what is remembered is no pause, neither for the group nor for the task.
TEST(fair_policy, polls_longer_than_the_memory_are_charged) {
  for (const auto& [one_group, slowdown] :
       {std::pair{false, 1U}, {true, 1U}, {false, 7U}, {true, 7U}}) {
    tree t;
    group& patient = t.leaf(nullptr, 100, ms);
    group& hog = t.leaf(nullptr, 100, 3 * memory / 2);
    if (one_group) hog.work.group = patient.state.get();
    cpu c(t);
    c.slowdown = slowdown;
    for (group* g : t.leaves) c.begin(*g);
    while (c.now < slowdown * 30 * s) c.step();
    EXPECT_NEAR(now_of(patient.work.cost), now_of(hog.work.cost), 1.5 * now_of(hog.poll));
  }
}

// What a task has used among the tasks of one group is no debt among those of another.
TEST(fair_policy, a_task_that_moves_to_a_new_group_is_served_there) {
  tree t;
  group& old = t.leaf(nullptr, 100, ms);
  group& beside = t.leaf(nullptr, 100, ms);
  group& fresh = t.leaf(nullptr, 100, ms);
  beside.work.group = old.state.get();
  cpu c(t);
  c.begin(old);
  c.begin(beside);
  while (c.now < 10 * s) c.step();
  c.policy.remove(old.work, c.now);
  old.work.group = fresh.state.get();
  c.begin(old);
  c.begin(fresh);
  const ticks moved = old.work.cost;
  while (c.now < 11 * s) c.step();
  EXPECT_NEAR(now_of(old.work.cost - moved), now_of(fresh.work.cost), 3.0 * ms);
}

// A task that is taken out and put back without having been served, as when it joins its group again,
// keeps its place.
TEST(fair_policy, a_task_that_joins_again_and_again_gets_no_more_than_its_share) {
  tree t;
  group& one = t.leaf(nullptr, 100, ms);
  group& other = t.leaf(nullptr, 100, ms);
  other.work.group = one.state.get();
  cpu c(t);
  for (group* g : t.leaves) c.begin(*g);
  while (c.now < s) {
    c.step();
    c.policy.remove(one.work, c.now);
    c.policy.add(one.work, c.now);
  }
  EXPECT_NEAR(now_of(one.work.cost), now_of(other.work.cost), 3.0 * ms);
}

// Groups come and go at random. A group that comes back is not served for the time when it did not
// want the CPU, and the others share what it leaves.
TEST(fair_policy, a_pause_is_neither_a_credit_nor_a_debt) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    std::mt19937_64 random(seed);
    tree t;
    for (int i = 0; i != 6; ++i) t.leaf(nullptr, 100, (1 + random() % 50) * 10 * us);
    cpu c(t);
    for (group* g : t.leaves) c.begin(*g);
    // Measured while the set of those that want the CPU does not change.
    for (int phase = 0; phase != 40; ++phase) {
      std::vector<ticks> before;
      for (group* g : t.leaves) before.push_back(g->work.cost);
      const ticks began = c.now;
      while (c.now < began + 20 * ms) c.step();
      ticks longest = 0;
      for (const group* g : t.leaves) longest = std::max(longest, g->poll);
      for (std::size_t i = 0; i != t.leaves.size(); ++i) {
        const group& g = *t.leaves[i];
        if (!g.wants) continue;
        const double got = now_of(g.work.cost - before[i]);
        EXPECT_NEAR(got, share(g, t) * now_of(c.now - began), 3 * now_of(longest));
      }
      group& g = *t.leaves[random() % 5];  // the last one always wants the CPU
      g.wants = !g.wants;
      if (g.wants) {
        c.begin(g);
      } else {
        c.policy.remove(g.work, c.now);
      }
    }
  }
}

TEST(fair_policy, tasks_in_no_group_and_tasks_beside_groups_count_as_a_group_of_weight_100) {
  tree t;
  group& tenant = t.add(nullptr, 300);
  t.leaf(&tenant, 100, 50 * us);  // a user
  t.leaf(&tenant, 100, 20 * us);  // the tenant's own task, moved below
  t.leaf(nullptr, 100, 30 * us);  // moved to no group below
  group& own = *t.leaves[1];
  group& none = *t.leaves[2];
  own.work.group = tenant.state.get();
  none.work.group = nullptr;
  fair_policy policy{memory};
  ticks now = 1;
  for (group* g : t.leaves) policy.add(g->work, now);
  while (now < s) {
    const turn_policy::choice c = policy.next(now);
    group& g = **std::ranges::find_if(t.leaves, [&](group* l) { return &l->work == c.next; });
    policy.remove(g.work, now);
    now += g.poll;
    g.work.cost += g.poll;
    if (&g == t.leaves[0]) g.state->cost.add(g.poll);
    if (&g != &none) tenant.state->cost.add(g.poll);
    policy.served(c.what, g.poll);
    policy.add(g.work, now);
  }
  EXPECT_NEAR(now_of(t.leaves[0]->work.cost), 0.375 * now_of(s), now_of(ms));
  EXPECT_NEAR(now_of(own.work.cost), 0.375 * now_of(s), now_of(ms));
  EXPECT_NEAR(now_of(none.work.cost), 0.25 * now_of(s), now_of(ms));
  for (group* g : t.leaves) policy.remove(g->work, now);
}

TEST(fair_policy, ten_thousand_groups) {
  tree t;
  for (int i = 0; i != 10'000; ++i) t.leaf(nullptr, 1 + static_cast<unsigned>(i % 100), 10 * us);
  fair_policy policy{memory};
  ticks now = 1;
  for (group* g : t.leaves) policy.add(g->work, now);
  std::set<turn*> served;
  for (int i = 0; i != 10'000; ++i) {
    turn* const next = policy.next(now).next;
    ASSERT_NE(next, nullptr);
    policy.remove(*next, now);
    now += 10 * us;
    served.insert(next);
  }
  EXPECT_EQ(served.size(), 10'000U);
  EXPECT_EQ(policy.next(now).next, nullptr);
}

// ---- all policies: each task that waits is served once, and next() finds one while any waits

void keeps_what_waits(turn_policy& policy, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  tree t;
  for (int i = 0; i != 5; ++i) {
    group& g = t.add(nullptr, 1 + static_cast<unsigned>(random() % 100));
    for (int j = 0; j != 3; ++j) t.add(&g, 1 + static_cast<unsigned>(random() % 100));
  }
  std::vector<turn> turns(64);
  for (turn& w : turns) {
    const std::size_t pick = random() % (t.all.size() + 1);
    w.group = pick == t.all.size() ? nullptr : t.all[pick]->state.get();
    w.priority = static_cast<unsigned>(random() % priority_policy::classes);
  }
  std::set<turn*> waiting;
  ticks now = 1;
  for (int i = 0; i != 20'000; ++i) {
    turn& w = turns[random() % turns.size()];
    const std::uint64_t what = random() % 8;
    if (what < 4) {
      if (!waiting.insert(&w).second) continue;
      w.deadline = now + random() % (10 * ms);
      policy.add(w, now);
    } else if (what == 4) {
      if (waiting.erase(&w) != 0) policy.remove(w, now);  // its work was taken away
    } else {
      const turn_policy::choice c = policy.next(now);
      EXPECT_EQ(c.next == nullptr, waiting.empty());
      if (c.next == nullptr) continue;
      EXPECT_EQ(waiting.erase(c.next), 1U);
      policy.remove(*c.next, now);
      const ticks cost = random() % (200 * us);
      now += cost;
      c.next->cost += cost;
      policy.served(c.what, cost);
      for (auto& g : t.all) {
        for (const group* at = g.get(); at != nullptr; at = at->parent) {
          if (at->state.get() == c.next->group) at->state->cost.add(cost);
        }
      }
      if (random() % 16 == 0) {
        group& changed = *t.all[random() % t.all.size()];
        changed.state->weight = 1 + static_cast<unsigned>(random() % 100);
        policy.weight_changed(*changed.state);
      }
    }
  }
  while (turn* left = policy.next(now).next) {
    EXPECT_EQ(waiting.erase(left), 1U);
    policy.remove(*left, now);
  }
  EXPECT_TRUE(waiting.empty());
}

TEST(policies, serve_each_task_that_waits_once) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    fair_policy fair{memory};
    keeps_what_waits(fair, seed);
    priority_policy priority{50 * ms};
    keeps_what_waits(priority, seed);
    deadline_policy deadline;
    keeps_what_waits(deadline, seed);
  }
}

// ---- deadlines

struct job {
  ticks arrives;
  ticks cost;
  ticks due;
};

std::vector<job> jobs_at(double load, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<job> jobs;
  double at = 0;
  const auto cost = [&] { return (5 + random() % 300) * us; };
  constexpr double mean = 155.0 * us;
  while (at < now_of(s)) {
    at += std::exponential_distribution<>(load / mean)(random);
    const ticks arrives = static_cast<ticks>(at);
    const ticks c = cost();
    // Mixed: half of the jobs are due soon, the others have time.
    jobs.push_back(
        {arrives, c, arrives + c + (random() % 2 == 0 ? 500 * us + random() % (2 * ms) : 50 * ms)});
  }
  return jobs;
}

// The exact schedule: `before(a, b)` says whose turn comes first. Returns when each job ends.
template <class Before>
std::vector<ticks> exact(const std::vector<job>& jobs, Before before) {
  std::vector<ticks> end(jobs.size(), 0);
  ticks now = 0;
  for (std::size_t done = 0; done != jobs.size(); ++done) {
    std::size_t best = jobs.size();
    ticks first = ~ticks{0};
    for (std::size_t i = 0; i != jobs.size(); ++i) {
      if (end[i] != 0) continue;
      first = std::min(first, jobs[i].arrives);
      if (jobs[i].arrives > now) break;
      if (best == jobs.size() || before(jobs[i], jobs[best])) best = i;
    }
    if (best == jobs.size()) {
      now = first;
      --done;
      continue;
    }
    now += jobs[best].cost;
    end[best] = now;
  }
  return end;
}

std::size_t missed(const std::vector<job>& jobs, const std::vector<ticks>& end) {
  std::size_t n = 0;
  for (std::size_t i = 0; i != jobs.size(); ++i) n += end[i] > jobs[i].due;
  return n;
}

TEST(deadline_policy, misses_no_deadline_that_the_exact_schedule_meets) {
  std::size_t misses = 0;
  std::size_t of_fifo = 0;
  std::size_t all = 0;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const std::vector<job> jobs = jobs_at(0.9, seed);
    const auto reference = exact(jobs, [](const job& a, const job& b) { return a.due < b.due; });
    const auto fifo = exact(jobs, [](const job&, const job&) { return false; });
    deadline_policy policy;
    std::vector<turn> turns(jobs.size());
    std::vector<ticks> end(jobs.size(), 0);
    ticks now = 0;
    for (std::size_t arrived = 0, done = 0; done != jobs.size();) {
      while (arrived != jobs.size() && jobs[arrived].arrives <= now) {
        turns[arrived].deadline = jobs[arrived].due;
        policy.add(turns[arrived++], now);
      }
      turn* const next = policy.next(now).next;
      if (next == nullptr) {
        now = jobs[arrived].arrives;
        continue;
      }
      policy.remove(*next, now);
      const auto i = static_cast<std::size_t>(next - turns.data());
      now += jobs[i].cost;
      end[i] = now;
      ++done;
    }
    for (std::size_t i = 0; i != jobs.size(); ++i) {
      if (reference[i] <= jobs[i].due) {
        EXPECT_LE(end[i], jobs[i].due);
      }
    }
    misses += missed(jobs, end);
    of_fifo += missed(jobs, fifo);
    all += jobs.size();
  }
  std::printf("at 90%% load: %zu of %zu deadlines missed, by FIFO %zu\n", misses, all, of_fifo);
  EXPECT_LT(misses * 10, of_fifo);
}

// ---- priorities

struct ranked {
  turn work;
  ticks poll = 0;
  ticks pause = 0;  // it comes back this long after it was served
  ticks comes = 0;
  bool waits = false;
  ticks limit = 0;  // by when it has to be served
  ticks got = 0;
};

struct waits {
  ticks worst = 0;          // of all tasks
  double of_bound = 0;      // the worst part of its bound
  ticks worst_urgent = 0;   // of those of the most urgent class
  double urgent_share = 0;  // of the CPU time
};

waits run_ranked(std::vector<ranked>& tasks, ticks aging) {
  priority_policy policy(aging);
  ticks longest = 0;
  for (const ranked& r : tasks) longest = std::max(longest, r.poll);
  waits result;
  ticks now = 1;
  std::size_t waiting = 0;
  while (now < 5 * s) {
    ticks next_to_come = ~ticks{0};
    for (ranked& r : tasks) {
      if (!r.waits && r.comes <= now) {
        r.waits = true;
        // Those that have waited for longer are all that wait now.
        r.limit = aging + 8 * (waiting++ + 1) * longest;
        policy.add(r.work, now);
      } else if (!r.waits) {
        next_to_come = std::min(next_to_come, r.comes);
      }
    }
    const turn_policy::choice c = policy.next(now);
    if (c.next == nullptr) {
      now = next_to_come;
      continue;
    }
    ranked& r = *std::ranges::find_if(tasks, [&](ranked& x) { return &x.work == c.next; });
    const ticks waited = now - r.work.since;
    result.worst = std::max(result.worst, waited);
    result.of_bound = std::max(result.of_bound, now_of(waited) / now_of(r.limit));
    if (r.work.priority == 7) result.worst_urgent = std::max(result.worst_urgent, waited);
    policy.remove(r.work, now);
    --waiting;
    r.waits = false;
    now += r.poll;
    r.got += r.poll;
    r.comes = now + r.pause;
    policy.served(c.what, r.poll);
  }
  for (ranked& r : tasks) {
    if (r.waits) policy.remove(r.work, now);
    if (r.work.priority == 7) result.urgent_share += now_of(r.got) / now_of(now);
  }
  return result;
}

TEST(priority_policy, no_task_waits_longer_than_stated) {
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<ranked> tasks(3 + random() % 60);
    for (ranked& r : tasks) {
      r.work.priority = static_cast<unsigned>(random() % 8);
      r.poll = (1 + random() % 50) * 10 * us;
      r.pause = random() % 3 == 0 ? 0 : random() % (20 * ms);
    }
    const waits w = run_ranked(tasks, 50 * ms);
    worst = std::max(worst, w.of_bound);
  }
  std::printf("longest wait: %.2f of the bound\n", worst);
  EXPECT_LE(worst, 1);
  EXPECT_GT(worst, 0.1);  // the bound says something
}

// A flood of the lowest class neither starves nor delays the most urgent one.
TEST(priority_policy, urgent_tasks_do_not_wait_for_a_flood) {
  std::vector<ranked> tasks(1001);
  for (ranked& r : tasks) {
    r.work.priority = 0;
    r.poll = 100 * us;
  }
  tasks[0].work.priority = 7;
  tasks[0].pause = 2 * ms;
  const waits w = run_ranked(tasks, 50 * ms);
  EXPECT_LE(w.worst_urgent, 200 * us);
}

// The urgent class gets seven eighths while others are aged, and those get the rest.
TEST(priority_policy, aging_costs_an_eighth_of_the_cpu) {
  std::vector<ranked> tasks(1010);
  for (std::size_t i = 0; i != tasks.size(); ++i) {
    tasks[i].work.priority = i < 10 ? 7 : 0;
    tasks[i].poll = i < 10 ? 20 * us : 200 * us;
  }
  const waits w = run_ranked(tasks, 50 * ms);
  EXPECT_NEAR(w.urgent_share, 0.875, 0.02);
}

}  // namespace
