// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

namespace asio_pulse::detail {

/// A reading of one of the operating system's clocks; `ok` is false where it does not work.
struct os_reading {
  std::uint64_t value = 0;
  bool ok = false;
};

/// CLOCK_THREAD_CPUTIME_ID, nanoseconds: CPU time of the calling thread, user and system.
[[nodiscard]] os_reading thread_cpu_ns() noexcept;

/// QueryThreadCycleTime, TSC cycles. Windows only, untested; not ok elsewhere.
[[nodiscard]] os_reading thread_cycles() noexcept;

/// thread_info(THREAD_BASIC_INFO), nanoseconds in steps of 1 us. macOS only, untested; not ok
/// elsewhere.
[[nodiscard]] os_reading mach_thread_ns() noexcept;

/// CLOCK_MONOTONIC in nanoseconds, the clock of bpf_ktime_get_ns().
[[nodiscard]] std::uint64_t monotonic_ns() noexcept;

/// A number that changes in a forked child, however it was forked: by a page that the kernel zeroes
/// on fork or, if it cannot, by an atfork handler. Constant and 0 on systems without fork.
[[nodiscard]] std::uint32_t fork_epoch() noexcept;

}  // namespace asio_pulse::detail
