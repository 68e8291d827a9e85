// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(__linux__)
#include <sys/socket.h>
#include <sys/un.h>
#endif

#include <asio_pulse/metrics.hpp>
#include <cstdint>
#include <string>
#include <string_view>

/// \file
/// What a process and an inspector say to each other, over a unix socket with an abstract name, so
/// that nothing is left behind: "\0asio_pulse/PID".
///
///     inspector   asio-pulse/1 metrics TASKS SITES\n
///                 asio-pulse/1 trace MILLISECONDS\n
///     process     asio-pulse/1 ok BYTES\n, and so many bytes
///                 asio-pulse/1 error SENTENCE\n
///
/// The process says "asio-pulse/1 error ..." to whatever it does not know, and closes.

namespace asio_pulse::detail {

inline constexpr std::string_view protocol = "asio-pulse/1";
inline constexpr std::string_view socket_prefix = "asio_pulse/";
#if defined(__linux__)
/// Of process `pid`. An abstract name: it begins with a zero byte, and lasts as long as the socket.
/// Twenty digits fit.
struct inspect_address {
  explicit inspect_address(std::uint64_t pid) noexcept;
  [[nodiscard]] const sockaddr* get() const noexcept {
    return reinterpret_cast<const sockaddr*>(&name);
  }
  sockaddr_un name{};
  socklen_t length = 0;
};
#endif

/// All of `text` is a decimal number.
[[nodiscard]] bool parse_number(std::string_view text, std::uint64_t& n) noexcept;

inline constexpr std::size_t longest_request = 128;
inline constexpr std::size_t longest_answer = std::size_t{256} << 20;

[[nodiscard]] std::string encode(const process_metrics&);
/// False: it is none.
[[nodiscard]] bool decode(std::string_view bytes, process_metrics& to);

}  // namespace asio_pulse::detail
