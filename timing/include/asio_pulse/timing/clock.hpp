// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::timing {

/// The clocks that can measure the CPU time of a poll, the cheapest exact one first.
///
/// | kind           | counts                              | a read costs   | off-CPU counts     |
/// |----------------|-------------------------------------|----------------|--------------------|
/// | rseq_tsc       | TSC, vouched for by the kernel      | one RDTSC      | no                 |
/// | perf_mmap      | perf's task clock, its shared page  | one RDTSC      | no                 |
/// | published      | CPU time that a scheduler publishes | one RDTSC      | no                 |
/// | thread_cputime | CLOCK_THREAD_CPUTIME_ID             | a system call  | no                 |
/// | steady         | the timebase                        | one read of it | yes (occupancy)    |
/// | thread_cycles  | QueryThreadCycleTime (Windows)      | a system call  | no                 |
/// | mach_thread    | thread_info (macOS)                 | a system call  | no                 |
/// | manual         | a manual_clock                      | two loads      | as the test wants  |
enum class clock_kind : std::uint8_t {
  none,            ///< not attached
  rseq_tsc,        ///< TSC difference, valid while the kernel left our rseq descriptor in place
  perf_mmap,       ///< perf_event_mmap_page with cap_user_time
  published,       ///< seqlock'd run time written by a sched_ext scheduler
  thread_cputime,  ///< CLOCK_THREAD_CPUTIME_ID by system call
  steady,          ///< wall time: occupancy, never exact
  thread_cycles,   ///< Windows only; untested
  mach_thread,     ///< macOS only; untested
  manual           ///< for tests
};

/// The enumerator's name ("rseq_tsc"); "unknown" for a value that is not an enumerator.
[[nodiscard]] std::string_view to_string(clock_kind kind) noexcept;

/// Whether a clock works in this process, and why.
struct clock_status {
  clock_kind kind = clock_kind::none;
  bool available = false;
  std::string reason{};
};

/// All kinds except `none`, in order of preference. Each is tried once per process.
///
/// `published` and `manual` are never available here, because they need a source to attach to.
///
/// \par Cost           First call: that of default_clock(), and some milliseconds for the kernel's
///                     first perf_event_open. Later calls: one branch.
/// \par Thread safety  Any thread.
/// \par Errors         May throw std::bad_alloc on the first call.
[[nodiscard]] const std::vector<clock_status>& probe_clocks();

/// The clock that poll_clock::attach() prefers in this process, with the reason why, and why better
/// ones were not chosen.
///
/// \par Cost           First call: the calibration of the timebase, and the trials up to the first
///                     clock that works. The trial of rseq_tsc takes less than a millisecond; if
///                     the kernel clears descriptors on involuntary preemption only, it starts a
///                     short-lived thread and takes up to 50 ms.
/// \par Thread safety  Any thread.
/// \par Errors         May throw std::bad_alloc on the first call.
[[nodiscard]] const clock_status& default_clock();

}  // namespace asio_pulse::timing
