// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string_view>

#include "utf8.hpp"

namespace asio_pulse::detail {

/// Appends any bytes as a JSON string (RFC 8259), with its quotes. Each byte that is no UTF-8
/// becomes U+FFFD. Escaped are also the control characters from U+007F to U+009F, and U+2028 and
/// U+2029, which end a line in JavaScript.
inline void append_json(fmt::memory_buffer& out, std::string_view text) {
  const auto append = [&out](std::string_view bytes) {
    out.append(bytes.data(), bytes.data() + bytes.size());
  };
  append("\"");
  while (!text.empty()) {
    const code_point c = first_code_point(text);
    if (c.length == 0) {
      append("\xef\xbf\xbd");
    } else if (c.value == U'"' || c.value == U'\\') {
      append("\\");
      append(text.substr(0, 1));
    } else if (c.value < 0x20 || (c.value >= 0x7f && c.value <= 0x9f) || c.value == 0x2028 ||
               c.value == 0x2029) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(c.value));
    } else {
      append(text.substr(0, c.length));
    }
    text.remove_prefix(c.length == 0 ? 1 : c.length);
  }
  append("\"");
}

}  // namespace asio_pulse::detail
