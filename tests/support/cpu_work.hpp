// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>

#if defined(__linux__)
#include <time.h>
#endif

namespace pulse_test {

/// CPU time of the calling thread. Other systems: wall time, which is not less.
inline std::chrono::nanoseconds thread_cpu() noexcept {
#if defined(__linux__)
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec};
#else
  return std::chrono::steady_clock::now().time_since_epoch();
#endif
}

/// Uses up at least `cpu` of this thread's CPU time, by whatever other programs do meanwhile.
inline void burn(std::chrono::nanoseconds cpu) noexcept {
  const auto end = thread_cpu() + cpu;
  while (thread_cpu() < end) {
    [[maybe_unused]] volatile int sink = 0;
    for (int i = 0; i < 50; ++i) {
      sink = i;
    }
  }
}

}  // namespace pulse_test
