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

/// Makes the calling thread give way as asked. Lowering needs no privilege; what the system refuses
/// stays as it is.
void lower_priority(isolation_priority how, int nice) noexcept;

/// Names the calling thread, for a debugger and for top.
void name_thread(const char* name) noexcept;

/// A thread's signal mask and the CPUs that it may use, for another one to work in its place.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class thread_settings {
 public:
  /// The calling thread's, the first time.
  void remember() noexcept;
  /// Makes them the calling thread's, if any were remembered.
  void apply() const noexcept;

 private:
#if defined(__linux__)
  sigset_t mask_{};
  cpu_set_t cpus_{};
  bool known_ = false;
  bool cpus_known_ = false;
#endif
};

/// How a thread was scheduled before demote(), and what demote() made of it.
struct scheduling {
  bool changed = false;  ///< false: there is nothing to undo
  int policy = 0;
  int nice = 0;
  int given_policy = 0;
  int given_nice = 0;
};

/// Makes another thread of this process, a worker that is stuck, give way: by SCHED_BATCH, which
/// can always be undone, or by a higher nice value where CAP_SYS_NICE or RLIMIT_NICE lets it be
/// undone. Never by SCHED_IDLE: when its handler ends the worker takes Asio's mutex before it is
/// restored, and with SCHED_IDLE it may hold it for as long as other programs want the CPU
/// (measured on a busy machine: everybody else 0.8 s late, and more). isolation_priority::idle is
/// for threads that have no such locks; here it means SCHED_BATCH.
///
/// A thread that is not SCHED_OTHER (SCHED_FIFO, SCHED_BATCH, ...) is left alone: somebody chose
/// that.
///
/// The thread must exist, and go on existing until the call returns: thread ids are reused.
///
/// \par Cost           Up to five system calls.
/// \par Thread safety  Distinct threads: Safe.
/// \par Errors         None (noexcept): what the system refuses stays as it is.
[[nodiscard]] scheduling demote(thread_id thread, isolation_priority how, int nice) noexcept;

/// Undoes demote(), unless the thread's scheduling has been changed by somebody else since.
void restore(thread_id thread, const scheduling& before) noexcept;

}  // namespace asio_pulse::detail
