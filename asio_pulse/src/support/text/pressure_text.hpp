// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <string_view>

namespace asio_pulse::detail {

/// The value of a field in a file of /proc/pressure (PSI), from its line "some avg10=0.12 avg60=...
/// total=345". `key` is the name with its sign, such as "avg10=". Empty if there is no such field.
[[nodiscard]] inline std::string_view pressure_field(std::string_view text,
                                                     std::string_view key) noexcept {
  constexpr std::string_view some = "some ";
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    if (!line.starts_with(some)) continue;
    line.remove_prefix(some.size());
    while (!line.empty()) {
      const std::string_view field = line.substr(0, line.find(' '));
      if (field.starts_with(key)) return field.substr(key.size());
      line.remove_prefix(field.size() < line.size() ? field.size() + 1 : field.size());
    }
    return {};
  }
  return {};
}

}  // namespace asio_pulse::detail
