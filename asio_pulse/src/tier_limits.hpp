// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <asio_pulse/tier.hpp>
#include <asio_pulse/tier_manager.hpp>
#include <chrono>
#include <cstdint>
#include <limits>

namespace asio_pulse::detail {

/// The thresholds and the policy of options, or of a recording's settings, which are valid.
/// `to_ticks` turns a duration into ticks of whichever timebase is meant.
template <class Settings, class ToTicks>
tier_limits limits_of(const Settings& s, ToTicks to_ticks) noexcept {
  // At least one: a threshold that is on stays on.
  const auto at_least_one = [&](std::chrono::nanoseconds value) {
    return std::max<timing::ticks>(to_ticks(value), 1);
  };
  const auto threshold = [&](std::chrono::nanoseconds value) {
    return value.count() <= 0 ? tier_limits::off : at_least_one(value);
  };
  const auto count = [](unsigned value) {
    constexpr unsigned most = std::numeric_limits<std::uint8_t>::max();
    return static_cast<std::uint8_t>(std::min(value, most));
  };
  tier_limits limits;
  limits.slow_poll = threshold(s.stall_threshold);
  limits.yield_poll = threshold(s.yield_threshold);
  limits.isolate_poll = threshold(s.isolate_threshold);
  limits.quiet_below = std::min({limits.slow_poll, limits.yield_poll, limits.isolate_poll});
  limits.clean_window = at_least_one(s.tiers.clean_window);
  limits.isolate_clean_window = at_least_one(s.tiers.isolate_clean_window);
  limits.yield_after = count(s.tiers.yield_after);
  limits.isolate_after = count(s.tiers.isolate_after);
  limits.shadow = s.shadow;
  return limits;
}

/// For what belongs to no task: it is reported, and nothing else.
inline tier_limits without_enforcement(tier_limits limits) noexcept {
  limits.yield_poll = limits.isolate_poll = tier_limits::off;
  limits.yield_after = limits.isolate_after = 0;
  limits.quiet_below = limits.slow_poll;
  return limits;
}

}  // namespace asio_pulse::detail
