// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <optional>

namespace asio_pulse::detail {

/// Whether the seccomp filters of the calling thread allow to take the stack of a running thread. A
/// child process tries it: it sends itself the signal with tgkill(2), reads memory in the handler,
/// and returns from the handler (rt_sigreturn). If a filter kills processes for one of these calls,
/// it kills the child. The program does not notice the child: it sends no SIGCHLD, waitpid() does
/// not find it, and it leaves no core.
///
/// \par Cost           A fork, which copies the page tables: about 1 ms, and more for each GB that
///                     the process uses. The calling thread is blocked meanwhile.
/// \par Thread safety  Any thread; not in signal handlers.
/// \par Errors         Empty if the child cannot be started, or the file cannot be opened.
[[nodiscard]] std::optional<bool> rehearse_capture(int signal) noexcept;

}  // namespace asio_pulse::detail
