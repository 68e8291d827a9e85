// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/clock.hpp>

namespace asio_pulse::detail {

/// Clocks that can be attached by kind, cheapest exact one first; steady is the last resort.
inline constexpr timing::clock_kind preference[] = {
    timing::clock_kind::rseq_tsc,      timing::clock_kind::perf_mmap,
    timing::clock_kind::thread_cycles, timing::clock_kind::thread_cputime,
    timing::clock_kind::mach_thread,   timing::clock_kind::steady};

/// The result of trying a clock, in a form that needs no allocation.
struct probe_result {
  bool available = false;
  bool shows_blocking = false;  ///< rseq_tsc: the kernel clears the descriptor on blocking too
  char reason[200] = {};
};

/// Tries the clock, once per process. A kind that is never asked for costs nothing.
[[nodiscard]] const probe_result& probe(timing::clock_kind kind) noexcept;

}  // namespace asio_pulse::detail
