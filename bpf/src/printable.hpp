// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string>
#include <string_view>

/// \file
/// Text from another process, made safe for a terminal: the program that serves a socket need not
/// be scx_pulse.

namespace asio_pulse::scx {

/// One line of printable ASCII: all other bytes as \xNN.
std::string printable(std::string_view text);

/// A JSON object on one line, without control characters. Those from U+007F to U+009F, which JSON
/// permits in strings, are escaped.
///
/// \par Errors  std::runtime_error if `text` is not a JSON object.
std::string printable_json(std::string_view text);

}  // namespace asio_pulse::scx
