// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/hint_link.hpp>
#include <asio_pulse/hooks/thread_state.hpp>
#include <asio_pulse/options.hpp>

/// \file
/// Who brings workers and sources of hints together: one for the process.
///
/// Invariants, each of which a test breaks on:
/// 1. A worker never waits for a source: connecting, asking and sampling are done by the hub's own
///    thread. The worker takes what was prepared for it, at the beginning of a poll.
/// 2. What a thread's scheduling was before it joined, it is again when it has left, or when the
///    source is gone.
/// 3. A link's memory is mapped as long as any thread may look at it.
/// 4. A source that dies, is slow, or lies about its sizes costs the program its hints and nothing
///    else; when it comes back, so do they.
/// 5. A forked child has no link, no socket and no scheduling of its parent's.

namespace asio_pulse::detail {

/// What the options and the environment say: never environment.
///
/// \par Errors  std::invalid_argument where the variable says what is none of the names.
[[nodiscard]] hint_source wanted_hints(const options&);

/// The calling thread, which goes on running handlers of `core`, wants hints. No effect where it
/// has joined for another context, or does not go on (thread_state::compensable).
///
/// \par Errors  None (noexcept): without memory or a thread there are no hints.
void join_hints(hooks::thread_state& ts, context_core& core) noexcept;

/// It has ended what it joined for. Gives back its scheduling.
void leave_hints(hooks::thread_state& ts, context_core& core) noexcept;

/// Takes what has been prepared for the calling thread, or lets go of what is no more.
///
/// \par Cost  A mutex; with a new link, two system calls.
void take_hints(hooks::thread_state& ts) noexcept;

/// The process was forked and this is the child, in which threads may be started again.
void resume_hints() noexcept;

}  // namespace asio_pulse::detail
