// SPDX-License-Identifier: BSL-1.0
//
// Text for a terminal: what is safe to print, how wide it is, and bars made of it.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::top {

/// What the terminal shows.
enum class charset : std::uint8_t {
  ascii,
  utf8  ///< the locale's (LC_CTYPE) is UTF-8: set before anything here is called
};

/// The process's locale's.
charset charset_of_locale() noexcept;

/// Any bytes as what may go to a terminal: escaped as in reports, and what the terminal cannot show
/// is written as \u{...}. On one line. Of very long ones the first 4 kB.
std::string printable(std::string_view bytes, charset);

/// The same of text that was escaped where it was made, and is not to be escaped twice: backslashes
/// and quotes stay. Whatever else should be in it is made printable all the same.
std::string printable_again(std::string_view text, charset);

/// The terminal's columns that printable text takes.
std::size_t width_of(std::string_view printable) noexcept;

/// Cut to at most `width` columns, with an ellipsis where something is missing.
std::string cut(std::string_view printable, std::size_t width, charset);
/// The same, of which the end is kept: for paths.
std::string cut_start(std::string_view printable, std::size_t width, charset);

/// Exactly `width` columns: cut, or filled with blanks.
std::string left(std::string_view printable, std::size_t width, charset);
std::string right(std::string_view printable, std::size_t width, charset);

/// Lines of at most `width` columns, broken at blanks where there are any.
std::vector<std::string> wrap(std::string_view printable, std::size_t width);

/// `share` (cut to 0 to 1) of `width` columns.
std::string bar(double share, std::size_t width, charset);

/// The last `width` values, each as high as its part of `most`; blanks first where there are fewer.
std::string sparkline(std::span<const std::chrono::nanoseconds> values,
                      std::chrono::nanoseconds most, std::size_t width, charset);

/// "0", "3.2", "812", "12.3k", "4.56M": at most 5 characters below 1e15.
std::string short_number(double value);

/// Of one: "0.0%", "52.3%", "198%".
std::string percent(double share);

}  // namespace asio_pulse::top
