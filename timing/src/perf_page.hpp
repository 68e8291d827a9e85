// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

namespace asio_pulse::detail {

/// The part of perf_event_mmap_page that the conversion needs, read consistently.
struct perf_times {
  std::uint64_t enabled_ns = 0;
  std::uint64_t offset_ns = 0;
  std::uint32_t multiplier = 0;
  std::uint16_t shift = 0;
};

/// The thread's CPU time at TSC reading `tsc`.
///
/// \par Source  linux/perf_event.h, the comment on cap_user_time.
[[nodiscard]] constexpr std::uint64_t perf_cpu_ns(const perf_times& times,
                                                  std::uint64_t tsc) noexcept {
  const std::uint64_t quotient = tsc >> times.shift;
  const std::uint64_t remainder = tsc & ((std::uint64_t{1} << times.shift) - 1);
  return times.enabled_ns + times.offset_ns + quotient * times.multiplier +
         ((remainder * times.multiplier) >> times.shift);
}

struct perf_reading {
  std::uint64_t cpu_ns = 0;
  std::uint64_t tsc = 0;
  bool ok = false;
};

/// Opens the calling thread's page if it is not open: one file and one page per thread, which are
/// released at the thread's end. In a forked child, into which the kernel does not copy the page,
/// it is opened again.
///
/// \return  Null on success, otherwise what is missing.
[[nodiscard]] const char* open_perf_page() noexcept;

/// Reads the thread's page; not ok when it was never opened or lost (fork).
[[nodiscard]] perf_reading read_perf_page() noexcept;

}  // namespace asio_pulse::detail
