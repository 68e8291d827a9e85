// SPDX-License-Identifier: BSL-1.0
#pragma once

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
  const auto byte = [text](std::size_t i) {
    return static_cast<unsigned char>(i < text.size() ? text[i] : '\0');
  };
  const unsigned first = byte(0);
  if (first < 0x80) {
    return {static_cast<char32_t>(first), 1};
  }
  std::size_t length = 0;
  char32_t value = 0;
  char32_t least = 0;
  if (first >= 0xc2 && first <= 0xdf) {
    length = 2, value = first & 0x1fU, least = 0x80;
  } else if (first >= 0xe0 && first <= 0xef) {
    length = 3, value = first & 0x0fU, least = 0x800;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4, value = first & 0x07U, least = 0x10000;
  } else {
    return {0, 0};
  }
  for (std::size_t i = 1; i < length; ++i) {
    const unsigned next = byte(i);
    if ((next & 0xc0U) != 0x80) {
      return {0, 0};
    }
    value = (value << 6) | (next & 0x3fU);
  }
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  return value < least || value > 0x10ffff || surrogate ? code_point{0, 0}
                                                        : code_point{value, length};
}

}  // namespace asio_pulse::detail
