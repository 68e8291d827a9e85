// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "threads/thread_usage.hpp"

#include <asio_pulse/bpf/control_block.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

/// \file
/// Hints without scx_pulse, made from what every kernel reports to every user and passed through
/// the same control block. Pressure is read from /proc/pressure/cpu. That another thread wants this
/// worker's CPU is seen from the worker's involuntary switches.

namespace asio_pulse::detail {

/// Decides about a worker. It is pure except that it writes the block.
///
/// There is a hint if the worker has used more than a slice of CPU time since it last slept or
/// acknowledged a hint, and was taken off its CPU since the last look. There is at most one
/// outstanding hint.
class local_hints {
 public:
  explicit local_hints(std::chrono::nanoseconds slice) noexcept : slice_(slice.count()) {}

  /// Returns true if it has sent a hint.
  bool look(const thread_usage& now, asio_pulse_scb& block, std::uint32_t pressure) noexcept;

 private:
  std::int64_t slice_;
  std::int64_t mark_ns_ = -1;  ///< CPU time at the start of the slice; negative at first
  std::uint64_t voluntary_ = 0;
  std::uint64_t involuntary_ = 0;
  std::uint64_t acknowledged_ = 0;
};

/// Reads /proc/pressure/cpu, with a trigger if the user may set one.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class pressure_source {
 public:
  pressure_source() noexcept = default;
  ~pressure_source() { close(); }
  pressure_source(const pressure_source&) = delete;
  pressure_source& operator=(const pressure_source&) = delete;

  /// Opens the file. Returns why it cannot be used; empty if it can.
  [[nodiscard]] std::string open();
  void close() noexcept;
  /// A descriptor for poll() with POLLPRI, which reports the beginning of pressure. Negative if
  /// there is no trigger; then sample.
  [[nodiscard]] int trigger() const noexcept { return triggers_ ? fd_ : -1; }
  /// The share of the time since the last call in which a thread waited for a CPU, from 0 to 100.
  [[nodiscard]] std::uint32_t sample(std::uint64_t now_ns) noexcept;

 private:
  int fd_ = -1;
  bool triggers_ = false;
  std::uint64_t total_us_ = 0;
  std::uint64_t at_ns_ = 0;
  std::uint32_t last_ = 0;
};

/// The number after "total=" in the line that begins with "some". Returns false if it is missing.
[[nodiscard]] bool parse_pressure_total(std::string_view text, std::uint64_t& total_us) noexcept;

}  // namespace asio_pulse::detail
