// SPDX-License-Identifier: BSL-1.0
//
// zlib: compresses 600 KB of words at two levels, and restores them.
#include "program.hpp"

#include <zlib.h>

#include <string>
#include <vector>

namespace {

std::string words() {
  std::uint32_t x = 7;
  const auto next = [&x] { return x = x * 1664525 + 1013904223, x >> 8; };
  std::vector<std::string> list(2000);
  for (std::string& w : list) {
    const std::uint32_t length = 2 + next() % 9;
    for (std::uint32_t i = 0; i < length; ++i) w += static_cast<char>('a' + next() % 26);
  }
  std::string text;
  while (text.size() < 600'000) {
    text += list[(next() % list.size()) * (next() % list.size()) / list.size()];
    text += next() % 12 == 0 ? ".\n" : " ";
  }
  return text;
}

}  // namespace

std::uint64_t work() {
  static const std::string text = words();
  std::uint64_t sum = 0;
  for (const int level : {1, 6}) {
    std::vector<Bytef> packed(compressBound(text.size()));
    uLongf size = packed.size();
    if (compress2(packed.data(), &size, reinterpret_cast<const Bytef*>(text.data()), text.size(),
                  level) != Z_OK)
      return 0;
    std::string back(text.size(), '\0');
    uLongf length = back.size();
    if (uncompress(reinterpret_cast<Bytef*>(back.data()), &length, packed.data(), size) != Z_OK ||
        back != text)
      return 0;
    sum += size + crc32(0, packed.data(), static_cast<uInt>(size));
  }
  return sum;
}
