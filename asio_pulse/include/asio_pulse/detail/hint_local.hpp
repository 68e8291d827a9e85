// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/control_block.h>

#include <asio_pulse/detail/thread_usage.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

/// \file
/// Hints without a scheduler that gives them: from what any kernel tells any user, through the same
/// control block. Pressure comes from /proc/pressure/cpu; whether somebody wants this worker's CPU,
/// from its own involuntary switches.

namespace asio_pulse::detail {

/// Decides about one worker: pure, but for its block.
///
/// The rule: a hint when the worker, since it last slept or acknowledged, has used more than a
/// slice of CPU time, and has been taken off its CPU since the last look; one outstanding at a
/// time.
class local_hints {
 public:
  explicit local_hints(std::chrono::nanoseconds slice) noexcept : slice_(slice.count()) {}

  /// True: the sequence was moved.
  bool look(const thread_usage& now, asio_pulse_scb& block, std::uint32_t pressure) noexcept;

 private:
  std::int64_t slice_;
  std::int64_t mark_ns_ = -1;  ///< CPU time from which a slice is counted; negative: no look yet
  std::uint64_t voluntary_ = 0;
  std::uint64_t involuntary_ = 0;
  std::uint64_t acknowledged_ = 0;
};

/// /proc/pressure/cpu, by a trigger where this user may set one.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class pressure_source {
 public:
  pressure_source() noexcept = default;
  ~pressure_source() { close(); }
  pressure_source(const pressure_source&) = delete;
  pressure_source& operator=(const pressure_source&) = delete;

  /// Empty, or why there is none.
  [[nodiscard]] std::string open();
  void close() noexcept;
  /// For poll() with POLLPRI: pressure has begun. Negative: there is no trigger, sample.
  [[nodiscard]] int trigger() const noexcept { return triggers_ ? fd_ : -1; }
  /// The share of the time since the last call in which somebody waited for a CPU, 0 to 100.
  [[nodiscard]] std::uint32_t sample(std::uint64_t now_ns) noexcept;

 private:
  int fd_ = -1;
  bool triggers_ = false;
  std::uint64_t total_us_ = 0;
  std::uint64_t at_ns_ = 0;
  std::uint32_t last_ = 0;
};

/// The number behind "total=" of the line that begins with "some". False: not there.
[[nodiscard]] bool parse_pressure_total(std::string_view text, std::uint64_t& total_us) noexcept;

}  // namespace asio_pulse::detail
