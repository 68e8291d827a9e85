// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/stack_trace.hpp>

#include <string>

/// \file
/// A frame as people read it. All texts are on one line, and escaped as reports are.

namespace asio_pulse::detail {

/// All that is known: "parse(char const*) at src/parse.cpp:12", or "libc.so.6+0x9c3fe".
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string text_of(const stack_frame&);

/// The function, or if that is not known, the place in the module.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string name_of(const stack_frame&);

/// For use in a sentence: the name, cut if it is long, and the file and line unless they are long.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string short_text_of(const stack_frame&);

}  // namespace asio_pulse::detail
