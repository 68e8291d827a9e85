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

/// The process's wall-time counter: cheap to read, monotonic, and the same on every CPU.
///
/// It is the time stamp counter if that is safe: the instruction may be executed; the CPU declares
/// the counter invariant (CPUID 0x80000007 EDX bit 8), or the kernel itself keeps time with it; the
/// kernel has not removed it from its list of clock sources; and its rate was stable against the
/// kernel's clock during the calibration. Otherwise it is steady_clock in nanoseconds. reason()
/// says which of the two it is, and why. It is chosen once and never changes.
///
/// The TSC is calibrated against CLOCK_MONOTONIC_RAW, which NTP does not slew, because the kernel's
/// CPU-time clocks run at that rate as well.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe (immutable).
class timebase {
 public:
  /// The process's timebase. The first call calibrates.
  ///
  /// \par Cost    First call: 2 ms of spinning where CPUID states the TSC rate and the measurement
  ///              agrees, else up to 10 ms. Later calls: one predictable branch.
  /// \par Errors  None (noexcept). If the TSC cannot be used, the fallback is, and reason() says
  ///              so.
  [[nodiscard]] static const timebase& get() noexcept;

  timebase(const timebase&) = delete;
  timebase& operator=(const timebase&) = delete;

  /// Reads the counter.
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

  /// Why this counter was chosen, as one line of text.
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

/// Conversions with the process's timebase.
[[nodiscard]] inline std::chrono::nanoseconds to_ns(ticks value) noexcept {
  return timebase::get().to_ns(value);
}
[[nodiscard]] inline ticks to_ticks(std::chrono::nanoseconds value) noexcept {
  return timebase::get().from_ns(value);
}

}  // namespace asio_pulse::timing
