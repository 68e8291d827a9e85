// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

class context_core;

/// Other processes of the user, and collect(), can see the context from now on, where its options
/// allow that. Starts the thread that answers them, once per process.
///
/// \par Errors  None (noexcept): without memory, a socket or a thread it cannot be seen.
void show_context(context_core& core) noexcept;

/// As if it had never been seen: nobody reads it any more, and no probe is being posted.
///
/// \par Blocking  Waits for a snapshot that is being made.
void hide_context(context_core& core) noexcept;

/// The watchdog has found a stall in it: time to keep what led to it, where that is wanted.
void inspect_stalled(context_core& core) noexcept;

/// A context has begun to collect: its queue is to be probed.
void inspect_collecting() noexcept;

/// The process was forked and this is the child.
void resume_inspection() noexcept;

}  // namespace asio_pulse::detail
