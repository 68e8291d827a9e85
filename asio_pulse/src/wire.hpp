// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "byte_io.hpp"

namespace asio_pulse::detail {

/// One function names the members of a type in order, and serves both directions.
///
///     template <class Stream> void members(Stream& s, T& value) { s(value.a, value.b); }
class wire_out {
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
  template <class Rep, class Period>
  void one(std::chrono::duration<Rep, Period>& d) {
    to_.number(static_cast<std::uint64_t>(d.count()));
  }
  void one(std::chrono::system_clock::time_point& t) {
    to_.number(static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count()));
  }
  void one(std::string& s) { to_.text(s); }
  template <class T>
  void one(std::vector<T>& list) {
    to_.number(std::uint64_t{list.size()});
    for (T& value : list) one(value);
  }

  byte_writer to_;
};

/// As above. An enumerator that is none is for the caller to find: to_string() knows.
class wire_in {
 public:
  explicit wire_in(std::string_view bytes) : from_(bytes, "metrics") {}

  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }
  /// Everything was there, and nothing else.
  [[nodiscard]] bool complete() const noexcept { return from_.ok() && from_.left() == 0; }

 private:
  template <class T>
  void one(T& value) {
    if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      value = static_cast<T>(next());
    } else {
      members(*this, value);
    }
  }
  template <class Rep, class Period>
  void one(std::chrono::duration<Rep, Period>& d) {
    d = std::chrono::duration<Rep, Period>(static_cast<Rep>(next()));
  }
  void one(std::chrono::system_clock::time_point& t) {
    t = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::nanoseconds(static_cast<std::int64_t>(next()))));
  }
  void one(std::string& s) { s = from_.text("text"); }
  template <class T>
  void one(std::vector<T>& list) {
    constexpr std::size_t least = 4;  // an empty text; nothing is shorter
    const std::size_t n =
        from_.count<std::uint64_t>("list", "elements", least, std::size_t{1} << 24);
    list.clear();
    for (std::size_t i = 0; i < n && from_.ok(); ++i) one(list.emplace_back());
  }

  std::uint64_t next() { return from_.number<std::uint64_t>("number"); }

  byte_reader from_;
};

}  // namespace asio_pulse::detail
