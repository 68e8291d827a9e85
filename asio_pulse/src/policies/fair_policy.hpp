// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "turn_policy.hpp"

#include <boost/intrusive/set.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>

/// \file
/// Shares of the CPU by weight, for groups in groups.
///
/// Each group has a tag, its virtual runtime: the CPU time that it has used, divided by its weight. Of
/// the groups beside each other that wait, the one with the least tag is next, and in it the one below
/// it with the least tag, down to a task. A group that comes back after it did not wait starts at the
/// virtual time of its level, the least tag there: a pause is neither a credit nor, after `memory`, a
/// debt.
///
/// The tasks of a group that has groups below it count as one more group of weight 100 beside those.
/// So do, at the top, the tasks in no group. Tasks of one group have tags, too, with equal weights.
///
/// A group that always waits is behind its exact share (GPS) on each level by no more than its longest
/// poll, and its part of the longest poll of each group beside it
/// (tests/property/policies_property_test.cpp).
///
/// \par Source  Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): the tags, and the
///              hierarchy. Linux's CFS: the least virtual runtime is next. Costs are charged after the
///              fact, because nobody knows them before.

namespace asio_pulse::detail {

/// A group's place among the groups beside it, and the tasks and groups in it. Guarded as the policy
/// is, except for the two atomics.
struct fair_group : key_hook {
  using groups = boost::intrusive::multiset<fair_group, boost::intrusive::base_hook<key_hook>,
                                            boost::intrusive::constant_time_size<false>>;
  struct by_tag {
    bool operator()(const turn& a, const turn& b) const noexcept { return a.tag < b.tag; }
  };
  using tasks = boost::intrusive::multiset<turn, boost::intrusive::base_hook<key_hook>,
                                           boost::intrusive::compare<by_tag>,
                                           boost::intrusive::constant_time_size<false>>;

  /// `its_cost` is the CPU time used in the group and in those below it, and never shrinks. It is read
  /// relaxed, as the weight is. All three must outlive this object; `above` is null at the top.
  fair_group(fair_group* above, const std::atomic<std::uint64_t>* its_cost,
             const std::atomic<unsigned>* its_weight) noexcept
      : parent(above), cost(its_cost), weight(its_weight) {}

  [[nodiscard]] bool empty() const noexcept { return below.empty() && own.empty(); }
  friend bool operator<(const fair_group& a, const fair_group& b) noexcept {
    return a.account.tag < b.account.tag;
  }

  /// How much of a cost has been counted.
  struct ledger {
    double tag = 0;
    double weight = 0;  ///< by which `tag` was made; 0 before the first time
    std::uint64_t seen = 0;
    timing::ticks left = 0;  ///< when it last ceased to wait
  };

  fair_group* const parent;
  const std::atomic<std::uint64_t>* const cost;
  const std::atomic<unsigned>* const weight;
  std::uint64_t used_by = 0;  ///< the number of the policy that used it last
  ledger account;
  bool waits = false;
  double now =
      0;         ///< the virtual time of what is in it: the groups below, and its own tasks as one
  groups below;  ///< those that wait
  std::uint64_t below_seen = 0;  ///< what the groups below it were charged
  ledger own_account;            ///< of its own tasks together
  double own_now = 0;            ///< the virtual time among these
  tasks own;                     ///< those that wait
};

class fair_policy final : public turn_policy {
 public:
  /// The weight of tasks that are in no group of the level.
  static constexpr double own_weight = 100;
  /// What the turn of a task in no group is marked with.
  static constexpr mark in_no_group = 1;

  /// What was used longer ago than `memory`, by a group that has not waited since, is forgotten.
  /// `number` is another one than that of any policy before that used the same groups, and not zero.
  explicit fair_policy(timing::ticks memory, std::uint64_t number = 1) noexcept
      : memory_(memory), number_(number) {}

  void add(turn& t, timing::ticks now) noexcept override {
    fair_group* g = t.group != nullptr ? t.group : &root_;
    for (fair_group* at = g; at != &root_ && at->used_by != number_; at = above(*at)) begin(*at);
    if (g->own.empty()) join(g->own_account, own_cost(*g), own_weight, g->now, now);
    const bool fresh = t.used_by != number_ || paused(t.left, now);
    t.tag = std::max(fresh ? 0 : t.tag + static_cast<double>(t.cost - t.seen), g->own_now);
    t.used_by = number_;
    t.seen = t.cost;
    t.since = now;
    g->own.insert(t);
    for (; g != &root_ && !g->waits; g = above(*g)) {
      fair_group& p = *above(*g);
      const bool forgotten = paused(g->account.left, now);
      p.below_seen +=
          join(g->account, g->cost->load(std::memory_order_relaxed), weight_of(*g), p.now, now);
      // The tasks of `p` have not used that, and need not be given it back.
      if (forgotten && &p != &root_) p.own_account.seen = std::min(p.own_account.seen, own_cost(p));
      p.below.insert(*g);
      g->waits = true;
    }
  }

