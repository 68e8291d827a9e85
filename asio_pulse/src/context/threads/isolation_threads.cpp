// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/isolation_threads.hpp>

#include <cerrno>

#if defined(__linux__)
#include "process/errno_kept.hpp"
#include "threads/thread_name.hpp"
#include "threads/thread_number.hpp"
#include "threads/thread_usage.hpp"

#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace asio_pulse::detail {

#if defined(__linux__)
namespace {

bool set_policy(thread_id thread, int policy) noexcept {
  const sched_param none{};
  return sched_setscheduler(thread, policy, &none) == 0;
}

// On Linux a nice value belongs to a thread, although POSIX says that it belongs to the process.
bool nice_of(thread_id thread, int& nice) noexcept {
  errno = 0;
  nice = getpriority(PRIO_PROCESS, static_cast<id_t>(thread));
  return errno == 0;
}

bool set_nice(thread_id thread, int nice) noexcept {
  return setpriority(PRIO_PROCESS, static_cast<id_t>(thread), nice) == 0;
}

/// Whether the kernel permits a thread to lower its nice value to `nice` again: with CAP_SYS_NICE,
/// or within RLIMIT_NICE (sched(7)). This is computed and not tried, because the thread is running.
bool may_come_back_to(int nice) noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_NICE, &limit) == 0 &&
      (limit.rlim_cur == RLIM_INFINITY || 20 - nice <= static_cast<long long>(limit.rlim_cur))) {
    return true;
  }
  __user_cap_header_struct header{};
  header.version = _LINUX_CAPABILITY_VERSION_3;
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_SYS_NICE)].effective & CAP_TO_MASK(CAP_SYS_NICE)) != 0;
}

}  // namespace
#endif

void name_thread([[maybe_unused]] const char* name) noexcept {
#if defined(__linux__)
  name_this_thread(name);
#endif
}

void thread_settings::remember() noexcept {
#if defined(__linux__)
  if (known_) return;
  known_ = pthread_sigmask(SIG_SETMASK, nullptr, &mask_) == 0;
  cpus_known_ = own_seccomp_filters() == 0 && sched_getaffinity(0, sizeof cpus_, &cpus_) == 0;
#endif
}

void thread_settings::apply() const noexcept {
#if defined(__linux__)
  if (known_) pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  if (cpus_known_ && own_seccomp_filters() == 0) (void)sched_setaffinity(0, sizeof cpus_, &cpus_);
#endif
}

void lower_priority([[maybe_unused]] isolation_priority how, [[maybe_unused]] int nice) noexcept {
  name_thread("pulse-isolate");
#if defined(__linux__)
  if (own_seccomp_filters() != 0) return;
  switch (how) {
    case isolation_priority::normal:
      break;
    case isolation_priority::batch:
      set_policy(0, SCHED_BATCH);
      break;
    case isolation_priority::idle:
      set_policy(0, SCHED_IDLE);
      break;
    case isolation_priority::nice:
      set_nice(this_thread_number(), nice);
      break;
  }
#endif
}

kernel_scheduling demote([[maybe_unused]] thread_id thread, [[maybe_unused]] isolation_priority how,
                         [[maybe_unused]] int nice) noexcept {
  kernel_scheduling before;
#if defined(__linux__)
  const errno_kept keep;
  if (how == isolation_priority::normal || own_seccomp_filters() != 0) return before;
  // The reset-on-fork flag is a part of the policy and cannot be removed without privilege, so it
  // is kept.
  const int policy = sched_getscheduler(thread);
  if (policy < 0 || (policy & ~SCHED_RESET_ON_FORK) != SCHED_OTHER) return before;
  if (!nice_of(thread, before.nice)) return before;
  const int flag = policy & SCHED_RESET_ON_FORK;
  before.policy = before.given_policy = policy;
  before.given_nice = before.nice;
  if (how == isolation_priority::nice && may_come_back_to(before.nice)) {
    if (nice <= before.nice) return before;  // its priority is low enough already
    before.given_nice = nice;
    before.changed = set_nice(thread, nice);
  } else {
    before.given_policy = SCHED_BATCH | flag;
    before.changed = set_policy(thread, before.given_policy);
  }
#endif
  return before;
}

void restore([[maybe_unused]] thread_id thread,
             [[maybe_unused]] const kernel_scheduling& before) noexcept {
#if defined(__linux__)
  if (!before.changed || own_seccomp_filters() != 0) return;
  const errno_kept keep;
  int nice = 0;
  if (sched_getscheduler(thread) != before.given_policy || !nice_of(thread, nice) ||
      nice != before.given_nice) {
    return;
  }
  if (before.given_policy != before.policy) set_policy(thread, before.policy);
  if (before.given_nice != before.nice) set_nice(thread, before.nice);
#endif
}

}  // namespace asio_pulse::detail
