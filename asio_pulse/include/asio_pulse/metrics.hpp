// SPDX-License-Identifier: BSL-1.0
//
// Metrics: what the workers, sites and tasks of a context have done. They are plain values, copied
// out of the context.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/stack_trace.hpp>
#include <asio_pulse/statistics.hpp>
#include <asio_pulse/tier.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse {

/// A histogram of durations. A bucket is at most an eighth of its durations wide.
struct histogram {
  struct bucket {
    std::chrono::nanoseconds upper{0};  ///< the longest duration in the bucket
    std::uint64_t count = 0;
    friend bool operator==(const bucket&, const bucket&) = default;
  };
  std::vector<bucket> buckets{};  ///< ascending; empty buckets are left out
  std::uint64_t count = 0;
  std::chrono::nanoseconds sum{0};

  /// The quantile `q` (0 to 1), rounded up to the end of its bucket: at least the share `q` of the
  /// durations does not exceed it. Zero if the histogram is empty.
  [[nodiscard]] std::chrono::nanoseconds quantile(double q) const noexcept;
  /// How many durations are at most `limit`. The bucket that contains `limit` counts as a whole.
  [[nodiscard]] std::uint64_t at_most(std::chrono::nanoseconds limit) const noexcept;
  friend bool operator==(const histogram&, const histogram&) = default;
};

/// What was counted between two readings of the same histogram. If a bucket holds less than before,
/// because the program was restarted, its later value is taken.
///
/// \par Errors  std::bad_alloc.
histogram difference(const histogram& later, const histogram& earlier);

/// A place in the source, as far as it is known. Empty and zero: not known.
struct source_place {
  std::string file{};
  std::uint32_t line = 0;
  std::string function{};
  friend bool operator==(const source_place&, const source_place&) = default;
};

/// A kind of handler: its type, and where it was created.
struct site_metrics {
  std::string type{};  ///< shortened as in reports; not escaped
  source_place place{};
  std::uint64_t polls = 0;
  /// The polls among these that came directly after another poll of the same site and task on the
  /// same worker. If that is most of them, the handler wakes itself and waits for nothing.
  std::uint64_t again = 0;
  std::chrono::nanoseconds cpu{0};
  std::chrono::nanoseconds longest{0};
  friend bool operator==(const site_metrics&, const site_metrics&) = default;
};

struct task_metrics {
  std::uint64_t id = 0;  ///< 0 for the unnamed task
  std::string name{};    ///< as the program named it: any bytes, at most 128
  tier level = tier::monitor;
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
  std::chrono::nanoseconds recent{0};  ///< CPU time in context_metrics::recent_interval
  bool waiting = false;                ///< it has operations held back now
  friend bool operator==(const task_metrics&, const task_metrics&) = default;
};

/// A thread that polls the context, or the slot of one that has left (`thread` is 0).
struct worker_metrics {
  std::uint64_t thread = 0;  ///< the kernel's id of the thread
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
  /// The longest batch of handlers that one strand ran without a break, and the site of the last
  /// handler in it.
  std::chrono::nanoseconds longest_batch{0};
  std::string batch_site{};
  /// The site of the poll that the worker is in, and how long that has lasted by the wall clock.
  /// Empty between polls.
  std::string running{};
  std::uint64_t running_task = 0;
  std::chrono::nanoseconds running_for{0};
  friend bool operator==(const worker_metrics&, const worker_metrics&) = default;
};

/// A poll that the watchdog found stuck.
struct stall_metrics {
  std::chrono::system_clock::time_point at{};  ///< when it was found
  std::uint64_t task_id = 0;
  std::string task{};
  std::string site{};
  source_place place{};
  std::uint64_t thread = 0;
  std::chrono::nanoseconds lasted{0};  ///< by the wall clock; so far, if it has not ended
  bool ended = false;
  stall_cause cause = stall_cause::unknown;
  std::string system_call{};
  stack_trace stack{};            ///< the innermost 32 frames at most; long names are cut
  std::size_t blamed = no_frame;  ///< index of the frame to blame
  friend bool operator==(const stall_metrics&, const stall_metrics&) = default;
};

/// How much a reading of the metrics contains.
struct metrics_request {
  std::size_t top_tasks = 50;  ///< at most; by recent CPU time, then by all of it
  std::size_t top_sites = 50;  ///< at most; by CPU time
  friend bool operator==(const metrics_request&, const metrics_request&) = default;
};

/// The metrics of a context. Counters count since the context was made; those of sites, workers and
/// histograms count since metrics were first asked for.
struct context_metrics {
  std::uint64_t number = 0;  ///< in the process, from 1
  std::string name{};        ///< options::name
  bool enabled = true;       ///< options::enabled
  bool shadow = false;       ///< options::shadow
  /// Whether sites, workers and histograms are being collected. It is false in the first reading of
  /// a context that collects on demand; the next one has figures.
  bool collecting = false;
  statistics totals{};
  std::uint64_t polls = 0;          ///< of all tasks, ended ones included
  std::chrono::nanoseconds cpu{0};  ///< likewise
  histogram poll_duration{};
  histogram queue_delay{};  ///< from ready to run, of a probe posted every 10 ms while busy
  std::vector<worker_metrics> workers{};
  std::vector<site_metrics> sites{};
  site_metrics other_sites{};  ///< the sum of all others; `type` gives their number
  std::vector<task_metrics> tasks{};
  task_metrics other_tasks{};    ///< the sum of all others, ended ones included
  std::uint64_t task_count = 0;  ///< alive
  std::chrono::nanoseconds recent_interval{0};
  std::vector<stall_metrics> stalls{};  ///< the most recent ones, newest first, at most 16
  std::uint64_t instrument_bytes = 0;   ///< memory held by the instruments
  /// Threads that are not measured, because options::instrument_bytes leaves no room for them.
  std::uint64_t uncollected_workers = 0;
  friend bool operator==(const context_metrics&, const context_metrics&) = default;
};

/// All contexts of a process.
struct process_metrics {
  std::uint64_t pid = 0;
  std::string program{};  ///< base name of the executable
  std::string version{};  ///< of asio-pulse, as "0.1.0"
  std::chrono::system_clock::time_point at{};
  std::chrono::nanoseconds uptime{0};  ///< by the steady clock; for rates between two readings
  std::vector<context_metrics> contexts{};
  friend bool operator==(const process_metrics&, const process_metrics&) = default;
};

/// All contexts of this process, as io_context::metrics() does for one.
///
/// \par Cost           See io_context::metrics().
/// \par Thread safety  Any thread but a signal handler.
/// \par Errors         std::bad_alloc.
[[nodiscard]] process_metrics collect(const metrics_request& = {});

}  // namespace asio_pulse
