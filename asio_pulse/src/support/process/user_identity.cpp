// SPDX-License-Identifier: BSL-1.0
#include "user_identity.hpp"

#if defined(__linux__)

#include "files/descriptor.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <span>

namespace asio_pulse::detail {
namespace {

constexpr uid_t usual_unmapped = 65534;
// The number of valid user ids: the last one of 2^32 is not valid.
constexpr std::uint64_t every_user = 0xffffffff;

// Reads as much of a file as fits into the buffer; empty if it cannot be read.
std::string_view read_into(std::span<char> buffer, const char* path) noexcept {
  const descriptor opened(::open(path, O_RDONLY | O_CLOEXEC));
  if (!opened) return {};
  const ssize_t n = ::read(opened.get(), buffer.data(), buffer.size());
  return {buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

bool take_number(std::string_view& text, std::uint64_t& value) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

}  // namespace

bool maps_every_user(std::string_view map) noexcept {
  std::uint64_t first = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  return take_number(map, first) && take_number(map, outside) && take_number(map, count) &&
         first == 0 && count >= every_user;
}

std::optional<uid_t> unmapped_user() noexcept {
  std::array<char, 128> buffer;
  if (maps_every_user(read_into(buffer, "/proc/self/uid_map"))) return std::nullopt;
  std::string_view text = read_into(buffer, "/proc/sys/kernel/overflowuid");
  std::uint64_t number = 0;
  return take_number(text, number) ? static_cast<uid_t>(number) : usual_unmapped;
}

bool is_own_user(uid_t uid) noexcept {
  if (uid != ::geteuid()) return false;
  return uid == 0 || unmapped_user() != uid;
}

std::optional<uid_t> effective_user_in(std::string_view status) noexcept {
  // Only at the start of a line. Line ends in the name, which is in the first line, are escaped.
  constexpr std::string_view key = "\nUid:";
  const std::size_t at = status.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  status.remove_prefix(at + key.size());
  std::uint64_t real = 0;
  std::uint64_t effective = 0;
  if (!take_number(status, real) || !take_number(status, effective)) return std::nullopt;
  return static_cast<uid_t>(effective);
}

std::optional<uid_t> effective_user_of(std::uint64_t pid) noexcept {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%llu/status",
                static_cast<unsigned long long>(pid));
  std::array<char, 2048> text;
  return effective_user_in(read_into(text, path.data()));
}

}  // namespace asio_pulse::detail

#endif
