// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {

/// A duration in units of 256 ticks: 32 bits hold some minutes.
inline constexpr unsigned cost_unit_bits = 8;

/// The CPU time between the last two snapshots.
///
/// \par Thread safety  There is one snapshot at a time; any thread may call get().
/// \par Memory order   Relaxed: it publishes nothing.
class recent_cost {
 public:
  /// A snapshot, at which the total is `cost`. `first`: there was no snapshot before, so nothing is
  /// known of the recent past.
  void roll(timing::ticks cost, bool first) noexcept {
    const auto units = static_cast<std::uint32_t>(cost >> cost_unit_bits);
    const std::uint32_t used = units - seen_.load(std::memory_order_relaxed);
    recent_.store(first ? 0 : used, std::memory_order_relaxed);
    seen_.store(units, std::memory_order_relaxed);
  }
  [[nodiscard]] timing::ticks get() const noexcept {
    return timing::ticks{recent_.load(std::memory_order_relaxed)} << cost_unit_bits;
  }

 private:
  std::atomic<std::uint32_t> seen_{0};    ///< the total at the last snapshot; wraps
  std::atomic<std::uint32_t> recent_{0};  ///< what was used between the last two
};

}  // namespace asio_pulse::detail
