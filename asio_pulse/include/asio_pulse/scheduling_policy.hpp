// SPDX-License-Identifier: BSL-1.0
//
// A policy that the program writes: which of the waiting tasks runs next.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

namespace asio_pulse {

/// Decides which of the waiting tasks runs next, while a context is saturated. An object is made for
/// each context by options::custom_policy, and is destroyed after the context's last
/// decision.
///
/// It gets plain values, and reads no clock, so that it can be tested without a context.
///
/// \par Thread safety  The context calls it from one thread at a time, which may be another one each
///                     time, and holds no lock meanwhile.
/// \par Errors         If pick() throws, or returns an index that is too high, the task that has
///                     waited longest runs instead. That is counted in
///                     statistics::policy_faults, and reported once (report_kind::misuse).
class scheduling_policy {
 public:
  /// A point in time, on a clock that only moves forward. Its zero has no meaning.
  using time = std::chrono::nanoseconds;

  /// A task that has operations waiting.
  struct work {
    std::uint64_t task =
        0;  ///< task::id(); 0 stands for everything whose order is not decided here
    std::uint64_t group = 0;                 ///< task_group::id() of its group; 0 for none
    unsigned weight = 100;                   ///< of its group
    unsigned priority = 3;                   ///< task_options::priority
    std::chrono::nanoseconds cost{0};        ///< CPU time that the task has used
    std::chrono::nanoseconds group_cost{0};  ///< that its group has used; 0 for none
    time since{0};                           ///< when its oldest operation that waits was put there
    time deadline = never;  ///< by when that should be started; `never` if there is no deadline
  };
  static constexpr time never = time::max();

  scheduling_policy() = default;
  scheduling_policy(const scheduling_policy&) = delete;
  scheduling_policy& operator=(const scheduling_policy&) = delete;
  virtual ~scheduling_policy() = default;

  /// Returns the index of the work that is served next: its oldest operation runs. `waiting` is not
  /// empty; what has waited longest for its turn comes first. It is valid during the call only.
  ///
  /// \par Cost  Called for each operation while the context is saturated, after what waits was
  ///            copied. So it suits some hundred tasks that wait at a time.
  [[nodiscard]] virtual std::size_t pick(std::span<const work> waiting, time now) = 0;
};

}  // namespace asio_pulse
