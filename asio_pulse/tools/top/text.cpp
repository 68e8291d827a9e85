// SPDX-License-Identifier: BSL-1.0

#include "text.hpp"

#include "text/short_numbers.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/core.h>
#include <langinfo.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cwchar>
#include <system_error>

namespace asio_pulse::top {
namespace {

constexpr std::size_t name_bytes = 4096;

struct code_point {
  wchar_t value = 0;
  std::size_t bytes = 1;
  int columns = 1;  // -1: not to be shown
};

// The first code point of a text that is not empty.
code_point first_of(std::string_view text) noexcept {
  const auto byte = static_cast<unsigned char>(text[0]);
  if (byte < 0x80) return {static_cast<wchar_t>(byte), 1, byte < 0x20 || byte == 0x7f ? -1 : 1};
  std::mbstate_t state{};
  wchar_t value = 0;
  const std::size_t bytes = std::mbrtowc(&value, text.data(), text.size(), &state);
  if (bytes == 0 || bytes > text.size()) return {static_cast<wchar_t>(byte), 1, -1};
  return {value, bytes, ::wcwidth(value)};
}

// How many bytes of the text fit into `width`, and their width.
std::pair<std::size_t, std::size_t> fitting(std::string_view text, std::size_t width) noexcept {
  std::size_t bytes = 0;
  std::size_t columns = 0;
  while (bytes < text.size()) {
    const code_point c = first_of(text.substr(bytes));
    const auto wide = static_cast<std::size_t>(std::max(c.columns, 0));
    if (columns + wide > width) break;
    columns += wide;
    bytes += c.bytes;
  }
  return {bytes, columns};
}

std::string_view ellipsis(charset set, std::size_t width) noexcept {
  if (width == 0) return {};
  if (set == charset::utf8) return "\u2026";
  return width >= 4 ? "..." : "~";
}

constexpr std::size_t ellipsis_width(charset set, std::size_t width) noexcept {
  return set == charset::ascii && width >= 4 ? 3 : 1;
}

// Replaces what the terminal cannot show in an escaped text.
std::string shown(std::string_view escaped, charset set) {
  std::string text;
  text.reserve(escaped.size());
  while (!escaped.empty()) {
    const code_point c = first_of(escaped);
    const auto byte = static_cast<unsigned char>(escaped[0]);
    if (c.columns >= 0 && (byte < 0x80 || set == charset::utf8)) {
      text += escaped.substr(0, c.bytes);
    } else if (c.bytes > 1) {
      text += fmt::format("\\u{{{:x}}}", static_cast<std::uint32_t>(c.value));
    } else {
      text += fmt::format("\\x{:02x}", byte);
    }
    escaped.remove_prefix(c.bytes);
  }
  return text;
}

}  // namespace

charset charset_of_locale() noexcept {
  return std::string_view{::nl_langinfo(CODESET)} == "UTF-8" ? charset::utf8 : charset::ascii;
}

std::string printable(std::string_view bytes, charset set) {
  return shown(escape(bytes, name_bytes), set);
}

std::string printable_again(std::string_view text, charset set) {
  std::string result;
  std::string_view rest = text.substr(0, name_bytes);
  while (true) {
    const auto end = rest.find_first_of("\\\"");
    result += shown(escape(rest.substr(0, end), name_bytes), set);
    if (end == rest.npos) break;
    result += rest[end];
    rest.remove_prefix(end + 1);
  }
  return result;
}

std::size_t width_of(std::string_view text) noexcept {
  return fitting(text, std::string_view::npos).second;
}

std::string cut(std::string_view text, std::size_t width, charset set) {
  if (fitting(text, width).first == text.size()) return std::string{text};
  if (width == 0) return {};
  const auto kept = fitting(text, width - ellipsis_width(set, width)).first;
  return fmt::format("{}{}", text.substr(0, kept), ellipsis(set, width));
}

std::string cut_start(std::string_view text, std::size_t width, charset set) {
  std::size_t columns = width_of(text);
  if (columns <= width) return std::string{text};
  if (width == 0) return {};
  const std::size_t room = width - ellipsis_width(set, width);
  // Together with the characters that combine with it.
  while (!text.empty() && (columns > room || first_of(text).columns == 0)) {
    const code_point c = first_of(text);
    columns -= static_cast<std::size_t>(std::max(c.columns, 0));
    text.remove_prefix(c.bytes);
  }
  return fmt::format("{}{}", ellipsis(set, width), text);
}

std::string left(std::string_view text, std::size_t width, charset set) {
  std::string result = cut(text, width, set);
  return result.append(width - std::min(width, width_of(result)), ' ');
}

std::string right(std::string_view text, std::size_t width, charset set) {
  const std::string result = cut(text, width, set);
  return std::string(width - std::min(width, width_of(result)), ' ') + result;
}

std::vector<std::string> wrap(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  width = std::max<std::size_t>(width, 2);  // so that the widest character fits
  while (!text.empty()) {
    std::size_t bytes = fitting(text, width).first;
    if (bytes < text.size()) {
      // The blank may be directly behind the line.
      const std::size_t blank = text.substr(0, bytes + 1).rfind(' ');
      if (blank != text.npos && blank != 0) bytes = blank;
    }
    lines.emplace_back(text.substr(0, bytes));
    text.remove_prefix(bytes);
    while (text.starts_with(' ')) text.remove_prefix(1);
  }
  return lines;
}

std::string bar(double share, std::size_t width, charset set) {
  static constexpr std::array<std::string_view, 8> eighths{"",       "\u258f", "\u258e", "\u258d",
                                                           "\u258c", "\u258b", "\u258a", "\u2589"};
  const double part = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  std::string text;
  std::size_t used = 0;
  if (set == charset::utf8) {
    const auto all = static_cast<std::size_t>(std::lround(part * 8.0 * static_cast<double>(width)));
    for (; used < all / 8; ++used) text += "\u2588";
    if (all % 8 != 0) text += eighths[all % 8], ++used;
  } else {
    used = static_cast<std::size_t>(std::lround(part * static_cast<double>(width)));
    text.append(used, '|');
  }
  return text.append(width - used, ' ');
}

std::string sparkline(std::span<const std::chrono::nanoseconds> values,
                      std::chrono::nanoseconds most, std::size_t width, charset set) {
  static constexpr std::array<std::string_view, 8> blocks{"\u2581", "\u2582", "\u2583", "\u2584",
                                                          "\u2585", "\u2586", "\u2587", "\u2588"};
  static constexpr std::array<std::string_view, 8> marks{"_", ".", ":", "-", "=", "+", "*", "#"};
  if (values.size() > width) values = values.last(width);
  std::string text(width - values.size(), ' ');
  for (const auto value : values) {
    const double part =
        most.count() <= 0 ? 0.0
                          : static_cast<double>(value.count()) / static_cast<double>(most.count());
    const auto level = static_cast<std::size_t>(std::clamp(part * 8.0, 0.0, 7.0));
    text += set == charset::utf8 ? blocks[level] : marks[level];
  }
  return text;
}

std::string short_number(double value) {
  static constexpr std::array<std::string_view, 5> units{"", "k", "M", "G", "T"};
  if (!(value > 0)) return "0";
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) value /= 1000, ++unit;
  if (unit == 0) {
    // Most counts are integers.
    if (value < 0.05) return "0";
    if (value == std::floor(value) || value >= 99.95) return fmt::format("{:.0f}", value);
    return fmt::format("{:.1f}", value);
  }
  return detail::three_digits(value) + std::string{units[unit]};
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string percent(double share) {
  const double value = std::isfinite(share) ? std::max(share, 0.0) * 100 : 0.0;
  return value < 99.95 ? fmt::format("{:.1f}%", value) : fmt::format("{:.0f}%", value);
}

}  // namespace asio_pulse::top
