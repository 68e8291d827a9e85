// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// \file
/// What the kernel says about how long threads wait: /proc/pressure (PSI). There is no such thing
/// for a BPF program, so the loader reads it and tells the scheduler and the programs.

namespace asio_pulse::scx {

/// Each 0..100: the share of the last ten seconds, in per cent, in which some thread waited.
struct pressure {
  std::uint8_t cpu = 0;
  std::uint8_t io = 0;
  std::uint8_t memory = 0;
  /// False: the kernel does not tell about at least one of them, which then says 0 (built without
  /// PSI, or booted with psi=0).
  bool known = false;

  bool operator==(const pressure&) const = default;
};

/// The number after "avg10=" in the line that starts with "some", rounded and clamped to 0..100.
/// Nothing where the text has no such line or no such number.
/// \par Errors  None; any bytes will do.
std::optional<std::uint8_t> parse_pressure(std::string_view text) noexcept;

/// \par Cost           Three small files: tens of microseconds.
/// \par Thread safety  Any thread.
/// \par Errors         None: what cannot be read is 0, and `known` is false.
pressure read_pressure(const std::string& folder = "/proc/pressure");

}  // namespace asio_pulse::scx
