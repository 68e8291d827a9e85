// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

/// Makes any bytes valid, printable UTF-8 on one line, without an unescaped double quote. Control
/// characters, invalid bytes and code points that reorder or break a line are escaped. The result
/// is at most `max_bytes` long, not counting a note of how much was cut.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string escaped(std::string_view text, std::size_t max_bytes);

}  // namespace asio_pulse::detail
