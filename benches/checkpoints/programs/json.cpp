// SPDX-License-Identifier: BSL-1.0
//
// Boost.JSON: parses a document of 400 KB, looks into it, and writes it.
#include "program.hpp"

#include <boost/json/src.hpp>

#include <string>

namespace {

std::string document() {
  std::uint32_t x = 12345;
  const auto next = [&x] { return x = x * 1664525 + 1013904223, x >> 8; };
  std::string text = "[";
  for (int i = 0; i < 4000; ++i) {
    const std::uint32_t id = next(), price = next() % 1000, width = next() % 100;
    text +=
        (i != 0 ? ",{\"id\":" : "{\"id\":") + std::to_string(id) + ",\"name\":\"item " +
        std::to_string(i) + "\",\"price\":" + std::to_string(price) +
        ".25,\"tags\":[\"a\",\"b\\n\\u00e9\",null,true],\"size\":{\"w\":" + std::to_string(width) +
        "}}";
  }
  return text + "]";
}

}  // namespace

std::uint64_t work() {
  static const std::string text = document();
  const boost::json::value value = boost::json::parse(text);
  std::uint64_t sum = 0;
  for (const boost::json::value& item : value.as_array()) {
    sum += static_cast<std::uint64_t>(item.at("size").at("w").as_int64());
    sum += item.at("name").as_string().size();
  }
  return sum + boost::json::serialize(value).size();
}
