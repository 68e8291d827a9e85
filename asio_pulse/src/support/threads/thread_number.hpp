// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace asio_pulse::detail {

/// The kernel's id of the calling thread, as in /proc/self/task. (glibc has gettid() from 2.30 on;
/// other C libraries may not have it.)
///
/// \par Cost  A system call.
[[nodiscard]] inline pid_t this_thread_number() noexcept {
  return static_cast<pid_t>(::syscall(SYS_gettid));
}

}  // namespace asio_pulse::detail
