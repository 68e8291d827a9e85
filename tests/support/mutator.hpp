// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// \file
/// Makes the data of a hostile peer: changes values, member by member, and bytes.

namespace pulse_test {

/// Random numbers that are the same everywhere for the same seed.
class chance {
 public:
  explicit chance(std::uint64_t seed) : engine_(seed) {}
  /// Below `n`.
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  bool one_in(std::size_t n) { return below(n) == 0; }
  std::uint64_t bits() { return engine_(); }

  /// Numbers at which arithmetic often fails, and some ordinary ones.
  std::uint64_t number() {
    constexpr auto most = std::numeric_limits<std::uint64_t>::max();
    constexpr std::uint64_t sign = std::uint64_t{1} << 63;
    constexpr std::uint64_t edges[] = {0, 1, 2, most, most - 1, sign, sign - 1, sign + 1};
    switch (below(4)) {
      case 0:
        return edges[below(std::size(edges))];
      case 1:  // beside a power of two
        return (std::uint64_t{1} << below(64)) + below(3) - 1;
      case 2:
        return bits() >> below(64);
      default:
        return below(1000);
    }
  }
  std::string text() {
    static constexpr std::string_view pieces[] = {
        "",       "a",         "\x1b[2J", "\xff", "\xc3",    "\xf0\x9f\x98\x80",
        "\u4e16", "\u0301",    "\u202e",  "\"",   "\\",      "\n",
        "<",      "operator<", "::",      "(",    "#0 f at", " at ",
        "#12 ",   "(lambda)",  "%s",      "{}",   "\x00x",   "\u2028"};
    std::string made;
    for (std::size_t n = below(8); n != 0; --n) made += pieces[below(std::size(pieces))];
    if (one_in(20)) made.append(below(70'000), 'A');
    return made;
  }

 private:
  std::mt19937_64 engine_;
};

/// Called with the members of a type, as the streams of wire.hpp are: changes about one in `rarity`
/// of all numbers, texts and lists below it.
class mutator {
 public:
  mutator(chance& by, std::size_t rarity) : by_(by), rarity_(rarity) {}

  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }

 private:
  template <class T>
  void one(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      if (by_.one_in(rarity_)) value = !value;
    } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      if (by_.one_in(rarity_)) value = static_cast<T>(by_.number());
    } else {
      members(*this, value);
    }
  }
  void one(std::chrono::nanoseconds& d) {
    if (by_.one_in(rarity_)) {
      d = std::chrono::nanoseconds{static_cast<std::int64_t>(by_.number())};
    }
  }
  void one(std::chrono::system_clock::time_point& t) {
    if (by_.one_in(rarity_)) {
      t = std::chrono::system_clock::time_point{
          std::chrono::nanoseconds{static_cast<std::int64_t>(by_.number())}};
    }
  }
  void one(std::string& s) {
    if (by_.one_in(rarity_)) s = by_.text();
  }
  template <class T>
  void one(std::vector<T>& list) {
    for (T& value : list) one(value);
    if (!by_.one_in(rarity_)) return;
    switch (by_.below(5)) {
      case 0:
        list.clear();
        break;
      case 1:
        list.emplace_back();
        break;
      case 2:
        if (!list.empty())
          list.erase(list.begin() + static_cast<std::ptrdiff_t>(by_.below(list.size())));
        break;
      case 3:
        if (!list.empty()) std::swap(list.front(), list[by_.below(list.size())]);
        break;
      default:  // the same over and over again
        if (!list.empty()) {
          const T again = list[by_.below(list.size())];
          list.insert(list.end(), by_.below(70), again);
        }
    }
  }

  chance& by_;
  std::size_t rarity_;
};

/// Bytes changed: whole little-endian words for numbers at which arithmetic breaks, single bits,
/// pieces cut out and doubled. From `from` on.
inline void mutate(std::string& bytes, chance& by, std::size_t from = 0) {
  for (std::size_t n = 1 + by.below(4); n != 0 && bytes.size() > from; --n) {
    const std::size_t at = from + by.below(bytes.size() - from);
    const std::size_t left = bytes.size() - at;
    switch (by.below(8)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << by.below(8)));
        break;
      case 1:
        bytes.resize(at);
        break;
      case 2:
        bytes.erase(at, by.below(std::min<std::size_t>(left, 64)));
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, by.below(std::min<std::size_t>(left, 64))));
        break;
      default: {
        const std::uint64_t word = by.number();
        const std::size_t width = std::size_t{1} << by.below(4);
        for (std::size_t i = 0; i < width && i < left; ++i) {
          bytes[at + i] = static_cast<char>(word >> (8 * i));
        }
      }
    }
  }
}

}  // namespace pulse_test
