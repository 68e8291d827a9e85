// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "threads/thread_usage.hpp"

#include <asio_pulse/stack_trace.hpp>

#include <cstdint>

/// \file
/// Why a thread makes no progress: its CPU time compared with wall time, and what the kernel
/// reports.

namespace asio_pulse::detail {

/// Two looks at one thread, and the wall time between them.
struct stall_evidence {
  thread_usage before;
  thread_usage now;
  std::int64_t wall_ns = 0;
};

/// Why the thread made no progress between the two looks. Pure. Returns `unknown` in doubt.
[[nodiscard]] stall_cause classify(const stall_evidence&) noexcept;

/// What a poll did. `own_ns` is its own time (without waits for a CPU, and stops), `cpu_ns` how
/// much of that was CPU time. Both looks were at its thread during the poll. Without own time, the
/// result is that of classify() for the looks. Pure. Returns `unknown` in doubt.
[[nodiscard]] stall_cause classify(std::int64_t own_ns, std::int64_t cpu_ns,
                                   const stall_evidence&) noexcept;

/// How much of the wall time the thread waited for a CPU or was stopped: from 0 to `wall_ns`. Pure.
/// In doubt, it is rather too much than too little.
[[nodiscard]] std::int64_t excused_ns(const stall_evidence&) noexcept;

}  // namespace asio_pulse::detail
