// SPDX-License-Identifier: BSL-1.0
//
// The kinds of reports, and sets of kinds.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace asio_pulse {

enum class report_kind : std::uint8_t {
  slow_poll,             ///< one poll was above a threshold
  over_budget,           ///< a declared task has used up its budget, and had to wait
  isolation_refused,     ///< isolation was wanted and would have been unsafe; detail says why
  critical_overstay,     ///< a critical section has lasted for longer than options::max_critical
  stall,                 ///< a poll has reached stall_threshold and has not ended
  stall_ended,           ///< a poll that was reported as a stall has ended
  yield_refused,         ///< a yield was wanted and would have been unsafe; detail says why
  compensation_refused,  ///< a spare worker was wanted and would have been unsafe; detail says why
  misuse,                ///< the program has broken a rule of the library; detail says which
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(report_kind) noexcept;

/// A set of kinds, for example `{report_kind::stall, report_kind::stall_ended}`.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class report_kinds {
 public:
  constexpr report_kinds() noexcept = default;
  constexpr report_kinds(std::initializer_list<report_kind> kinds) noexcept {
    for (const report_kind k : kinds) bits_ |= bit(k);
  }

  /// The set of all kinds.
  static constexpr report_kinds all() noexcept {
    report_kinds result;
    result.bits_ = bit(last) * 2 - 1;
    return result;
  }

  [[nodiscard]] constexpr bool contains(report_kind k) const noexcept {
    return (bits_ & bit(k)) != 0;
  }
  [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }

  /// Returns false if the set was made from a value that is not an enumerator.
  [[nodiscard]] constexpr bool valid() const noexcept { return (bits_ & other) == 0; }

  friend constexpr bool operator==(const report_kinds&, const report_kinds&) noexcept = default;

 private:
  static constexpr report_kind last = report_kind::misuse;
  static constexpr std::uint32_t other = std::uint32_t{1} << 31U;

  static constexpr std::uint32_t bit(report_kind k) noexcept {
    return k <= last ? std::uint32_t{1} << static_cast<unsigned>(k) : other;
  }

  std::uint32_t bits_ = 0;
};

}  // namespace asio_pulse
