// SPDX-License-Identifier: BSL-1.0
#include "byte_io.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace asio_pulse::detail {

void byte_writer::text(std::string_view value) {
  value = value.substr(0, longest_text);
  number(static_cast<std::uint32_t>(value.size()));
  bytes_.append(value);
}

void byte_writer::duration(std::chrono::nanoseconds value) {
  number(static_cast<std::uint64_t>(
      std::clamp(value, std::chrono::nanoseconds{0}, longest_duration).count()));
}

void byte_writer::time(std::chrono::nanoseconds since_epoch) {
  number(
      static_cast<std::uint64_t>(std::clamp(since_epoch, -farthest_time, farthest_time).count()));
}

void byte_reader::fail(std::string_view field, std::string_view rule) {
  if (!ok()) return;
  const std::string where = list_.empty() ? std::string() : fmt::format("{}[{}].", list_, index_);
  fault_ = fmt::format("{}: {}{}: {}", what_, where, field, rule);
  left_ = {};
}

std::string byte_reader::text(std::string_view field) {
  const auto length = number<std::uint32_t>(field);
  if (length > byte_writer::longest_text) {
    fail(field,
         fmt::format("is {} bytes long; the limit is {}", length, byte_writer::longest_text));
  }
  return std::string(take(ok() ? length : 0, field));
}

std::chrono::nanoseconds byte_reader::duration(std::string_view field) {
  const std::chrono::nanoseconds value{static_cast<std::int64_t>(number<std::uint64_t>(field))};
  if (value.count() < 0) fail(field, "must not be negative");
  if (value > longest_duration) fail(field, "must be at most 2^60 ns");
  return ok() ? value : std::chrono::nanoseconds{0};
}

std::chrono::nanoseconds byte_reader::time(std::string_view field) {
  const std::chrono::nanoseconds value{static_cast<std::int64_t>(number<std::uint64_t>(field))};
  if (value < -farthest_time || value > farthest_time) {
    fail(field, "must be within 2^62 ns of 1970");
  }
  return ok() ? value : std::chrono::nanoseconds{0};
}

std::uint8_t byte_reader::choice(std::string_view field, std::uint8_t most) {
  const auto value = number<std::uint8_t>(field);
  if (value > most) fail(field, fmt::format("must be at most {} (got {})", most, value));
  return ok() ? value : std::uint8_t{0};
}

std::string_view byte_reader::take(std::uint64_t size, std::string_view field) {
  if (size > left_.size()) {
    fail(field,
         fmt::format("{} bytes do not fit in the {} bytes that are left", size, left_.size()));
    return {};
  }
  const std::string_view bytes = left_.substr(0, static_cast<std::size_t>(size));
  left_.remove_prefix(bytes.size());
  return bytes;
}

std::size_t byte_reader::checked_count(std::uint64_t value, std::string_view field,
                                       std::string_view noun, std::size_t least,
                                       std::uint64_t most) {
  if (value > most) {
    fail(field, fmt::format("{} {} are more than the {} that are allowed", value, noun, most));
  } else if (value > left_.size() / least) {
    fail(field,
         fmt::format("{} {} do not fit in the {} bytes that are left", value, noun, left_.size()));
  }
  return ok() ? static_cast<std::size_t>(value) : 0;
}

}  // namespace asio_pulse::detail
