// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>

/// \file
/// The calling thread's scheduling, beyond what POSIX knows.

namespace asio_pulse::detail {

/// As in <linux/sched/types.h>, which does not go together with every C library's <sched.h>.
struct scheduling_attributes {
  std::uint32_t size = 48;  // the first version's
  std::uint32_t policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0;
  std::uint64_t deadline = 0;
  std::uint64_t period = 0;
};
static_assert(sizeof(scheduling_attributes) == 48);

inline constexpr std::uint64_t attribute_reset_on_fork = 1;
inline constexpr int policy_sched_ext = 7;

/// \par Cost    A system call.
/// \par Errors  False: nothing was read, or changed.
[[nodiscard]] bool read_scheduling(scheduling_attributes& to) noexcept;
[[nodiscard]] bool write_scheduling(const scheduling_attributes& from) noexcept;

/// Asks for slices of this length: who asks for less goes first when it wakes up, and gets no more
/// of the CPU for it. EEVDF, from Linux 6.12 on; older kernels take the request and do nothing. For
/// SCHED_OTHER and SCHED_BATCH only. `before` is what to give back by write_scheduling().
///
/// \par Cost    Three system calls.
/// \par Errors  False: this kernel knows no such thing, or the thread is of another policy.
[[nodiscard]] bool request_slice(std::chrono::nanoseconds slice,
                                 scheduling_attributes& before) noexcept;

}  // namespace asio_pulse::detail
