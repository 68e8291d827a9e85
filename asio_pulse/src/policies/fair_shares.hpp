// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/share.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <cstddef>

/// \file
/// Which of two tasks has had less of the CPU. The gate's decisions are based on this comparison.
///
/// Each task has a tag, its virtual time: the CPU time that it has used, on a scale which all tasks
/// of a context share. The context has a virtual time too. It advances by what an equal share of
/// the CPU would have given to each task that wanted it, so a task whose tag is ahead of it has had
/// more than its equal share. A task that comes back from a pause starts at the context's virtual
/// time: a pause gives neither a credit nor a debt.
///
/// \par Source  Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): the tags, and that
///              serving a task advances the virtual time to its tag. Linux's CFS: where a task
///              starts after a pause.

namespace asio_pulse::detail {

/// The virtual time of a context.
///
/// Pure: reads no clock and takes no lock.
class fair_shares {
 public:
  struct limits {
    timing::ticks lead;    ///< the furthest that a tag can be ahead; must not be zero
    timing::ticks memory;  ///< CPU time that was used longer ago than this is forgotten
  };

  explicit fair_shares(const limits& l) noexcept : limits_(l) {}

  /// Adds what the task has used since the last update. `cost` is its total CPU time. `waited`: its
  /// work was waiting all the time, so that its tag may be behind.
  void update(share& s, timing::ticks cost, timing::ticks now, bool waited = false) const noexcept {
    const timing::ticks all = cost - std::min(s.seen, cost);
    const timing::ticks used = std::min(all, limits_.lead);
    // A poll that is longer than `memory` is not a pause.
    const bool paused = !waited && now - std::min(s.looked, now) > limits_.memory + all;
    const timing::ticks tag = paused ? now_ : s.tag + used;
    s.tag = std::min(waited ? tag : std::max(tag, now_), now_ + limits_.lead);
    s.seen = cost;
    s.looked = now;
  }

  /// Puts the task behind all others, as if it had used all that is remembered.
  void put_behind(share& s) const noexcept { s.tag = std::max(s.tag, now_ + limits_.lead); }

  /// Whether the task has had more than its equal share, as of its last update.
  [[nodiscard]] bool ahead(const share& s) const noexcept { return s.tag > now_; }
  /// Whether waiting work of `u` goes before that of `t`, as of their last updates.
  [[nodiscard]] static bool before(const share& u, const share& t) noexcept {
    return u.tag < t.tag;
  }

  /// Work of `s` is served, while no work of a task that had less waits.
  void serve(const share& s) noexcept { now_ = std::max(now_, s.tag); }
  /// `cost` of CPU time was used while `competitors` tasks, at least one, wanted it.
  void served(timing::ticks cost, std::size_t competitors) noexcept { now_ += cost / competitors; }

  [[nodiscard]] timing::ticks now() const noexcept { return now_; }

 private:
  const limits limits_;
  timing::ticks now_ = 0;
};

}  // namespace asio_pulse::detail
