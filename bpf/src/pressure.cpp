// SPDX-License-Identifier: BSL-1.0
#include "pressure.hpp"

#include "process_info.hpp"
#include "text/pressure_text.hpp"

namespace asio_pulse::scx {
namespace {

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// Parses "12.34" exactly as the kernel writes it: no sign, no exponent, no locale.
std::optional<std::uint8_t> parse_percent(std::string_view text) noexcept {
  if (text.empty() || !is_digit(text.front())) return std::nullopt;
  unsigned whole = 0;
  std::size_t i = 0;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    if (whole < 1000) whole = whole * 10 + static_cast<unsigned>(text[i] - '0');
  }
  bool half_or_more = false;
  if (i < text.size() && text[i] == '.') {
    if (++i == text.size() || !is_digit(text[i])) return std::nullopt;
    half_or_more = text[i] >= '5';
    while (i < text.size() && is_digit(text[i])) ++i;
  }
  if (i != text.size()) return std::nullopt;
  if (half_or_more) ++whole;
  return static_cast<std::uint8_t>(whole < 100 ? whole : 100);
}

}  // namespace

std::optional<std::uint8_t> parse_pressure(std::string_view text) noexcept {
  return parse_percent(detail::pressure_field(text, "avg10="));
}

pressure read_pressure(const std::string& folder) {
  pressure result{.known = true};
  const auto one = [&](const char* name, std::uint8_t& value) {
    const auto text = read_file(folder + "/" + name);
    const auto parsed = text ? parse_pressure(*text) : std::nullopt;
    value = parsed.value_or(0);
    result.known = result.known && parsed.has_value();
  };
  one("cpu", result.cpu);
  one("io", result.io);
  one("memory", result.memory);
  return result;
}

}  // namespace asio_pulse::scx
