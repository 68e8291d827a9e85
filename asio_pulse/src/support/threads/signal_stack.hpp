// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

/// \file
/// The stack on which signal handlers of the calling thread run.

namespace asio_pulse::detail {

/// Gives the calling thread a signal stack if it has none. drop_signal_stack() must be called on
/// the same thread before it ends. Null if it has one already, or there is no memory.
///
/// \par Cost  Two system calls, and a mapping if it makes one.
[[nodiscard]] void* make_signal_stack() noexcept;
void drop_signal_stack(void* stack) noexcept;

/// Whether the calling thread's stack may have no room for a signal handler. A handler takes 1 to
/// 12 KiB, which depends on the processor's registers. A program that makes stacks smaller than 128
/// KiB probably uses most of them.
///
/// \par Cost  One or two system calls that the C library makes anyway (gettid, sched_getaffinity).
[[nodiscard]] bool has_small_stack() noexcept;

/// Whether the calling thread has a signal stack that is large enough for a handler of ours.
///
/// \par Cost  A system call.
[[nodiscard]] bool has_signal_stack() noexcept;

}  // namespace asio_pulse::detail
