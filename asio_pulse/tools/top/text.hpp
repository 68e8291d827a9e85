// SPDX-License-Identifier: BSL-1.0
//
// Text for a terminal: what is safe to print, how wide it is, and bars.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::top {

/// What characters the terminal can show.
enum class charset : std::uint8_t {
  ascii,
  utf8  ///< the locale (LC_CTYPE) uses UTF-8
};

/// The charset of the process's locale. The locale must be set before.
charset charset_of_locale() noexcept;

/// Makes any bytes safe for a terminal: escaped as in reports, with \u{...} for what the terminal
/// cannot show, on one line, and at most 4 kB.
std::string printable(std::string_view bytes, charset);

/// The same for text that was escaped already and must not be escaped twice: backslashes and quotes
/// stay, and everything else is made printable.
std::string printable_again(std::string_view text, charset);

/// The width of printable text in terminal columns.
std::size_t width_of(std::string_view printable) noexcept;

/// Cuts a text to at most `width` columns. An ellipsis shows where text is missing.
std::string cut(std::string_view printable, std::size_t width, charset);
/// The same, but keeps the end of the text; for paths.
std::string cut_start(std::string_view printable, std::size_t width, charset);

/// Cuts a text, or fills it with blanks, to exactly `width` columns.
std::string left(std::string_view printable, std::size_t width, charset);
std::string right(std::string_view printable, std::size_t width, charset);

/// Wraps a text into lines of at most `width` columns, at blanks if possible.
std::vector<std::string> wrap(std::string_view printable, std::size_t width);

/// A bar that fills `share` (limited to 0 to 1) of `width` columns.
std::string bar(double share, std::size_t width, charset);

/// The last `width` values as bars whose height is their part of `most`; blanks first if there are
/// fewer.
std::string sparkline(std::span<const std::chrono::nanoseconds> values,
                      std::chrono::nanoseconds most, std::size_t width, charset);

/// "0", "3.2", "812", "12.3k", "4.56M": at most 5 characters below 1e15.
std::string short_number(double value);

/// The number that the whole text is, in decimal digits.
std::optional<std::uint64_t> number_of(std::string_view text);

/// A share of one in percent: "0.0%", "52.3%", "198%".
std::string percent(double share);

}  // namespace asio_pulse::top
