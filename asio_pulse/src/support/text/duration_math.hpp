// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

/// \file
/// Sums and means of figures from other processes.

namespace asio_pulse::detail {

/// Adds a value, and saturates at the longest duration. Neither may be negative.
inline void add_up(std::chrono::nanoseconds& sum, std::chrono::nanoseconds value) noexcept {
  sum =
      value > std::chrono::nanoseconds::max() - sum ? std::chrono::nanoseconds::max() : sum + value;
}

/// A part of a duration, of one; zero if the whole is zero. Neither may be negative.
[[nodiscard]] inline double share_of(std::chrono::nanoseconds part,
                                     std::chrono::nanoseconds of) noexcept {
  return of.count() == 0 ? 0.0
                         : static_cast<double>(part.count()) / static_cast<double>(of.count());
}

/// The mean of `count` durations with this sum, which must not be negative; zero if there are none.
[[nodiscard]] inline std::chrono::nanoseconds mean_of(std::chrono::nanoseconds sum,
                                                      std::uint64_t count) noexcept {
  if (count == 0) return std::chrono::nanoseconds{0};
  return std::chrono::nanoseconds{
      static_cast<std::int64_t>(static_cast<std::uint64_t>(sum.count()) / count)};
}

}  // namespace asio_pulse::detail
