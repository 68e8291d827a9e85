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
/// The protocol between a process and an inspector. They use a unix socket with the abstract name
/// "\0asio_pulse/PID", which leaves no file behind.
///
///     inspector   asio-pulse/3 metrics TASKS SITES GROUPS\n    (limits for each context)
///                 asio-pulse/3 trace MILLISECONDS CONTEXT\n
///                 asio-pulse/3 change CONTEXT enforce\n
///                 asio-pulse/3 change CONTEXT shadow\n
///                 asio-pulse/3 change CONTEXT weight WEIGHT GROUP\n
///                 asio-pulse/3 change CONTEXT undo\n
///     process     asio-pulse/3 ok BYTES\n    (and that many bytes: encode(process_metrics),
///                                             asio_pulse::encode(recording), or a sentence)
///                 asio-pulse/3 error SENTENCE\n    (and closes the connection)
///
/// With 0 for MILLISECONDS, the answer is what the rings of a process contain that traces all the
/// time. CONTEXT is a context_metrics::number; 0 stands for the context with the most events, and for a
/// change for the only context that can be changed. GROUP is encode_word() of the path of a group. There
/// is one request at a time; the next one may follow when the answer was read. A process answers
/// "error" to requests that it does not know, to other users, and if too many inspectors are
/// connected; in the latter two cases it does so before it has read anything.

namespace asio_pulse::detail {

inline constexpr std::string_view protocol = "asio-pulse/3";
inline constexpr std::string_view socket_prefix = "asio_pulse/";
#if defined(__linux__)
/// The address of process `pid`. An abstract name begins with a zero byte, and exists as long as
/// the socket. Twenty digits fit.
struct inspect_address {
  explicit inspect_address(std::uint64_t pid) noexcept;
  [[nodiscard]] const sockaddr* get() const noexcept {
    return reinterpret_cast<const sockaddr*>(&name);
  }
  sockaddr_un name{};
  socklen_t length = 0;
};
#endif

/// Parses a decimal number. Returns false if the text contains anything else.
[[nodiscard]] bool parse_number(std::string_view text, std::uint64_t& n) noexcept;

inline constexpr std::size_t longest_request = 4096;
/// The longest answers that an inspector accepts, for a trace, for metrics and for a change.
inline constexpr std::size_t longest_answer = std::size_t{256} << 20;
inline constexpr std::size_t longest_metrics = std::size_t{32} << 20;
inline constexpr std::size_t longest_sentence = 4096;

/// Any bytes as one word of printable ASCII: spaces, "%" and bytes that are not printable ASCII are
/// written as "%" and two hexadecimal digits. No bytes are "%".
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string encode_word(std::string_view text);
/// Returns false if the word is not what encode_word() makes.
[[nodiscard]] bool decode_word(std::string_view word, std::string& text);

/// The most contexts of a process in an answer.
inline constexpr std::size_t most_contexts = 4096;

[[nodiscard]] std::string encode(const process_metrics&);
/// Decodes an answer. Returns false if it is malformed. All accepted values are in range: durations
/// are not negative, sums of a few of them and differences of times do not overflow, enumerators
/// exist, and lists are not longer than the library makes them.
[[nodiscard]] bool decode(std::string_view bytes, process_metrics& to);

}  // namespace asio_pulse::detail
