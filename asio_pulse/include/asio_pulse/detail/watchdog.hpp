// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/thread_state.hpp>

/// \file
/// The thread that sees polls which do not end: one for the process, however many contexts.

namespace asio_pulse::detail {

class context_core;

/// The watchdog knows of the calling thread from now until it ends. Starts the watchdog if it does
/// not run. Once per thread; later calls do nothing.
///
/// \par Cost    The first call: an allocation and a mutex, and perhaps the start of a thread.
/// \par Errors  None (noexcept): without memory or a thread, polls of this thread are not watched.
void watch_this_thread(hooks::thread_state& ts) noexcept;

/// Polls of workers that work for `core` are watched, until forget_context().
///
/// \par Errors  None (noexcept): without memory they are not.
void watch_context(context_core& core) noexcept;

/// As if the context had never been watched: no report of the watchdog's about it is in progress
/// any more, or will be. Called from inside such a report it waits for nothing.
///
/// \par Blocking  Waits for a report that is in progress, and what the user does in it; never for a
///                handler.
void forget_context(context_core& core) noexcept;

/// There is something to look at. Wakes the watchdog, or starts it (after a fork).
///
/// \par Cost           A system call.
/// \par Memory order   Release, pairs with the watchdog's acquire before it looks.
void wake_watchdog() noexcept;

/// User code runs on the watchdog's thread: nothing of the watchdog's is locked meanwhile, so that
/// whoever forks does not wait for it. On the watchdog's thread only.
class user_code_scope {
 public:
  user_code_scope() noexcept;
  ~user_code_scope();
  user_code_scope(const user_code_scope&) = delete;
  user_code_scope& operator=(const user_code_scope&) = delete;
};

}  // namespace asio_pulse::detail
