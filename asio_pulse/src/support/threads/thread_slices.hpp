// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>

/// \file
/// The calling thread's scheduling attributes that are not in POSIX.

namespace asio_pulse::detail {

/// As in <linux/sched/types.h>, which conflicts with some C libraries' <sched.h>.
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
/// \par Errors  Returns false if nothing was read or changed.
[[nodiscard]] bool read_scheduling(scheduling_attributes& to) noexcept;
[[nodiscard]] bool write_scheduling(const scheduling_attributes& from) noexcept;

/// Requests slices of this length. A thread with shorter slices runs earlier when it wakes up, but
/// gets no more CPU time. This works with EEVDF from Linux 6.12 on; older kernels accept the
/// request and do nothing. For SCHED_OTHER and SCHED_BATCH only. `before` is set to what
/// write_scheduling() needs to undo this.
///
/// \par Cost    Three system calls.
/// \par Errors  Returns false if the kernel does not support it, or the thread has another policy.
[[nodiscard]] bool request_slice(std::chrono::nanoseconds slice,
                                 scheduling_attributes& before) noexcept;

}  // namespace asio_pulse::detail
