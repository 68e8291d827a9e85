// SPDX-License-Identifier: BSL-1.0
//
// The tiers, the reasons for a change, and the policy that decides about changes.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace asio_pulse {

/// How a task is treated, in the order of severity. The numbers are part of reports, metrics and
/// recordings, so a new tier is added at the end.
enum class tier : std::uint8_t {
  monitor = 0,  ///< accounted for, nothing else
  warn = 1,     ///< reported
  yield = 2,    ///< requeued while over budget; its checkpoints yield
  isolate = 3,  ///< runs on the isolation pool, where it was declared isolatable
};

/// The names of the tiers, in order. Everything that depends on the number of tiers uses its size.
inline constexpr std::array<std::string_view, 4> tier_names{"monitor", "warn", "yield", "isolate"};
inline constexpr std::size_t tier_count = tier_names.size();
inline constexpr tier last_tier = static_cast<tier>(tier_count - 1);
static_assert(last_tier == tier::isolate && tier_count <= 16, "see recorded_event::tier_change()");

/// Whether operations of a task in this tier are held back while the task is over budget, and its
/// checkpoints yield. Higher tiers include the effects of lower ones.
constexpr bool holds_back(tier t) noexcept { return t >= tier::yield; }
/// Whether handlers of a task in this tier run on the isolation pool, if the task may be isolated.
constexpr bool isolates(tier t) noexcept { return t >= tier::isolate; }

/// Why a tier changed, or what was noticed without changing it.
enum class reason : std::uint8_t {
  none,                ///< nothing happened
  overrun,             ///< more CPU time than the budget allows
  slow_poll,           ///< one poll above the stall threshold
  long_poll,           ///< one poll above the yield or the isolate threshold
  repeated_overruns,   ///< several overruns
  yield_did_not_help,  ///< several slow polls in Yield
  clean,               ///< a window without an offence
  idle,                ///< a window without a poll
};

/// "monitor", "warn", "yield", "isolate"; "unknown" for a value that is not an enumerator.
std::string_view to_string(tier) noexcept;

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(reason) noexcept;

/// When a task is promoted to a higher tier, and when it is demoted. The durations from which a
/// single poll counts as slow are in `options` (stall_threshold, yield_threshold,
/// isolate_threshold).
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct tier_policy {
  /// The number of overruns, counted from Monitor, that lead to Yield. A task overruns if it is
  /// over budget at the end of a poll. A further overrun is counted after another quarter of a
  /// burst of CPU time, so that a storm of short polls is in Yield after about 1.25 bursts and not
  /// at its second poll. Zero disables; at most 255. The default is a guess: with 1, a single spike
  /// would lead to Yield; higher values let a storm run longer.
  unsigned yield_after = 2;

  /// The number of slow polls in Yield that lead to Isolate, since holding operations back does not
  /// make a poll shorter. Zero disables; at most 255. The default is a guess.
  unsigned isolate_after = 3;

  /// A task in Warn or Yield is demoted by one tier after this long without an overrun or a slow
  /// poll, if its budget is then at least half full. If the task is promoted again within one
  /// window after that, its next windows are twice as long, up to 8 times. Must be positive; at
  /// most an hour.
  std::chrono::nanoseconds clean_window = std::chrono::milliseconds{100};

  /// The clean_window for a task in Isolate. Must not be below clean_window; at most an hour.
  std::chrono::nanoseconds isolate_clean_window = std::chrono::seconds{1};

  bool operator==(const tier_policy&) const = default;
};

}  // namespace asio_pulse
