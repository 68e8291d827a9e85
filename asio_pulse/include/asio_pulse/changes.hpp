// SPDX-License-Identifier: BSL-1.0
//
// Changes of a context's options while it runs: io_context::update().

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/options.hpp>

#include <chrono>
#include <cstddef>
#include <optional>

namespace asio_pulse {

/// Changes of a budget; the members are those of task_options. What is empty stays as it is.
struct budget_changes {
  std::optional<std::chrono::nanoseconds> budget{};
  std::optional<std::chrono::nanoseconds> per{};
  std::optional<std::chrono::nanoseconds> burst{};

  bool operator==(const budget_changes&) const = default;
};

/// Changes of a context's options. It has a member for each option that can change while threads
/// run the context, with the same name. What is empty stays as it is:
///
///     io.update({.accepted = {.budget = 1ms}, .shadow = false});
///
/// The other options are used once, when the context or one of its parts is made;
/// asio_pulse/docs/options.md says why for each of them.
///
/// The order of the members is that of the options.
struct changes {
  /// Zero ends the watching of polls that do not end, another value begins it; see `watchdog`.
  std::optional<std::chrono::nanoseconds> stall_threshold{};
  std::optional<std::chrono::nanoseconds> yield_threshold{};
  std::optional<std::chrono::nanoseconds> isolate_threshold{};
  /// These apply to connections that exist, too.
  budget_changes accepted{};
  budget_changes connected{};
  budget_changes unnamed{};
  /// These apply to connections that are accepted or opened from now on.
  std::optional<bool> accept_rule{};
  std::optional<bool> connect_rule{};
  /// True: from now on nothing is enforced. Operations that are held back run in their order, at
  /// the next turn of the library in the queue.
  std::optional<bool> shadow{};
  /// Operations that are held back keep their place.
  std::optional<handler_order> order{};
  std::optional<std::chrono::nanoseconds> quantum{};
  std::optional<std::chrono::nanoseconds> min_slice{};
  /// Applies to the time since the last report of each task.
  std::optional<std::chrono::nanoseconds> report_interval{};
  /// With a new number a new second begins.
  std::optional<std::size_t> reports_per_second{};
  std::optional<report_kinds> silenced{};
  std::optional<tier_policy> tiers{};
  std::optional<std::chrono::nanoseconds> max_critical{};
  std::optional<bool> watchdog{};
  std::optional<admission_policy> admission{};
  /// Applies from the next turn of the gate. Operations that wait keep their order within their task.
  std::optional<scheduling> policy{};
  std::optional<std::chrono::nanoseconds> saturation{};

  bool operator==(const changes&) const = default;
};

}  // namespace asio_pulse
