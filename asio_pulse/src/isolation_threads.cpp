// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/isolation_threads.hpp>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace asio_pulse::detail {

void lower_priority([[maybe_unused]] isolation_priority how, [[maybe_unused]] int nice) noexcept {
#if defined(__linux__)
  // The name that a debugger and top show.
  pthread_setname_np(pthread_self(), "pulse-isolate");
  const sched_param none{};
  switch (how) {
    case isolation_priority::normal:
      break;
    case isolation_priority::batch:
      sched_setscheduler(0, SCHED_BATCH, &none);
      break;
    case isolation_priority::idle:
      sched_setscheduler(0, SCHED_IDLE, &none);
      break;
    case isolation_priority::nice:
      // On Linux a nice value belongs to a thread, whatever POSIX says of processes.
      setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), nice);
      break;
  }
#endif
}

}  // namespace asio_pulse::detail
