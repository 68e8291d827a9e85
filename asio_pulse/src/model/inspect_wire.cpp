// SPDX-License-Identifier: BSL-1.0
#include "inspect_wire.hpp"

#include "metrics_members.hpp"
#include "text/wire.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <system_error>

namespace asio_pulse::detail {

static_assert(most_elements<context_metrics> == most_contexts);
// The library keeps the last 16 stalls, with 32 frames each.
template <>
inline constexpr std::size_t most_elements<stall_metrics> = 64;
template <>
inline constexpr std::size_t most_elements<stack_frame> = 256;
// A shard keeps the last 8.
template <>
inline constexpr std::size_t most_elements<shard_move_metrics> = 64;

template <>
constexpr move_reason last_enumerator<move_reason>() {
  return move_reason::ordered;
}
template <>
constexpr stay_reason last_enumerator<stay_reason>() {
  return stay_reason::no_target;
}
template <>
constexpr tier last_enumerator<tier>() {
  return last_tier;
}
template <>
constexpr stall_cause last_enumerator<stall_cause>() {
  return stall_cause::stopped;
}
template <>
constexpr timing::clock_kind last_enumerator<timing::clock_kind>() {
  return timing::clock_kind::manual;
}

#if defined(__linux__)
inspect_address::inspect_address(std::uint64_t pid) noexcept {
  name.sun_family = AF_UNIX;
  char* const begin = name.sun_path + 1;
  char* const digits = std::copy(socket_prefix.begin(), socket_prefix.end(), begin);
  const char* const end = std::to_chars(digits, std::end(name.sun_path), pid).ptr;
  length = static_cast<socklen_t>(end - reinterpret_cast<const char*>(&name));
}
#endif

bool parse_number(std::string_view text, std::uint64_t& n) noexcept {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  return ec == std::errc{} && end == text.data() + text.size();
}

std::string encode_word(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string word;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > ' ' && byte < 0x7f && c != '%') {
      word += c;
    } else {
      word += {'%', digits[byte >> 4U], digits[byte & 15U]};
    }
  }
  return word.empty() ? "%" : word;
}

bool decode_word(std::string_view word, std::string& text) {
  text.clear();
  if (word == "%") return true;
  for (std::size_t i = 0; i < word.size(); ++i) {
    if (word[i] != '%') {
      text += word[i];
      continue;
    }
    const std::string_view pair = word.substr(i + 1, 2);
    unsigned byte = 0;
    const auto [end, ec] = std::from_chars(pair.data(), pair.data() + pair.size(), byte, 16);
    if (pair.size() != 2 || ec != std::errc{} || end != pair.data() + 2) return false;
    text += static_cast<char>(byte);
    i += 2;
  }
  // The same bytes have one spelling.
  return encode_word(text) == word;
}

std::string encode(const process_metrics& m) {
  process_metrics copy = m;  // one function serves both directions
  wire_out out;
  out(copy);
  return out.take();
}

bool decode(std::string_view bytes, process_metrics& to) {
  wire_in in(bytes);
  in(to);
  return in.complete();
}

}  // namespace asio_pulse::detail
