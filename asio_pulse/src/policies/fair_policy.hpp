// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "group_cost.hpp"
#include "group_queue.hpp"
#include "turn_heap.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>

/// \file
/// Shares of the CPU by weight, for groups in groups.
///
/// Each group has a tag, its virtual runtime: the CPU time that it has used, divided by its weight. Of
/// the groups beside each other that wait, the one with the least tag is next, and in it the one below
/// it with the least tag, down to a task. A group that comes back after it did not wait starts at the
/// virtual time of its level, the least tag there: a pause gives no credit, and after `memory` a debt is
/// forgotten.
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
///              fact, because they are not known before.

namespace asio_pulse::detail {

struct fair_below;

/// How much of a cost has been counted.
struct fair_ledger {
  double tag = 0;
  std::uint64_t seen = 0;
  std::uint32_t weight = 0;  ///< by which `tag` was made; 0 before the first time
  /// When it last ceased to wait, in units of 2^16 ticks; 0 before the first time.
  std::uint32_t left = 0;
};

/// A group: what it has used, its place among the groups beside it, and its tasks. Guarded as the policy
/// is, except for what is atomic.
struct fair_group {
  /// A part of the group `above`, or of none, which must outlive this one.
  ///
  /// \par Errors  std::bad_alloc.
  fair_group(fair_group* above, unsigned its_weight);
  ~fair_group();
  fair_group(const fair_group&) = delete;
  fair_group& operator=(const fair_group&) = delete;

  /// Whether it or a group below it has tasks that wait.
  [[nodiscard]] bool waits() const noexcept {
    return queue_place != group_queue<fair_group>::nowhere;
  }

  fair_ledger account;
  /// The CPU time used in the group and in those below it.
  group_cost cost;
  fair_group* const parent;
  std::atomic<unsigned> weight;  ///< relaxed
  std::uint32_t used_by = 0;     ///< the number of the policy that used it last
  std::uint32_t queue_place =
      group_queue<fair_group>::nowhere;  ///< for the queue among its neighbours
  turn_heap<&turn::tag> own;             ///< its own tasks that wait
  double own_now = 0;                    ///< the virtual time among these
  /// What it needs if there are groups below it. Made with the first one. Release publishes it, and
  /// pairs with acquire.
  std::atomic<fair_below*> inner{nullptr};
};

/// The groups below one, beside which its own tasks are one more.
struct fair_below {
  std::uint32_t used_by = 0;  ///< the number of the policy that used it last
  double now = 0;             ///< the virtual time
  group_queue<fair_group> waiting;
  std::uint64_t seen = 0;   ///< what the groups below were charged
  fair_ledger own_account;  ///< of its own tasks together
};

inline fair_group::fair_group(fair_group* above, unsigned its_weight)
    : parent(above), weight(its_weight) {
  if (above == nullptr || above->inner.load(std::memory_order_acquire) != nullptr) return;
  auto made = std::make_unique<fair_below>();
  fair_below* none = nullptr;
  // Another thread may have made it meanwhile.
  if (above->inner.compare_exchange_strong(none, made.get(), std::memory_order_acq_rel))
    (void)made.release();
}

inline fair_group::~fair_group() { delete inner.load(std::memory_order_acquire); }

class fair_policy final : public turn_policy {
 public:
  /// The weight of tasks that are in no group of the level.
  static constexpr unsigned own_weight = 100;
  /// What the turn of a task in no group is marked with.
  static constexpr mark in_no_group = 1;

  /// What was used longer ago than `memory`, by a group that has not waited since, is forgotten. A poll
  /// that is longer than `memory` is not, while others waited for its end.
  /// `number` is another one than that of any policy before that used the same groups, and not zero.
  explicit fair_policy(timing::ticks memory, std::uint32_t number = 1) noexcept
      : memory_(memory), number_(number) {
    top_.used_by = root_.used_by = number;
    root_.inner.store(&top_, std::memory_order_relaxed);
  }
  ~fair_policy() override { root_.inner.store(nullptr, std::memory_order_relaxed); }

