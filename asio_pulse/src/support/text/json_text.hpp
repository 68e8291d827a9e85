// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "utf8.hpp"

#include <fmt/core.h>

#include <string>
#include <string_view>

namespace asio_pulse::detail {

/// Appends any bytes as a JSON string (RFC 8259) with quotes. Each invalid byte becomes U+FFFD. The
/// control characters from U+007F to U+009F are escaped as well, and so are U+2028 and U+2029,
/// which end a line in JavaScript.
inline void append_json(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const code_point c = first_code_point(text);
    if (c.length == 0) {
      out += "\xef\xbf\xbd";
    } else if (c.value == U'"' || c.value == U'\\') {
      out += '\\';
      out += text[0];
    } else if (c.value < 0x20 || (c.value >= 0x7f && c.value <= 0x9f) || c.value == 0x2028 ||
               c.value == 0x2029) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c.value));
    } else {
      out += text.substr(0, c.length);
    }
    text.remove_prefix(c.length == 0 ? 1 : c.length);
  }
  out += '"';
}

}  // namespace asio_pulse::detail
