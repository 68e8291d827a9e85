// SPDX-License-Identifier: BSL-1.0
//
// Metrics: what the workers, sites and tasks of a context have done, as one value that is copied
// out.

#pragma once

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

/// Durations, counted in buckets of at most an eighth of their value.
struct histogram {
  struct bucket {
    std::chrono::nanoseconds upper{0};  ///< the longest duration that is counted in it
    std::uint64_t count = 0;
    friend bool operator==(const bucket&, const bucket&) = default;
  };
  std::vector<bucket> buckets{};  ///< ascending; those that hold something
  std::uint64_t count = 0;
  std::chrono::nanoseconds sum{0};

  /// The least bucket's upper end that the share `q` (0 to 1) of the durations does not exceed;
  /// zero when there are none.
  [[nodiscard]] std::chrono::nanoseconds quantile(double q) const noexcept;
  /// Durations of at most `limit`, as far as the buckets tell: those that `limit` falls into count.
  [[nodiscard]] std::uint64_t at_most(std::chrono::nanoseconds limit) const noexcept;
  friend bool operator==(const histogram&, const histogram&) = default;
};

/// What was counted between two readings of the same histogram. A bucket that holds less than
/// before (the program was restarted) counts from zero.
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
  /// Of these: directly after another poll of the same site and task on the same worker. Most of
  /// them: it wakes itself, and nothing it waits for.
  std::uint64_t again = 0;
  std::chrono::nanoseconds cpu{0};
  std::chrono::nanoseconds longest{0};
  friend bool operator==(const site_metrics&, const site_metrics&) = default;
};

struct task_metrics {
  std::uint64_t id = 0;  ///< 0: work of no task
  std::string name{};    ///< as the user named it: any bytes, cut after 128
  tier level = tier::monitor;
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
  std::chrono::nanoseconds recent{0};  ///< CPU time in context_metrics::recent_interval
  bool waiting = false;                ///< operations of it are put back now
  friend bool operator==(const task_metrics&, const task_metrics&) = default;
};

/// A thread that polls the context, or a place of one that has left (thread 0).
struct worker_metrics {
  std::uint64_t thread = 0;  ///< the kernel's number
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
  /// The longest batch of handlers that one strand ran without a break, and its last handler's
  /// site.
  std::chrono::nanoseconds longest_batch{0};
  std::string batch_site{};
  /// The poll that it is in: of which site, and for how long by the wall clock. Empty: between
  /// polls.
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
  std::chrono::nanoseconds lasted{0};  ///< by the wall clock, so far where it goes on
  bool ended = false;
  stall_cause cause = stall_cause::unknown;
  std::string system_call{};
  std::vector<std::string> stack{};  ///< one line a frame, innermost first, escaped
  std::size_t blamed = no_frame;     ///< index of the frame to blame
  friend bool operator==(const stall_metrics&, const stall_metrics&) = default;
};

/// What is asked for.
struct metrics_request {
  std::size_t top_tasks = 50;  ///< at most; by recent CPU time, then by all of it
  std::size_t top_sites = 50;  ///< at most; by CPU time
  friend bool operator==(const metrics_request&, const metrics_request&) = default;
};

/// A context. Figures that only grow are since the context was made, those of sites, workers and
/// histograms since somebody first asked for metrics.
struct context_metrics {
  std::uint64_t number = 0;  ///< in the process, from 1
  std::string name{};        ///< options::name
  bool enabled = true;       ///< options::enabled
  bool shadow = false;       ///< options::shadow
  /// Sites, workers and histograms are being collected. False with the first request of an
  /// on-demand context: the next one has figures.
  bool collecting = false;
  statistics totals{};
  std::uint64_t polls = 0;          ///< of all tasks, ended ones included
  std::chrono::nanoseconds cpu{0};  ///< likewise
  histogram poll_duration{};
  histogram queue_delay{};  ///< from ready to run, of a probe posted every 10 ms while it is busy
  std::vector<worker_metrics> workers{};
  std::vector<site_metrics> sites{};
  site_metrics other_sites{};  ///< all that is not in `sites`; its `type` says of how many
  std::vector<task_metrics> tasks{};
  task_metrics other_tasks{};    ///< all that is not in `tasks`, ended ones included
  std::uint64_t task_count = 0;  ///< alive
  std::chrono::nanoseconds recent_interval{0};
  std::vector<stall_metrics> stalls{};  ///< the last ones, newest first, at most 16
  std::uint64_t instrument_bytes = 0;   ///< memory held by the instruments
  std::uint64_t uncollected_workers =
      0;  ///< threads for whom options::instrument_bytes left no room
  friend bool operator==(const context_metrics&, const context_metrics&) = default;
};

/// All contexts of a process.
struct process_metrics {
  std::uint64_t pid = 0;
  std::string program{};  ///< base name of the executable
  std::string version{};  ///< of asio-pulse, as "0.1.0"
  std::chrono::system_clock::time_point at{};
  std::chrono::nanoseconds uptime{0};  ///< the steady clock: for rates between two readings
  std::vector<context_metrics> contexts{};
  friend bool operator==(const process_metrics&, const process_metrics&) = default;
};

/// All contexts of this process, as io_context::metrics() does for one.
///
/// \par Cost           See io_context::metrics().
/// \par Thread safety  Any thread but a signal handler.
/// \par Errors         std::bad_alloc.
[[nodiscard]] process_metrics collect(const metrics_request& = {});

/// What is worth a look, as a sentence each.
enum class lint_kind : std::uint8_t {
  long_poll,      ///< a handler that runs for long without a checkpoint
  self_waking,    ///< a task that wakes itself most of the time
  greedy_strand,  ///< a strand whose batches keep a worker for long
  blocked_lock,   ///< a handler that waited for a lock
  blocked_dns,    ///< a handler that waited for a name to be resolved
  blocked_call,   ///< a handler that waited in another system call
  rising_delay,   ///< the queue delay rises
  hot_task,       ///< one task takes most of the CPU time
  held_back,      ///< much work is put back
  no_watchdog,    ///< stalls are not looked for
  not_collected   ///< the figures are not whole
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(lint_kind) noexcept;

struct lint {
  lint_kind kind = lint_kind::long_poll;
  std::uint64_t context = 0;  ///< context_metrics::number
  std::string subject{};      ///< the task's or site's name; not escaped
  std::string text{};         ///< what was seen, with figures; the subject is escaped in it
  std::string advice{};       ///< what to do about it
  std::string_view anchor{};  ///< heading in asio_pulse/docs/lints.md
  friend bool operator==(const lint&, const lint&) = default;
};

/// What is to be seen in a reading, and in the change since an earlier one of the same process
/// (null: since the beginning). Worst first.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::vector<lint> lints(const process_metrics& now,
                                      const process_metrics* before = nullptr);

}  // namespace asio_pulse
