// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/detail/tick_scale.hpp>
#include <asio_pulse/timing/detail/tsc.hpp>
#include <chrono>
#include <cstdint>
#include <string_view>

namespace asio_pulse::timing {

/// Time in the unit of the process's timebase: TSC cycles, or nanoseconds of steady_clock.
using ticks = std::uint64_t;

/// The process's wall-time counter: one cheap read, monotonic, the same on every CPU.
///
/// It is the time stamp counter where that is safe: the instruction may be executed, the CPU
/// declares the counter invariant (CPUID 0x80000007 EDX bit 8) or the kernel itself keeps time by
/// it, the kernel has not struck it from its list of clock sources, and its rate held still against
/// the kernel's clock while it was calibrated. Otherwise it is steady_clock in nanoseconds. Which
/// of the two, and why, is reason(). Chosen once and immutable afterwards.
///
/// The TSC rate is that of CLOCK_MONOTONIC_RAW, the clock that NTP does not slew, because the
/// kernel's CPU-time clocks run at that rate too.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe (immutable).
class timebase {
 public:
  /// The process's timebase. The first call calibrates.
  ///
  /// \par Cost    First call: 2 ms of spinning where CPUID states the TSC rate and the measurement
  ///              agrees, else up to 10 ms. Later calls: one predictable branch.
  /// \par Errors  None (noexcept); what is missing ends in the fallback and in reason().
  [[nodiscard]] static const timebase& get() noexcept;

  timebase(const timebase&) = delete;
  timebase& operator=(const timebase&) = delete;

  /// The present reading.
  ///
  /// \par Cost  One RDTSC (7.5 ns in a VM, about 3 on bare metal), or one vDSO read (about 16 ns).
  [[nodiscard]] ticks now() const noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
    if (uses_tsc_) [[likely]] {
      return detail::read_tsc();
    }
#endif
    return steady_ns();
  }

  [[nodiscard]] bool uses_tsc() const noexcept { return uses_tsc_; }

  /// Why this counter was chosen, in one line for people.
  [[nodiscard]] std::string_view reason() const noexcept { return reason_; }

  [[nodiscard]] double ticks_per_second() const noexcept { return ticks_per_second_; }

  /// Ticks as nanoseconds, to nearest; saturates at nanoseconds::max().
  ///
  /// \par Cost  One multiplication.
  [[nodiscard]] std::chrono::nanoseconds to_ns(ticks value) const noexcept {
    const std::uint64_t ns = to_ns_.apply(value);
    constexpr auto limit = std::chrono::nanoseconds::max();
    return ns > static_cast<std::uint64_t>(limit.count())
               ? limit
               : std::chrono::nanoseconds{static_cast<std::chrono::nanoseconds::rep>(ns)};
  }

  /// Nanoseconds as ticks, to nearest; a negative duration is 0, an overflow is the largest tick.
  ///
  /// \par Cost  One multiplication.
  [[nodiscard]] ticks from_ns(std::chrono::nanoseconds value) const noexcept {
    return value.count() <= 0 ? 0 : from_ns_.apply(static_cast<std::uint64_t>(value.count()));
  }

 private:
  timebase() noexcept;
  static ticks steady_ns() noexcept;

  bool uses_tsc_ = false;
  double ticks_per_second_ = 1e9;
  detail::tick_scale to_ns_;
  detail::tick_scale from_ns_;
  char reason_[200] = {};  // an array: the object must stay usable during static destruction
};

}  // namespace asio_pulse::timing
