// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

class context_telemetry;

/// Makes the context visible for collect().
///
/// \par Errors  None (noexcept). If there is no memory, it is not visible.
void show_context(context_telemetry& context) noexcept;

/// A thread has begun to run the context. If the context's options allow it, other processes of the
/// user see it from now on. Starts the thread that answers them, once per process.
///
/// \par Errors  None (noexcept). If there is no socket or thread, they do not see it.
void inspect_running(const context_telemetry& context) noexcept;

/// Undoes show_context(). When the call returns, no thread reads the context, and no probe is being
/// posted.
///
/// \par Blocking  Waits for a snapshot that is being made.
void hide_context(context_telemetry& context) noexcept;

/// The watchdog has found a stall in the context. Writes a recording if the options ask for that.
void inspect_stalled(context_telemetry& context) noexcept;

/// A context has begun to collect, so its queue has to be probed.
void inspect_collecting() noexcept;

/// Called in the child of a fork.
void resume_inspection() noexcept;

}  // namespace asio_pulse::detail
