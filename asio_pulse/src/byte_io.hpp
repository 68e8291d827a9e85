// SPDX-License-Identifier: BSL-1.0
//
// Numbers, texts and lists as little-endian bytes, and back again from bytes that nobody vouches
// for.

#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

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
  void text(std::string_view value) {
    value = value.substr(0, longest_text);
    number(static_cast<std::uint32_t>(value.size()));
    bytes_.append(value);
  }
  /// A negative one, which is nobody's intention, becomes zero.
  void duration(std::chrono::nanoseconds value) {
    number(static_cast<std::uint64_t>(std::max<std::chrono::nanoseconds::rep>(value.count(), 0)));
  }
  void raw(std::string_view bytes) { bytes_.append(bytes); }

  [[nodiscard]] std::string& bytes() noexcept { return bytes_; }

 private:
  std::string bytes_;
};

/// Keeps the first fault, after which everything reads as zero or empty. What it is asked to read
/// is never larger than what is left.
class byte_reader {
 public:
  /// \param what  The first word of each fault.
  byte_reader(std::string_view bytes, std::string_view what) : left_(bytes), what_(what) {}

  [[nodiscard]] bool ok() const noexcept { return fault_.empty(); }
  [[nodiscard]] const std::string& fault() const noexcept { return fault_; }
  [[nodiscard]] std::size_t left() const noexcept { return left_.size(); }

  /// From now on a fault's field is that of an element; empty: of no list.
  void element(std::string_view list, std::size_t index = 0) noexcept {
    list_ = list;
    index_ = index;
  }

  void fail(std::string_view field, std::string_view rule) {
    if (!ok()) return;
    const std::string where = list_.empty() ? std::string() : fmt::format("{}[{}].", list_, index_);
    fault_ = fmt::format("{}: {}{}: {}", what_, where, field, rule);
    left_ = {};
  }

  template <std::unsigned_integral U>
  [[nodiscard]] U number(std::string_view field) {
    const std::string_view bytes = take(sizeof(U), field);
    U value = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      value = static_cast<U>(value | U{static_cast<unsigned char>(bytes[i])} << (8 * i));
    }
    return value;
  }
  [[nodiscard]] std::string text(std::string_view field) {
    const auto length = number<std::uint32_t>(field);
    if (length > byte_writer::longest_text) {
      fail(field,
           fmt::format("is {} bytes long, and may be {}", length, byte_writer::longest_text));
    }
    return std::string(take(ok() ? length : 0, field));
  }
  [[nodiscard]] std::chrono::nanoseconds duration(std::string_view field) {
    const auto value = static_cast<std::int64_t>(number<std::uint64_t>(field));
    if (value < 0) fail(field, "must not be negative");
    return std::chrono::nanoseconds{std::max<std::int64_t>(value, 0)};
  }
  [[nodiscard]] bool flag(std::string_view field) { return choice(field, 1) != 0; }
  /// A byte that is at most `most`.
  [[nodiscard]] std::uint8_t choice(std::string_view field, std::uint8_t most) {
    const auto value = number<std::uint8_t>(field);
    if (value > most) fail(field, fmt::format("must be at most {} (got {})", most, value));
    return ok() ? value : std::uint8_t{0};
  }
  /// How many elements follow, of which each takes at least `least` bytes.
  template <std::unsigned_integral U>
  [[nodiscard]] std::size_t count(std::string_view field, std::string_view noun, std::size_t least,
                                  std::uint64_t most) {
    const std::uint64_t value = number<U>(field);
    if (value > most) {
      fail(field, fmt::format("{} {} are more than the {} that are allowed", value, noun, most));
    } else if (value > left_.size() / least) {
      fail(field, fmt::format("{} {} do not fit in the {} bytes that are left", value, noun,
                              left_.size()));
    }
    return ok() ? static_cast<std::size_t>(value) : 0;
  }
  /// Exactly so many bytes, or none.
  [[nodiscard]] std::string_view take(std::uint64_t size, std::string_view field) {
    if (size > left_.size()) {
      fail(field,
           fmt::format("{} bytes do not fit in the {} bytes that are left", size, left_.size()));
      return {};
    }
    const std::string_view bytes = left_.substr(0, static_cast<std::size_t>(size));
    left_.remove_prefix(bytes.size());
    return bytes;
  }

 private:
  std::string_view left_;
  std::string_view what_;
  std::string_view list_{};
  std::size_t index_ = 0;
  std::string fault_{};
};

}  // namespace asio_pulse::detail
