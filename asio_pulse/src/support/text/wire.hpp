// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "byte_io.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace asio_pulse::detail {

/// The most elements of this type that a list may have. Specialised for types with shorter lists.
template <class T>
inline constexpr std::size_t most_elements = 4096;

/// The last enumerator of an enumeration, whose first is zero.
template <class T>
constexpr T last_enumerator() = delete;

/// Writes values. One function names the members of a type in order, and serves both directions:
///
///     template <class Stream> void members(Stream& s, T& value) { s(value.a, value.b); }
///
/// `Writer` is byte_writer, or replaces some of its functions: a test writes what no honest process
/// does.
template <class Writer>
class basic_wire_out {
 public:
  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }
  [[nodiscard]] std::string take() { return std::move(to_.bytes()); }

 private:
  template <class T>
  void one(T& value) {
    if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      to_.number(static_cast<std::uint64_t>(value));
    } else {
      members(*this, value);
    }
  }
  void one(std::chrono::nanoseconds& d) { to_.duration(d); }
  void one(std::chrono::system_clock::time_point& t) {
    to_.time(std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()));
  }
  void one(std::string& s) { to_.text(s); }
  template <class T>
  void one(std::vector<T>& list) {
    to_.number(std::uint64_t{list.size()});
    for (T& value : list) one(value);
  }

  Writer to_;
};
using wire_out = basic_wire_out<byte_writer>;

/// Reads values. These are errors: a number that does not fit its member, an unknown enumerator, a
/// duration or a time out of range, a list that is too long.
class wire_in {
 public:
  explicit wire_in(std::string_view bytes) : from_(bytes, "metrics") {}

  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }
  /// Whether everything was read without error, and nothing is left.
  [[nodiscard]] bool complete() const noexcept { return from_.ok() && from_.left() == 0; }

 private:
  template <class T>
  void one(T& value) {
    if constexpr (std::is_enum_v<T>) {
      const std::uint64_t number = next();
      const bool known = number <= static_cast<std::uint64_t>(last_enumerator<T>());
      if (!known) from_.fail("enumerator", "is none");
      value = known ? static_cast<T>(number) : T{};
    } else if constexpr (std::is_integral_v<T>) {
      static_assert(std::is_unsigned_v<T>);
      const std::uint64_t number = next();
      value = static_cast<T>(number);
      if (std::uint64_t{value} != number) from_.fail("number", "is too large");
    } else {
      members(*this, value);
    }
  }
  void one(std::chrono::nanoseconds& d) { d = from_.duration("duration"); }
  void one(std::chrono::system_clock::time_point& t) {
    t = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(from_.time("time")));
  }
  void one(std::string& s) { s = from_.text("text"); }
  template <class T>
  void one(std::vector<T>& list) {
    constexpr std::size_t least = 4;  // the size of an empty text, the shortest element
    const std::size_t n = from_.count<std::uint64_t>("list", "elements", least, most_elements<T>);
    list.clear();
    for (std::size_t i = 0; i < n && from_.ok(); ++i) one(list.emplace_back());
  }

  std::uint64_t next() { return from_.number<std::uint64_t>("number"); }

  byte_reader from_;
};

}  // namespace asio_pulse::detail
