// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fmt/core.h>

#include <chrono>
#include <string>

namespace asio_pulse::detail {

/// The value as a C++ literal: "5ms", "1500us".
inline std::string duration_literal(std::chrono::nanoseconds value) {
  const auto ns = value.count();
  if (ns != 0 && ns % 1'000'000'000 == 0) return fmt::format("{}s", ns / 1'000'000'000);
  if (ns != 0 && ns % 1'000'000 == 0) return fmt::format("{}ms", ns / 1'000'000);
  if (ns != 0 && ns % 1'000 == 0) return fmt::format("{}us", ns / 1'000);
  return fmt::format("{}ns", ns);
}

}  // namespace asio_pulse::detail
