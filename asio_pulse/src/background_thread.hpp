// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>

#include <csignal>

namespace asio_pulse::detail {

/// Starts a thread that nobody joins and that gets none of the program's signals. `self->run()` is
/// its work, which does not end.
///
/// \par Errors  False: there is no such thread.
template <class Runner>
[[nodiscard]] bool start_background_thread(Runner* self) noexcept {
  // Inherited by the new thread; there is no gap in which it takes a signal.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread{};
  const auto entry = [](void* runner) -> void* {
    static_cast<Runner*>(runner)->run();
    return nullptr;
  };
  const bool started = ::pthread_create(&thread, nullptr, entry, self) == 0;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started) ::pthread_detach(thread);
  return started;
}

}  // namespace asio_pulse::detail
