// SPDX-License-Identifier: BSL-1.0
//
// Writes numbers, texts and lists as little-endian bytes, and reads them from bytes that are not
// trusted.

#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

/// 36 years, which is more than any process has run or used. Sums of seven such durations are still
/// in range.
inline constexpr std::chrono::nanoseconds longest_duration{std::int64_t{1} << 60};
/// Times of day from 1824 to 2116: their differences are in range.
inline constexpr std::chrono::nanoseconds farthest_time{std::int64_t{1} << 62};

class byte_writer {
 public:
  /// A longer text is cut.
  static constexpr std::size_t longest_text = 65535;

  template <std::unsigned_integral U>
  void number(U value) {
    for (std::size_t i = 0; i < sizeof(U); ++i) {
      bytes_.push_back(static_cast<char>(static_cast<unsigned char>(value >> (8 * i))));
    }
  }
  void text(std::string_view value);
  /// A value out of range becomes the nearest one that is in range.
  void duration(std::chrono::nanoseconds value);
  void time(std::chrono::nanoseconds since_epoch);
  void raw(std::string_view bytes) { bytes_.append(bytes); }

  [[nodiscard]] std::string& bytes() noexcept { return bytes_; }

 private:
  std::string bytes_;
};

/// Keeps the first fault; after that everything reads as zero or empty. Never reads beyond the end.
class byte_reader {
 public:
  /// \param what  The first word of each error message.
  byte_reader(std::string_view bytes, std::string_view what) : left_(bytes), what_(what) {}

  [[nodiscard]] bool ok() const noexcept { return fault_.empty(); }
  [[nodiscard]] const std::string& fault() const noexcept { return fault_; }
  [[nodiscard]] std::size_t left() const noexcept { return left_.size(); }

  /// Makes later error messages name this element of a list; empty for no list.
  void element(std::string_view list, std::size_t index = 0) noexcept {
    list_ = list;
    index_ = index;
  }

  void fail(std::string_view field, std::string_view rule);

  template <std::unsigned_integral U>
  [[nodiscard]] U number(std::string_view field) {
    const std::string_view bytes = take(sizeof(U), field);
    U value = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      value = static_cast<U>(value | U{static_cast<unsigned char>(bytes[i])} << (8 * i));
    }
    return value;
  }
  [[nodiscard]] std::string text(std::string_view field);
  [[nodiscard]] std::chrono::nanoseconds duration(std::string_view field);
  /// A time since the epoch of the system clock.
  [[nodiscard]] std::chrono::nanoseconds time(std::string_view field);
  [[nodiscard]] bool flag(std::string_view field) { return choice(field, 1) != 0; }
  /// A byte that is at most `most`.
  [[nodiscard]] std::uint8_t choice(std::string_view field, std::uint8_t most);
  /// The number of elements that follow, each of which takes at least `least` bytes.
  template <std::unsigned_integral U>
  [[nodiscard]] std::size_t count(std::string_view field, std::string_view noun, std::size_t least,
                                  std::uint64_t most) {
    return checked_count(number<U>(field), field, noun, least, most);
  }
  /// Exactly this many bytes, or none.
  [[nodiscard]] std::string_view take(std::uint64_t size, std::string_view field);

 private:
  [[nodiscard]] std::size_t checked_count(std::uint64_t value, std::string_view field,
                                          std::string_view noun, std::size_t least,
                                          std::uint64_t most);

  std::string_view left_;
  std::string_view what_;
  std::string_view list_{};
  std::size_t index_ = 0;
  std::string fault_{};
};

}  // namespace asio_pulse::detail
