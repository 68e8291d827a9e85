// SPDX-License-Identifier: BSL-1.0
#include "escaped.hpp"

#include "utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace asio_pulse::detail {
namespace {

// Code points that are invisible, break a line or reverse the direction of the text. With them a
// name could hide or forge a part of the line.
bool deceptive(char32_t c) noexcept {
  struct range {
    char32_t first, last;
  };
  static constexpr range ranges[] = {
      {0x80, 0x9f},     {0xad, 0xad},     {0x061c, 0x061c}, {0x115f, 0x1160},   {0x180e, 0x180e},
      {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0x3164, 0x3164},   {0xe000, 0xf8ff},
      {0xfdd0, 0xfdef}, {0xfeff, 0xfeff}, {0xfff0, 0xffff}, {0xe0000, 0xe0fff}, {0xf0000, 0x10ffff},
  };
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](range r) { return c >= r.first && c <= r.last; });
}

// The largest piece is "\u{10ffff}", 10 bytes.
void append_escaped(fmt::memory_buffer& piece, std::string_view bytes, code_point c) {
  const auto out = std::back_inserter(piece);
  if (c.length == 0) {
    fmt::format_to(out, "\\x{:02x}", static_cast<unsigned char>(bytes[0]));
  } else if (c.value == U'"' || c.value == U'\\') {
    fmt::format_to(out, "\\{}", bytes[0]);
  } else if (c.value == U'\n') {
    fmt::format_to(out, "\\n");
  } else if (c.value == U'\t') {
    fmt::format_to(out, "\\t");
  } else if (c.value == U'\r') {
    fmt::format_to(out, "\\r");
  } else if (c.value < 0x20 || c.value == 0x7f) {
    fmt::format_to(out, "\\x{:02x}", static_cast<unsigned>(c.value));
  } else if (deceptive(c.value)) {
    fmt::format_to(out, "\\u{{{:x}}}", static_cast<std::uint32_t>(c.value));
  } else {
    piece.append(bytes.data(), bytes.data() + c.length);
  }
}

}  // namespace

std::string escaped(std::string_view text, std::size_t max_bytes) {
  std::string result;
  result.reserve(std::min(max_bytes, text.size()) + 24);
  fmt::memory_buffer piece;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    const code_point c = first_code_point(rest);
    piece.clear();
    append_escaped(piece, rest, c);
    if (piece.size() > max_bytes - result.size()) {
      break;
    }
    result.append(piece.data(), piece.size());
    at += std::max<std::size_t>(c.length, 1);
  }
  if (at < text.size()) {
    result += fmt::format("...(+{} bytes)", text.size() - at);
  }
  return result;
}

}  // namespace asio_pulse::detail
