// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>

#include <csignal>
#include <cstddef>

namespace asio_pulse::detail {

// The least stack, even if the program's default (`ulimit -s`) is smaller. libdw takes up to 40 KiB
// (measured), the demangler more for deeply nested names, and the program's callbacks run on such a
// thread.
inline constexpr std::size_t least_stack = std::size_t{512} << 10;

/// Starts a detached thread that blocks all signals and calls `self->run()`, which does not return.
/// Its stack has the program's default size, but at least least_stack, and a guard page below.
///
/// \par Errors  Returns false if the thread cannot be started.
template <class Runner>
[[nodiscard]] bool start_background_thread(Runner* self) noexcept {
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return false;
  std::size_t stack = 0;
  if (::pthread_attr_getstacksize(&attributes, &stack) == 0 && stack < least_stack) {
    (void)::pthread_attr_setstacksize(&attributes, least_stack);
  }
  // The new thread inherits the mask, so there is no time in which it could get a signal.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread{};
  const auto entry = [](void* runner) -> void* {
    static_cast<Runner*>(runner)->run();
    return nullptr;
  };
  const bool started = ::pthread_create(&thread, &attributes, entry, self) == 0;
  ::pthread_attr_destroy(&attributes);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started) ::pthread_detach(thread);
  return started;
}

}  // namespace asio_pulse::detail
