// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// A switch for tests: every checkpoint yields, and every operation is parked once before it runs.
///
/// It exists only in builds with ASIO_PULSE_TESTABLE_PREEMPTION=1, which the CMake option of that
/// name defines for the whole program. There, ASIO_PULSE_ALWAYS_PREEMPT=1 in the environment turns
/// it on for the life of the process. In every other build it is a constant.

namespace asio_pulse::hooks::detail {

#if defined(ASIO_PULSE_TESTABLE_PREEMPTION) && ASIO_PULSE_TESTABLE_PREEMPTION
/// Initialised before main() and never written again, so threads need no ordering to read it.
extern const bool always_preempt_requested;

[[nodiscard]] inline bool always_preempt() noexcept { return always_preempt_requested; }
#else
[[nodiscard]] constexpr bool always_preempt() noexcept { return false; }
#endif

}  // namespace asio_pulse::hooks::detail
