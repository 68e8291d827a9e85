// SPDX-License-Identifier: BSL-1.0
//
// What a blocked handler waited for, by its system call and its stack.

#pragma once

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/report.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

struct blocked_reason {
  lint_kind kind;
  std::string_view for_what;  // follows "waited up to 5ms "
  std::string_view advice;
};

/// Its stack was taken, or its system call read.
bool described(const stall_metrics&) noexcept;

/// \pre the stall's cause is `blocked`.
blocked_reason why_blocked(const stall_metrics&) noexcept;

/// What one report alone shows; nothing where it is not known, or needs figures over time.
std::optional<lint_kind> lint_of(const report&) noexcept;

/// "parse(char const*)" of "  #1 parse(char const*) at src/parse.cpp:12".
std::string_view function_of(std::string_view frame) noexcept;

/// A frame in a sentence: its function, cut, and its place; escaped.
std::string text_of_frame(std::string_view frame);

}  // namespace asio_pulse::detail
