// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <boost/intrusive/set.hpp>

#include <algorithm>
#include <cmath>

/// \file
/// Which of several groups of tasks has had more than its share of the CPU.
///
/// Each group has a tag, which advances by the CPU time that the group uses, divided by its weight.
/// The virtual time is the mean of the tags of the groups that contend, by their weights, so it
/// advances by the CPU time that they all use, divided by the sum of their weights. A group that uses
/// exactly its share keeps its distance to the virtual time, one that uses more gets ahead of it, and
/// one that uses less falls behind. Of the groups that contend one is always at the virtual time or
/// ahead of it.
///
/// A group that has fallen behind by a window is satisfied: it does not contend until it uses CPU
/// time again, and what it leaves is shared by the others. That is weighted max-min fairness
/// (tests/property/shares_property_test.cpp). A group can be ahead by no more than some windows, so
/// that what was used long ago is forgotten.
///
/// \par Source  Parekh and Gallager, "A Generalized Processor Sharing Approach to Flow Control in
///              Integrated Services Networks" (1993): the virtual time. Linux's CFS: that a group
///              which comes back starts at a bounded distance behind it.

namespace asio_pulse::detail {

/// What the shares keep of one group. Guarded as they are.
struct group_share : boost::intrusive::set_base_hook<boost::intrusive::optimize_size<true>> {
  double tag = 0;
  double weight = 1;
  bool contends = false;

  friend bool operator<(const group_share& a, const group_share& b) noexcept {
    return a.tag < b.tag;
  }
};

/// The shares of the groups that have the same parent.
///
/// Pure: reads no clock and takes no lock.
class group_shares {
 public:
  /// How many windows a group can be ahead.
  static constexpr double farthest = 8;

  /// `window`: how far a group can be behind, as CPU time of all groups together. Must be positive,
  /// and outlive this object. It may change.
  explicit group_shares(const double& window) noexcept : window_(window) {}
  group_shares(const group_shares&) = delete;
  group_shares& operator=(const group_shares&) = delete;
  ~group_shares() { contending_.clear(); }

  /// The group has used `cost` of CPU time, above zero.
  ///
  /// \par Cost  O(log n) in the number of groups that contend.
  void used(group_share& g, timing::ticks cost) noexcept {
    note_user(g);
    total_ += static_cast<double>(cost);
    const double amount = static_cast<double>(cost) / g.weight;
    if (g.contends) {
      contending_.erase(contending_.iterator_to(g));
      now_ += static_cast<double>(cost) / weights_;
      g.tag += amount;
      if (const double excess = g.tag - now_ - farthest * distance();
          excess > 0 && weights_ != g.weight) {
        g.tag -= excess;
        now_ -= excess * g.weight / weights_;
      }
      contending_.insert(g);
    } else if (contending_.empty()) {
      g.tag = now_ + amount;
      join(g);
    } else {
      g.tag = std::max(g.tag, now_ - distance(g)) + amount;
      if (g.tag < now_) return;
      join(g);
    }
    while (contending_.begin()->tag < now_ - distance()) leave(*contending_.begin());
  }

  /// A request of the group was refused. So it is not satisfied, and contends with what it has had.
  void refused(group_share& g) noexcept {
    if (g.contends) return;
    if (!contending_.empty()) g.tag = std::max(g.tag, now_ - distance(g));
    join(g);
  }

  /// How far the group is ahead of the virtual time, in windows: from -1, for a group that is
  /// satisfied, to `farthest`. 0 for a group that contends alone.
  [[nodiscard]] double position(const group_share& g) const noexcept {
    if (contending_.empty()) return 0;
    constexpr double rounding = 1e-6;  // a group that contends alone is not behind itself
    const double windows = (g.tag - now_) / distance(g);
    return std::abs(windows) < rounding ? 0 : std::clamp(windows, -1.0, farthest);
  }
  /// Whether no other group has used anything while all together used a window.
  [[nodiscard]] bool alone(const group_share& g) const noexcept {
    return last_user_ == &g && total_ - other_at_ > window_;
  }

  /// Changes the weight, which must be positive.
  void set_weight(group_share& g, double weight) noexcept {
    if (!g.contends) {
      g.weight = weight;
      return;
    }
    leave(g);
    g.weight = weight;
    join(g);
  }

  /// The group does not contend any more: it is satisfied, or ends.
  void leave(group_share& g) noexcept {
    if (!g.contends) return;
    contending_.erase(contending_.iterator_to(g));
    g.contends = false;
    if (contending_.empty()) {
      weights_ = 0;
      return;
    }
    weights_ -= g.weight;
    now_ += (now_ - g.tag) * g.weight / weights_;
  }

 private:
  /// The window on the scale of tags.
  [[nodiscard]] double distance() const noexcept { return window_ / weights_; }
  /// The same for a group that may be satisfied, as if it contended. Otherwise a heavy group beside
  /// light ones could be behind by more than the window.
  [[nodiscard]] double distance(const group_share& g) const noexcept {
    return window_ / (g.contends ? weights_ : weights_ + g.weight);
  }
  void note_user(const group_share& g) noexcept {
    if (last_user_ == &g) return;
    other_at_ = last_user_ != nullptr ? total_ : -window_;
    last_user_ = &g;
  }
  void join(group_share& g) noexcept {
    if (contending_.empty()) now_ = g.tag;
    weights_ += g.weight;
    now_ += (g.tag - now_) * g.weight / weights_;
    g.contends = true;
    contending_.insert(g);
  }

  const double& window_;
  double now_ = 0;       ///< the mean of the tags of the groups that contend, by their weights
  double weights_ = 0;   ///< of the groups that contend
  double total_ = 0;     ///< what all groups have used
  double other_at_ = 0;  ///< `total_` when another group than `last_user_` used something
  const group_share* last_user_ = nullptr;  ///< only compared: the group may have ended
  boost::intrusive::multiset<group_share> contending_;
};

}  // namespace asio_pulse::detail
