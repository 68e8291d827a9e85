// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/published_value.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/tier_manager.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <chrono>

namespace asio_pulse::detail {

/// How long polls run, in ticks.
struct slice_limits {
  timing::ticks quantum = 1;
  timing::ticks min_slice = 1;
  timing::ticks check_interval = 1;  ///< how often checkpoints read the clock, about
};

/// Those of a context's options that can change while threads run it (changes.hpp), in the form in
/// which they are used. Values that must fit together are published together.
///
/// \par Thread safety  Readers: any thread. set(): one thread at a time; the context's
///                     `update_mutex_` sees to that.
/// \par Memory order   Relaxed: each value is used by itself, and publishes nothing. A worker that
///                     sees the new generation of its arbiter's state word (acquire, in
///                     poll_frame::begin_measured()), which is added after set() with release, sees
///                     all of them. For the sets see published_value.
class live_options {
 public:
  explicit live_options(const options& o) noexcept;
  void set(const options& o) noexcept;

  [[nodiscard]] bool shadow() const noexcept { return shadow_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool accept_rule() const noexcept {
    return accept_rule_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool connect_rule() const noexcept {
    return connect_rule_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] report_kinds silenced() const noexcept {
    return silenced_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::chrono::nanoseconds max_critical() const noexcept {
    return max_critical_.load(std::memory_order_relaxed);
  }
  /// Whether polls that do not end are looked for.
  [[nodiscard]] bool watched() const noexcept { return watched_.load(std::memory_order_relaxed); }
  [[nodiscard]] tier_limits limits() const noexcept { return limits_.get(); }
  [[nodiscard]] slice_limits slice() const noexcept { return slices_.get(); }
  /// The budgets of new connections' tasks. Their configurations are one word each.
  [[nodiscard]] const task_budget& accepted() const noexcept { return accepted_; }
  [[nodiscard]] const task_budget& connected() const noexcept { return connected_; }

 private:
  std::atomic<bool> shadow_{false};
  std::atomic<bool> accept_rule_{true};
  std::atomic<bool> connect_rule_{true};
  std::atomic<bool> watched_{false};
  std::atomic<report_kinds> silenced_{report_kinds{}};
  std::atomic<std::chrono::nanoseconds> max_critical_{std::chrono::nanoseconds{0}};
  published_value<tier_limits> limits_;
  published_value<slice_limits> slices_;
  task_budget accepted_;
  task_budget connected_;
};

/// Whether the options ask for a watchdog.
[[nodiscard]] inline bool wants_watchdog(const options& o) noexcept {
  return o.enabled && o.watchdog && o.stall_threshold.count() != 0;
}

}  // namespace asio_pulse::detail