  void remove(turn& t, timing::ticks now) noexcept override {
    fair_group* g = t.group != nullptr ? t.group : &root_;
    g->own.erase(g->own.iterator_to(t));
    t.left = now;
    if (g->own.empty()) g->own_account.left = now;
    for (; g != &root_ && g->empty(); g = above(*g)) {
      above(*g)->below.erase(above(*g)->below.iterator_to(*g));
      g->account.left = now;
      g->waits = false;
    }
  }

  choice next(timing::ticks /*now*/) noexcept override {
    for (fair_group* g = &root_; !g->empty();) {
      fair_group* const least = least_below(*g);
      if (!g->own.empty()) {
        charge(g->own_account, own_cost(*g), own_weight);
        if (least == nullptr || g->own_account.tag <= least->account.tag) {
          g->now = std::max(g->now, g->own_account.tag);
          turn& t = *g->own.begin();
          g->own_now = std::max(g->own_now, t.tag);
          return {&t, g == &root_ ? in_no_group : mark{0}};
        }
      }
      g->now = std::max(g->now, least->account.tag);
      g = least;
    }
    return {};
  }

  void weight_changed(fair_group& g) noexcept override {
    if (!g.waits) return;  // then join() does it
    fair_group& p = *above(g);
    p.below.erase(p.below.iterator_to(g));
    weigh(g.account, weight_of(g), p.now);
    p.below.insert(g);
  }

  void served(mark what, timing::ticks cost) noexcept override {
    if (what == in_no_group) in_no_group_ += cost;
  }

 private:
  [[nodiscard]] bool paused(timing::ticks left, timing::ticks now) const noexcept {
    return left == 0 || now - std::min(left, now) > memory_;
  }
  [[nodiscard]] fair_group* above(const fair_group& g) noexcept {
    return g.parent != nullptr ? g.parent : &root_;
  }
  static double weight_of(const fair_group& g) noexcept {
    return g.weight->load(std::memory_order_relaxed);
  }
  /// What the group's own tasks have used: what those below it have not. It may be too high by what
  /// those have used since they were charged; then the next charges are smaller.
  [[nodiscard]] std::uint64_t own_cost(const fair_group& g) const noexcept {
    if (&g == &root_) return in_no_group_;
    const std::uint64_t all = g.cost->load(std::memory_order_relaxed);
    return all - std::min(all, g.below_seen);
  }

  /// The group has been used by another policy, or by none.
  void begin(fair_group& g) const noexcept {
    g.account = g.own_account = {};
    g.now = g.own_now = 0;
    g.below_seen = 0;
    g.used_by = number_;
  }

  static std::uint64_t charge(fair_group::ledger& l, std::uint64_t cost, double weight) noexcept {
    if (cost <= l.seen) return 0;
    const std::uint64_t used = cost - l.seen;
    l.seen = cost;
    l.tag += static_cast<double>(used) / weight;
    return used;
  }
  /// Changes the weight. The distance between the tag and the virtual time is CPU time divided by the
  /// weight, so it becomes longer or shorter.
  static void weigh(fair_group::ledger& l, double weight, double virtual_time) noexcept {
    if (l.weight != 0) l.tag = virtual_time + (l.tag - virtual_time) * l.weight / weight;
    l.weight = weight;
  }
  /// It waits from now on. Returns what was charged or forgotten.
  std::uint64_t join(fair_group::ledger& l, std::uint64_t cost, double weight, double virtual_time,
                     timing::ticks now) const noexcept {
    if (l.weight != weight) weigh(l, weight, virtual_time);
    const std::uint64_t used = charge(l, cost, weight);
    l.tag = paused(l.left, now) ? virtual_time : std::max(l.tag, virtual_time);
    return used;
  }

  /// The group below `g` that waits and has had least; null if there is none.
  static fair_group* least_below(fair_group& g) noexcept {
    while (!g.below.empty()) {
      fair_group& first = *g.below.begin();
      const std::uint64_t cost = first.cost->load(std::memory_order_relaxed);
      if (cost <= first.account.seen) return &first;
      g.below.erase(g.below.begin());
      g.below_seen += charge(first.account, cost, weight_of(first));
      g.below.insert(first);
    }
    return nullptr;
  }

  const timing::ticks memory_;
  const std::uint64_t number_;
  std::uint64_t in_no_group_ = 0;
  fair_group root_{nullptr, nullptr, nullptr};
};

}  // namespace asio_pulse::detail
