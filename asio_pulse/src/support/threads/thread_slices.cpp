// SPDX-License-Identifier: BSL-1.0
#include "thread_slices.hpp"

#if defined(__linux__)

#include "process/errno_kept.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace asio_pulse::detail {

bool read_scheduling(scheduling_attributes& to) noexcept {
  const errno_kept keep;
  return ::syscall(SYS_sched_getattr, 0, &to, to.size, 0) == 0;
}

bool write_scheduling(const scheduling_attributes& from) noexcept {
  const errno_kept keep;
  return ::syscall(SYS_sched_setattr, 0, &from, 0) == 0;
}

bool request_slice(std::chrono::nanoseconds slice, scheduling_attributes& before) noexcept {
  if (!read_scheduling(before)) return false;
  if (before.policy != SCHED_OTHER && before.policy != SCHED_BATCH) return false;
  scheduling_attributes mine = before;
  mine.runtime = static_cast<std::uint64_t>(slice.count());
  scheduling_attributes after;
  if (!write_scheduling(mine) || !read_scheduling(after)) return false;
  return after.runtime == mine.runtime;
}

}  // namespace asio_pulse::detail

#endif
