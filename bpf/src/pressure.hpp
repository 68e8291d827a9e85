// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// \file
/// How long threads wait, as the kernel reports it in /proc/pressure (PSI). A BPF program cannot
/// read it. The loader does, and passes it on to the scheduler and the programs.

namespace asio_pulse::scx {

/// Each is 0..100: in what part of the last ten seconds, in per cent, some thread waited.
struct pressure {
  std::uint8_t cpu = 0;
  std::uint8_t io = 0;
  std::uint8_t memory = 0;
  /// False if the kernel does not report at least one of them, which is then 0 (built without PSI,
  /// or booted with psi=0).
  bool known = false;

  bool operator==(const pressure&) const = default;
};

/// The number after "avg10=" in the line that starts with "some", rounded and limited to 0..100.
/// Empty if the text, which may be any bytes, has no such line or number.
std::optional<std::uint8_t> parse_pressure(std::string_view text) noexcept;

/// \par Cost           Three small files: tens of microseconds.
/// \par Thread safety  Any thread.
/// \par Errors         None. What cannot be read is 0, and `known` is false.
pressure read_pressure(const std::string& folder = "/proc/pressure");

}  // namespace asio_pulse::scx
