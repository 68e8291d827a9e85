// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hints.hpp>
#include <asio_pulse/hooks/thread_state.hpp>

/// \file
/// Connects workers with sources of hints. There is one hub in the process.
///
/// Invariants, which are tested:
/// 1. A worker never waits for a source. The hub's own thread connects, asks and samples. The
///    worker takes what was prepared for it at the beginning of a poll.
/// 2. When a thread has left, or its source is gone, its scheduling is as it was before it joined.
/// 3. A link's memory is mapped as long as any thread may use it.
/// 4. If a source dies, is slow, or gives wrong sizes, the program loses its hints and nothing
///    else. When the source comes back, so do the hints.
/// 5. A forked child has no link, no socket and no scheduling of its parent.

namespace asio_pulse::detail {

class context_core;
struct task_state;

/// Subscribes the calling thread, which runs handlers of `core`, to hints. No effect if it is
/// subscribed for another context, or its run function returns soon (thread_state::compensable).
///
/// \par Errors  None (noexcept). If there is no memory or no thread, there are no hints.
void join_hints(hooks::thread_state& ts, context_core& core) noexcept;

/// Ends the subscription, and restores the thread's scheduling.
void leave_hints(hooks::thread_state& ts, context_core& core) noexcept;

/// Takes the link that was prepared for the calling thread, or drops one that is gone.
///
/// \par Cost  A mutex; with a new link, two system calls.
void take_hints(hooks::thread_state& ts) noexcept;

/// A poll of `t` has ended at `now` on the calling worker of `core`, and there is a hint, or was
/// one recently. Makes the task's next operation go behind all others, and acknowledges the hint.
void hear_hint(hooks::thread_state& ts, context_core& core, task_state& t,
               timing::ticks now) noexcept;

/// Called in the child of a fork when threads may be started again.
void resume_hints() noexcept;

}  // namespace asio_pulse::detail
