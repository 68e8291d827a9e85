// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/thread_state.hpp>

/// \file
/// The thread that finds polls that do not end. There is one for the process, however many
/// contexts.

namespace asio_pulse {
struct options;
}  // namespace asio_pulse

namespace asio_pulse::detail {

class context_core;

/// Registers the calling thread with the watchdog until the thread ends, and starts the watchdog if
/// it does not run. Later calls on the same thread do nothing.
///
/// \par Cost    The first call: an allocation and a mutex, and perhaps the start of a thread.
/// \par Errors  None (noexcept). If there is no memory or no thread, polls of this thread are not
///              watched.
void watch_this_thread(hooks::thread_state& ts) noexcept;

/// Makes the watchdog watch polls of workers of `core` with the thresholds of `o`, until
/// forget_context(). If it watches them already, it uses these thresholds from now on, for polls
/// that are running as well. Without a threshold, or with `watchdog` off, it finds nothing.
///
/// \par Blocking  Never waits for a report.
/// \par Errors    None (noexcept). If there is no memory, they are not watched.
void watch_context(context_core& core, const options& o) noexcept;

/// Ends the watching of a context. When the call returns, the watchdog does not report about it,
/// and will not do so again. If it is called inside such a report, it does not wait.
///
/// \par Blocking  Waits for a report that is in progress, including the program's callback; never
///                for a handler.
void forget_context(context_core& core) noexcept;

/// Wakes the watchdog because there is something to look at, or starts it (after a fork).
///
/// \par Cost           A system call.
/// \par Memory order   Release, pairs with the watchdog's acquire before it looks.
void wake_watchdog() noexcept;

/// Whether the calling thread may call code of the program. False on the watchdog's thread after
/// exit() was called.
[[nodiscard]] bool may_call_program() noexcept;

}  // namespace asio_pulse::detail
