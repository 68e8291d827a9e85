// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::timing {

/// What can tell the CPU time that a poll consumed, cheapest exact source first.
///
/// | kind           | counts                              | a read costs   | off-CPU counts     |
/// |----------------|-------------------------------------|----------------|--------------------|
/// | rseq_tsc       | TSC, vouched for by the kernel      | one RDTSC      | no                 |
/// | perf_mmap      | perf's task clock, its shared page  | one RDTSC      | no                 |
/// | published      | run time that a scheduler publishes | one RDTSC      | no                 |
/// | thread_cputime | CLOCK_THREAD_CPUTIME_ID             | a system call  | no                 |
/// | steady         | the timebase                        | one read of it | yes (occupancy)    |
/// | thread_cycles  | QueryThreadCycleTime (Windows)      | a system call  | no                 |
/// | mach_thread    | thread_info (macOS)                 | a system call  | no                 |
/// | manual         | a manual_clock                      | two loads      | as the test says   |
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

/// The enumerator's name ("rseq_tsc"); "unknown" for a value that is none.
[[nodiscard]] std::string_view to_string(clock_kind kind) noexcept;

/// Whether a clock works in this process, and how that is known.
struct clock_status {
  clock_kind kind = clock_kind::none;
  bool available = false;
  std::string reason{};
};

/// Every kind except none, in order of preference, each tried once per process.
///
/// `published` and `manual` are never available by themselves: they need a source to attach to.
///
/// \par Cost           First call: that of default_clock(), and some milliseconds for the kernel's
///                     first perf_event_open. Later calls: one branch.
/// \par Thread safety  Any thread.
/// \par Errors         May throw std::bad_alloc on the first call.
[[nodiscard]] const std::vector<clock_status>& probe_clocks();

/// The clock that poll_clock::attach() prefers in this process, with the reason for the choice and
/// for each that was passed over.
///
/// \par Cost           First call: the timebase's calibration and the trials up to the first clock
/// that
///                     works. For rseq_tsc a short-lived thread and less than a millisecond; up to
///                     50 ms where the kernel clears descriptors on involuntary preemption only.
/// \par Thread safety  Any thread.
/// \par Errors         May throw std::bad_alloc on the first call.
[[nodiscard]] const clock_status& default_clock();

}  // namespace asio_pulse::timing
