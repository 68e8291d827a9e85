// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

// The time stamp counter, on which the timebase is built if possible. x86-64 only: elsewhere the
// timebase is steady_clock.
#if defined(__x86_64__) || defined(_M_X64)
#define ASIO_PULSE_TIMING_HAS_TSC 1
#else
#define ASIO_PULSE_TIMING_HAS_TSC 0
#endif

#if ASIO_PULSE_TIMING_HAS_TSC && defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

namespace asio_pulse::detail {

#if ASIO_PULSE_TIMING_HAS_TSC
/// Reads the time stamp counter. Call it only if timebase::uses_tsc() is true, because RDTSC can be
/// forbidden.
///
/// \par Memory order  A compiler barrier, no fence: the compiler does not move what follows in
///                    program order before the read. poll_clock depends on this (see there). The
///                    CPU may overlap a few nanoseconds of neighbouring work, which is accepted.
[[nodiscard]] inline std::uint64_t read_tsc() noexcept {
#if defined(_MSC_VER) && !defined(__clang__)
  _ReadWriteBarrier();
  const std::uint64_t now = __rdtsc();
  _ReadWriteBarrier();
  return now;
#else
  std::uint32_t low;
  std::uint32_t high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (static_cast<std::uint64_t>(high) << 32U) | low;
#endif
}
#endif

}  // namespace asio_pulse::detail
