// SPDX-License-Identifier: BSL-1.0
//
// The four tiers, the reasons for a change, and the policy that decides when.

#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

namespace asio_pulse {

/// How a task is treated. The order is the order of severity, and the numbers are part of reports.
enum class tier : std::uint8_t {
  monitor = 0,  ///< accounted for, nothing else
  warn = 1,     ///< reported
  yield = 2,    ///< requeued while over budget; its checkpoints yield
  isolate = 3,  ///< runs on the isolation pool, where it was declared isolatable
};

/// Why a tier changed, or what was noticed without changing it.
enum class reason : std::uint8_t {
  none,                ///< nothing happened
  overrun,             ///< more CPU time than the budget allows
  slow_poll,           ///< one poll above the stall threshold
  long_poll,           ///< one poll above the yield or the isolate threshold
  repeated_overruns,   ///< overruns went on
  yield_did_not_help,  ///< slow polls went on in Yield
  clean,               ///< behaved for a window
  idle,                ///< did not run for a window
};

/// "monitor", "warn", "yield", "isolate"; "unknown" for a value that is none of them.
std::string_view to_string(tier) noexcept;

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(reason) noexcept;

/// When a task climbs and when it comes down. The durations of a single poll that count as slow
/// are in `options` (stall_threshold, yield_threshold, isolate_threshold).
///
/// The order of the members is stable: designated initialisers go on compiling.
struct tier_policy {
  /// Overruns, counted from Monitor, that lead to Yield. An overrun is being over budget at the end
  /// of a poll, counted once per quarter of a burst of further CPU time, so that a storm of short
  /// polls is in Yield after about 1.25 bursts and not at its second poll.
  /// Zero disables; at most 255. The default is a guess between one that jumps at a single spike
  /// and one that lets a storm run on.
  unsigned yield_after = 2;

  /// Slow polls in Yield that lead to Isolate: requeueing does not shorten a poll.
  /// Zero disables; at most 255. The default is a guess.
  unsigned isolate_after = 3;

  /// A task in Warn or Yield comes down one tier after this long without an overrun or a slow
  /// poll, if its bucket is then at least half full. A task that climbs again before it was clean
  /// for one window doubles its next windows, up to 8 times. Must be positive, at most an hour.
  std::chrono::nanoseconds clean_window = std::chrono::milliseconds{100};

  /// As clean_window, in Isolate. Must not be below clean_window; at most an hour.
  std::chrono::nanoseconds isolate_clean_window = std::chrono::seconds{1};

  bool operator==(const tier_policy&) const = default;
};

}  // namespace asio_pulse
