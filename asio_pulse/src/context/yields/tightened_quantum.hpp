// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <cstdint>

namespace asio_pulse::detail {

/// Pressure is between 0 and this.
inline constexpr std::uint32_t most_pressure = 100;

/// How long a poll may run under pressure before its checkpoints yield, if it may run for `quantum`
/// without: half of that under the highest pressure, but never less than `least`. The half is a
/// guess.
[[nodiscard]] constexpr timing::ticks tightened_quantum(timing::ticks quantum, timing::ticks least,
                                                        std::uint32_t pressure) noexcept {
  return std::max(quantum - quantum / (timing::ticks{2} * most_pressure) * pressure,
                  std::min(least, quantum));
}

}  // namespace asio_pulse::detail
