// SPDX-License-Identifier: BSL-1.0
//
// Durations for people, with three digits and a unit. Reports are exact instead, because programs
// read them, too.

#pragma once

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace asio_pulse::detail {

/// Three digits of a value that is below a thousand: "7.25", "61.2", "812".
inline std::string three_digits(double value) {
  // From here on it would be rounded to four digits.
  if (value < 9.995) return fmt::format("{:.2f}", value);
  return value < 99.95 ? fmt::format("{:.1f}", value) : fmt::format("{:.0f}", value);
}

/// "812ns", "61.2ms", "2m05s", "3h12m", "5d03h"; at most 7 characters below 27 years.
inline std::string short_duration(std::chrono::nanoseconds value) {
  const std::int64_t count = value.count();
  const auto in = [count](double unit) { return static_cast<double>(count) / unit; };
  if (count < 0) return "0ns";
  if (count < 1'000) return fmt::format("{}ns", count);
  if (in(1e3) < 999.5) return three_digits(in(1e3)) + "us";
  if (in(1e6) < 999.5) return three_digits(in(1e6)) + "ms";
  if (in(1e9) < 99.95) return three_digits(in(1e9)) + "s";
  const std::int64_t seconds = count / 1'000'000'000;
  if (seconds < 3'600) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  if (seconds < 86'400) return fmt::format("{}h{:02}m", seconds / 3'600, seconds / 60 % 60);
  return fmt::format("{}d{:02}h", seconds / 86'400, seconds / 3'600 % 24);
}

}  // namespace asio_pulse::detail