  void add(turn& t, timing::ticks now) noexcept override {
    fair_group* g = t.group != nullptr ? t.group : &root_;
    if (empty(root_)) {
      clock_ += since(idle_at_, now);
      contended_since_ = clock_;
    }
    for (fair_group* at = g; at->used_by != number_; at = above(*at)) begin(*at);
    // Without memory for their places they wait as tasks in no group.
    if (!has_room(*g)) {
      t.group = nullptr;
      g = &root_;
    }
    if (fair_below* const b = below(*g); b != nullptr && g->own.empty())
      (void)join(b->own_account, own_cost(*g, *b), own_weight, b->now);
    t.tag = g->own_now + ahead_of_others(t, g->own_now);
    t.used_by = number_;
    t.seen = t.cost;
    t.since = now;
    g->own.push(t);
    for (; g != &root_ && !g->waits(); g = above(*g)) {
      fair_group& p = *above(*g);
      fair_below& level = *below(p);
      const joined before = join(g->account, g->cost.load(), weight_of(*g), level.now);
      level.seen += before.used;
      // What costs nothing that the clock shows is behind the others with the same tag all the same.
      if (before.used == 0) g->account.tag = std::nextafter(g->account.tag, after_all);
      // The tasks of `p` have not used that, and need not be given it back.
      if (before.forgotten && &p != &root_)
        level.own_account.seen = std::min(level.own_account.seen, own_cost(p, level));
      level.waiting.push(*g, g->account.tag);
    }
  }

  void remove(turn& t, timing::ticks now) noexcept override {
    fair_group* g = t.group != nullptr ? t.group : &root_;
    g->own.erase(t);
    t.lead = std::max(t.tag - g->own_now, 0.0);
    t.left = std::max(clock_, timing::ticks{1});
    if (fair_below* const b = below(*g); b != nullptr && g->own.empty())
      b->own_account.left = in_units(clock_);
    for (; g != &root_ && empty(*g); g = above(*g)) {
      fair_below& level = *below(*above(*g));
      level.waiting.erase(*g);
      g->account.left = in_units(clock_);
    }
    if (empty(root_)) idle_at_ = now;
  }

  choice next(timing::ticks /*now*/) noexcept override {
    for (fair_group* g = &root_; !empty(*g);) {
      fair_below* const level = below(*g);
      fair_group* const least = level != nullptr ? least_of(*level) : nullptr;
      if (!g->own.empty()) {
        if (level != nullptr) charge(level->own_account, own_cost(*g, *level), own_weight);
        if (least == nullptr || level->own_account.tag <= least->account.tag) {
          if (level != nullptr) level->now = std::max(level->now, level->own_account.tag);
          turn& t = g->own.front();
          g->own_now = std::max(g->own_now, t.tag);
          return {&t, g == &root_ ? in_no_group : mark{0}};
        }
      }
      level->now = std::max(level->now, least->account.tag);
      g = least;
    }
    return {};
  }

  /// The groups at the top in the order of their tags. Where a group has tasks and groups below it, its
  /// tasks; tasks in no group are left out.
  [[nodiscard]] std::size_t upcoming(std::span<turn*> to) noexcept override {
    std::size_t found = 0;
    for (; found != to.size(); ++found) {
      const fair_group* g = top_.waiting.next(found);
      if (g == nullptr) break;
      while (g->own.empty()) g = &g->inner.load(std::memory_order_acquire)->waiting.front();
      to[found] = &g->own.front();
    }
    return found;
  }

  void weight_changed(fair_group& g) noexcept override {
    if (!g.waits()) return;  // then join() does it
    fair_below& level = *above(g)->inner.load(std::memory_order_acquire);
    weigh(g.account, weight_of(g), level.now);
    level.waiting.change(g, g.account.tag);
  }

  void served(mark what, timing::ticks cost) noexcept override {
    if (what == in_no_group) in_no_group_ += cost;
    if (!empty(root_)) clock_ += cost;
  }

