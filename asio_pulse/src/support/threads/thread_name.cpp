// SPDX-License-Identifier: BSL-1.0
#include "thread_name.hpp"

#if defined(__linux__)
#include "files/descriptor.hpp"
#include "process/errno_kept.hpp"
#include "thread_usage.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cstring>
#endif

namespace asio_pulse::detail {

void name_this_thread([[maybe_unused]] const char* name) noexcept {
#if defined(__linux__)
  const errno_kept keep;
  if (own_seccomp_filters() == 0) {
    ::pthread_setname_np(::pthread_self(), name);
    return;
  }
  // pthread_setname_np() would call prctl(2), which a filter may not allow.
  const descriptor file(::open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC));
  if (file) (void)!::write(file.get(), name, std::strlen(name));
#endif
}

}  // namespace asio_pulse::detail
