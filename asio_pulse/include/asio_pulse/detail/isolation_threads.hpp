// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/options.hpp>

#if defined(__linux__)
#include <sched.h>
#include <signal.h>
#include <sys/types.h>
#endif

namespace asio_pulse::detail {

#if defined(__linux__)
using thread_id = pid_t;
#else
using thread_id = int;
#endif

// Under a seccomp filter these functions change nothing, because the filter may end the process for
// the system calls that they need.

/// Lowers the priority of the calling thread as requested. This needs no privilege. What the system
/// refuses stays as it is.
void lower_priority(isolation_priority how, int nice) noexcept;

/// Sets the name of the calling thread, as debuggers and top show it.
void name_thread(const char* name) noexcept;

/// A thread's signal mask and CPU affinity, for another thread that takes over its work.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class thread_settings {
 public:
  /// Saves the settings of the calling thread, the first time that it is called.
  void remember() noexcept;
  /// Applies the saved settings, if there are any, to the calling thread.
  void apply() const noexcept;

 private:
#if defined(__linux__)
  sigset_t mask_{};
  cpu_set_t cpus_{};
  bool known_ = false;
  bool cpus_known_ = false;
#endif
};

/// A thread's scheduling before demote(), and after it.
struct kernel_scheduling {
  bool changed = false;  ///< whether there is something to undo
  int policy = 0;
  int nice = 0;
  int given_policy = 0;
  int given_nice = 0;
};

/// Lowers the priority of another thread of this process, a worker that is stuck: with SCHED_BATCH,
/// which can always be undone, or with a higher nice value if CAP_SYS_NICE or RLIMIT_NICE permits
/// to undo that. SCHED_IDLE is never used: when its handler ends, the worker takes Asio's mutex
/// before its scheduling is restored, and with SCHED_IDLE it may hold the mutex for as long as
/// other programs use the CPU (measured on a busy machine: all others are 0.8 s late, and more).
/// isolation_priority::idle is for threads without such locks; here it means SCHED_BATCH.
///
/// A thread that is not SCHED_OTHER (SCHED_FIFO, SCHED_BATCH, ...) is not changed, because the
/// program has chosen that.
///
/// The thread must exist until the call returns, because thread ids are reused.
///
/// \par Cost           Up to five system calls.
/// \par Thread safety  Distinct threads: Safe.
/// \par Errors         None (noexcept). What the system refuses is not changed.
[[nodiscard]] kernel_scheduling demote(thread_id thread, isolation_priority how, int nice) noexcept;

/// Undoes demote(), unless the thread's scheduling was changed otherwise in the meantime.
void restore(thread_id thread, const kernel_scheduling& before) noexcept;

}  // namespace asio_pulse::detail