 private:
  static constexpr double after_all = std::numeric_limits<double>::infinity();
  // Times in 32 bits: 2^16 ticks are about 25 us, and they are the same again after a day.
  static constexpr unsigned unit_bits = 16;
  static std::uint32_t in_units(timing::ticks t) noexcept {
    return std::max(static_cast<std::uint32_t>(t >> unit_bits), std::uint32_t{1});
  }
  static timing::ticks since(timing::ticks then, timing::ticks now) noexcept {
    return now - std::min(then, now);
  }
  /// Whether a group that ceased to wait at `left`, and has used `used`, has made a pause. If others
  /// waited all the time, its own polls are no pause, however long: they have paid for it.
  [[nodiscard]] bool paused(std::uint32_t left, std::uint64_t used) const noexcept {
    const std::uint32_t age = in_units(clock_) - left;
    const bool contended = since(contended_since_, clock_) >> unit_bits >= age;
    return left == 0 || age > (memory_ + (contended ? used : 0)) >> unit_bits;
  }
  /// How far the task, which waits from now on, is ahead of the virtual time among the group's own tasks.
  /// What it had among those of another group counts for its distance only.
  [[nodiscard]] double ahead_of_others(const turn& t, double virtual_time) const noexcept {
    if (t.used_by != number_ || t.left == 0) return 0;
    const timing::ticks used = t.cost - t.seen;
    const bool contended = contended_since_ <= t.left;  // as in paused()
    if (clock_ - t.left > memory_ + (contended ? used : 0)) return 0;
    const double ahead = std::min(t.tag - virtual_time, t.lead);
    return std::max(ahead + static_cast<double>(used), 0.0);
  }
  /// For the group and those above it, where they will begin to wait with it.
  [[nodiscard]] bool has_room(fair_group& of) noexcept {
    for (fair_group* g = &of; g != &root_ && !g->waits(); g = above(*g)) {
      if (!below(*above(*g))->waiting.make_room()) return false;
    }
    return true;
  }
  static bool empty(const fair_group& g) noexcept {
    const fair_below* const b = g.inner.load(std::memory_order_acquire);
    return g.own.empty() && (b == nullptr || b->waiting.empty());
  }
  fair_group* above(const fair_group& g) noexcept {
    return g.parent != nullptr ? g.parent : &root_;
  }
  static unsigned weight_of(const fair_group& g) noexcept {
    return g.weight.load(std::memory_order_relaxed);
  }
  /// What the group's own tasks have used: what those below it have not. It may be too high by what
  /// those have used since they were charged; then the next charges are smaller.
  [[nodiscard]] std::uint64_t own_cost(const fair_group& g, const fair_below& b) const noexcept {
    if (&g == &root_) return in_no_group_;
    const std::uint64_t all = g.cost.load();
    return all - std::min(all, b.seen);
  }

  /// The group has been used by another policy, or by none.
  void begin(fair_group& g) const noexcept {
    g.account = {};
    g.own_now = 0;
    g.used_by = number_;
  }
  /// Null if there are no groups below. There may be since a moment ago.
  fair_below* below(fair_group& g) const noexcept {
    fair_below* const b = g.inner.load(std::memory_order_acquire);
    if (b == nullptr || b->used_by == number_) return b;
    b->used_by = number_;
    b->now = 0;
    b->seen = 0;
    b->own_account = {};
    if (!g.own.empty()) (void)join(b->own_account, own_cost(g, *b), own_weight, b->now);
    return b;
  }

  static std::uint64_t charge(fair_ledger& l, std::uint64_t cost, unsigned weight) noexcept {
    if (cost <= l.seen) return 0;
    const std::uint64_t used = cost - l.seen;
    l.seen = cost;
    l.tag += static_cast<double>(used) / weight;
    return used;
  }
  /// Changes the weight. The distance between the tag and the virtual time is CPU time divided by the
  /// weight, so it becomes longer or shorter.
  static void weigh(fair_ledger& l, unsigned weight, double virtual_time) noexcept {
    if (l.weight != 0) l.tag = virtual_time + (l.tag - virtual_time) * l.weight / weight;
    l.weight = weight;
  }
  struct joined {
    std::uint64_t used;  ///< what was charged, or forgotten
    bool forgotten;
  };
  /// It waits from now on.
  joined join(fair_ledger& l, std::uint64_t cost, unsigned weight,
              double virtual_time) const noexcept {
    if (l.weight != weight) weigh(l, weight, virtual_time);
    const std::uint64_t used = charge(l, cost, weight);
    const bool forgotten = paused(l.left, used);
    l.tag = forgotten ? virtual_time : std::max(l.tag, virtual_time);
    return {used, forgotten};
  }

  /// Of the groups that wait the one that has had least; null if there is none.
  static fair_group* least_of(fair_below& level) noexcept {
    while (!level.waiting.empty()) {
      fair_group& first = level.waiting.front();
      const std::uint64_t cost = first.cost.load();
      if (cost <= first.account.seen) return &first;
      level.seen += charge(first.account, cost, weight_of(first));
      level.waiting.change(first, first.account.tag);
    }
    return nullptr;
  }

  const timing::ticks memory_;
  const std::uint32_t number_;
  std::uint64_t in_no_group_ = 0;
  /// The time by which pauses are measured. While something waits, it is the CPU time of what is served:
  /// the CPU may be another process's for a while.
  timing::ticks clock_ = 0;
  timing::ticks contended_since_ = 0;  ///< by that: since when something has always waited
  timing::ticks idle_at_ = 0;          ///< when something ceased to wait, and nothing else did
  fair_group root_{nullptr, own_weight};
  fair_below top_;
};

}  // namespace asio_pulse::detail
