// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <boost/intrusive/list.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

/// \file
/// What the policies of options::policy have in common: they say which of the waiting tasks runs next.
///
/// A policy is pure: it reads no clock, takes no lock, needs no memory to go on, knows neither Asio nor
/// threads. The gate (parking) calls it with its mutex held, and tests call it with a clock of their
/// own.

namespace asio_pulse::detail {

struct fair_group;
struct turn;

struct in_turn;
struct in_class;
struct by_age;
template <class Tag>
using list_hook = boost::intrusive::list_base_hook<boost::intrusive::tag<Tag>>;

/// Its place in a turn_heap.
struct heap_node {
  turn* above = nullptr;
  turn* more = nullptr;  ///< the branch with the higher rank
  turn* less = nullptr;
  std::uint32_t rank = 0;  ///< the length of the shortest way down to a missing branch
};

/// A task that has operations waiting. One more of them stands for the entries of the queue whose order
/// is not decided here.
struct turn : list_hook<in_turn>, list_hook<in_class>, list_hook<by_age>, heap_node {
  // Set by the caller before turn_policy::add().
  fair_group* group = nullptr;  ///< null for a task in no group
  unsigned priority = 3;        ///< from 0 to 7
  timing::ticks deadline = 0;   ///< when its oldest operation should be started
  timing::ticks cost = 0;       ///< the CPU time that the task has used so far

  // Kept by the policies; turn_heap needs `since`.
  double tag = 0;
  double lead = 0;            ///< how far `tag` was ahead of the others when it was removed
  std::uint32_t used_by = 0;  ///< the number of the policy that made `tag`
  timing::ticks seen = 0;     ///< `cost` when `tag` was brought up to date
  timing::ticks since = 0;    ///< when it was added: set it in add()
  timing::ticks left = 0;     ///< when it was removed, by the policy's clock: set it in remove()
};

/// Turns in the order in which they were put there.
template <class Tag>
using turn_list = boost::intrusive::list<turn, boost::intrusive::base_hook<list_hook<Tag>>,
                                         boost::intrusive::constant_time_size<false>>;

/// \par Cost  No member throws; only add() may allocate. All are O(log n) in the number of turns and groups
///            that wait, for each level of groups.
class turn_policy {
 public:
  /// What next() has returned, as far as served() has to know.
  using mark = std::uint8_t;
  struct choice {
    turn* next = nullptr;  ///< null if nothing waits
    mark what = 0;
  };

  turn_policy() = default;
  turn_policy(const turn_policy&) = delete;
  turn_policy& operator=(const turn_policy&) = delete;
  virtual ~turn_policy() = default;

  /// The task waits from now on. It must not wait already.
  virtual void add(turn& t, timing::ticks now) noexcept = 0;
  /// The task does not wait any more: it is served, or its work is taken away.
  virtual void remove(turn& t, timing::ticks now) noexcept = 0;
  /// The turn that is served next. It still waits afterwards: the caller calls remove().
  [[nodiscard]] virtual choice next(timing::ticks now) noexcept = 0;
  /// Writes down who is probably served next, the first one first, and returns how many these are. A guess,
  /// with which the caller loads their memory ahead of their turns. The last one must not be read yet: its
  /// memory may not be in the caches. 0 if the policy knows no better than the order in which they were
  /// added.
  [[nodiscard]] virtual std::size_t upcoming(std::span<turn*> /*to*/) noexcept { return 0; }
  /// The group's weight has changed.
  virtual void weight_changed(fair_group& /*g*/) noexcept {}
  /// What next() returned has run, for `cost` of CPU time. The task may have ended since.
  virtual void served(mark /*what*/, timing::ticks /*cost*/) noexcept {}
};

}  // namespace asio_pulse::detail
