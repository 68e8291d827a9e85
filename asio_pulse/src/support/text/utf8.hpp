// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/locale/utf.hpp>

#include <cstddef>
#include <string_view>

namespace asio_pulse::detail {

struct code_point {
  char32_t value;
  std::size_t length;  // in bytes; 0: not valid UTF-8
};

/// The first code point of a non-empty text. Refuses overlong forms, surrogates and what is above
/// U+10FFFF (RFC 3629).
inline code_point first_code_point(std::string_view text) noexcept {
  namespace utf = boost::locale::utf;
  const char* at = text.data();
  const utf::code_point c = utf::utf_traits<char>::decode(at, text.data() + text.size());
  if (c == utf::illegal || c == utf::incomplete) return {0, 0};
  return {static_cast<char32_t>(c), static_cast<std::size_t>(at - text.data())};
}

}  // namespace asio_pulse::detail
