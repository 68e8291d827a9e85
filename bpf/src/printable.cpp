// SPDX-License-Identifier: BSL-1.0
#include "printable.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <cstddef>
#include <stdexcept>

namespace asio_pulse::scx {

namespace json = boost::json;

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string printable_json(std::string_view text) {
  boost::system::error_code wrong;
  const json::value parsed = json::parse(json::string_view(text.data(), text.size()), wrong);
  if (wrong || !parsed.is_object()) throw std::runtime_error("the answer is not a JSON object");
  // In UTF-8 these characters are 0x7f, and 0xc2 with a byte from 0x80 to 0x9f.
  const std::string line(json::serialize(parsed));
  std::string out;
  out.reserve(line.size());
  for (std::size_t i = 0; i < line.size(); ++i) {
    const auto byte = static_cast<unsigned char>(line[i]);
    const auto next = i + 1 < line.size() ? static_cast<unsigned char>(line[i + 1]) : 0U;
    if (byte == 0x7f) {
      out += "\\u007f";
    } else if (byte == 0xc2 && next >= 0x80 && next <= 0x9f) {
      out += fmt::format("\\u{:04x}", next);
      ++i;
    } else {
      out += line[i];
    }
  }
  return out;
}

}  // namespace asio_pulse::scx
