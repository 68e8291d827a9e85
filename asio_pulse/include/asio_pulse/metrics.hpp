// SPDX-License-Identifier: BSL-1.0
//
// Metrics: what the workers, sites and tasks of a context have done. They are plain values, copied
// out of the context.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/shard_balance.hpp>
#include <asio_pulse/stack_trace.hpp>
#include <asio_pulse/statistics.hpp>
#include <asio_pulse/tier.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
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

/// Describes a figure of a site, a task, a group, a shard or a worker: its meaning, and its names outside the process.
template <class Of>
struct figure {
  enum class kind : std::uint8_t {
    counter,  ///< only grows
    gauge,    ///< as it is now
    peak      ///< as a gauge, but the largest counts of several that are shown as one
  };

  std::string_view name;  ///< of the member
  kind what;
  std::variant<std::uint64_t Of::*, std::chrono::nanoseconds Of::*, bool Of::*> member;
  std::string_view help;  ///< the meaning, without a full stop
  /// The name in the JSON of pulse_top, which ends in `_ns` for times. Empty if it is not there, or
  /// if pulse_top treats the member in another way.
  std::string_view json{};
  /// The name of the metric for Prometheus, without the prefix; for times it contains `_seconds`.
  /// Empty if there is none, or if the exporter treats the member in another way.
  std::string_view metric{};
  /// The help of the metric, if it is not made of `help`.
  std::string_view metric_help{};
};

/// The figures of site_metrics, task_metrics, group_metrics, shard_metrics and worker_metrics, in their
/// order on the wire. The wire format, the JSON of pulse_top, the Prometheus exporter and the tables in their
/// documentation are derived from it. A new figure needs a member, a row here, and the line that
/// measures it. Members that are no figures, such as names, have code of their own.
template <class Of>
inline constexpr auto figure_table = nullptr;

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
  /// Automatic checkpoints where it was time to suspend the handler (docs/auto_checkpoints.md).
  std::uint64_t suspended = 0;
  std::uint64_t refused = 0;
  std::uint64_t refused_lock = 0;
  /// The lock at the last of these, and the function that held it, as far as their names are known.
  std::string lock{};
  friend bool operator==(const site_metrics&, const site_metrics&) = default;
};

template <>
inline constexpr auto figure_table<site_metrics> = std::to_array<figure<site_metrics>>({
    {"cpu", figure<site_metrics>::kind::counter, &site_metrics::cpu, "CPU time of the handlers",
     "cpu_ns", "site_cpu_seconds_total",
     "CPU time of handlers, in seconds, by kind of handler (those with the most)"},
    {"polls", figure<site_metrics>::kind::counter, &site_metrics::polls, "handlers run", "polls",
     "site_polls_total", "handlers run, by kind of handler (those with the most CPU time)"},
    {"again", figure<site_metrics>::kind::counter, &site_metrics::again,
     "handlers run directly after another one of the same kind and task", "again",
     "site_self_waking_polls_total"},
    {"suspended", figure<site_metrics>::kind::counter, &site_metrics::suspended,
     "times that an automatic checkpoint has suspended a handler", "suspended",
     "site_automatic_suspensions_total"},
    {"refused", figure<site_metrics>::kind::counter, &site_metrics::refused,
     "times that an automatic checkpoint would have suspended a handler, and it was not safe",
     "refused", "site_automatic_refusals_total"},
    {"refused_lock", figure<site_metrics>::kind::counter, &site_metrics::refused_lock,
     "of these: times that a lock was held", "refused_lock", "site_automatic_lock_refusals_total"},
    {"longest", figure<site_metrics>::kind::peak, &site_metrics::longest,
     "CPU time of the longest run of a handler", "longest_ns", "site_longest_poll_seconds"},
});

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

template <>
inline constexpr auto figure_table<task_metrics> = std::to_array<figure<task_metrics>>({
    {"cpu", figure<task_metrics>::kind::counter, &task_metrics::cpu, "CPU time of its handlers",
     "cpu_ns"},
    {"polls", figure<task_metrics>::kind::counter, &task_metrics::polls, "its handlers run",
     "polls"},
    {"recent", figure<task_metrics>::kind::gauge, &task_metrics::recent,
     "CPU time in the recent past"},
    {"waiting", figure<task_metrics>::kind::gauge, &task_metrics::waiting,
     "whether it has operations held back now", "held_back", "task_waiting",
     "tasks of this name that have operations held back now"},
});

/// A group of tasks. See task_group.
struct group_metrics {
  /// Its name and those of the groups above it, the one at the top first, with "/" between them; a "/"
  /// or "\" in a name follows a "\". Any bytes, at most 128 of each name. Groups with the same
  /// parent may have the same name.
  std::string path{};
  std::string name{};                  ///< the last part of the path, as the program named it
  std::chrono::nanoseconds cpu{0};     ///< of its tasks and those of the groups below it
  std::chrono::nanoseconds recent{0};  ///< CPU time in context_metrics::recent_interval
  /// What `recent` would have been if the CPU time of all groups had been divided by the weights of
  /// the groups that wanted some of it: those that used CPU time, and those whose requests were
  /// refused.
  std::chrono::nanoseconds asked{0};
  std::uint64_t weight = 0;
  std::uint64_t tasks = 0;     ///< alive; of the group itself, as are the requests
  std::uint64_t admitted = 0;  ///< requests
  std::uint64_t refused_share = 0;
  std::uint64_t refused_overload = 0;
  /// The queue delay when the group's last request was decided about.
  std::chrono::nanoseconds queue_delay{0};
  /// Whether it would use more CPU time if it got more, as far as admit() knows.
  bool wants_more = false;
  friend bool operator==(const group_metrics&, const group_metrics&) = default;
};

template <>
inline constexpr auto figure_table<group_metrics> = std::to_array<figure<group_metrics>>({
    {"cpu", figure<group_metrics>::kind::counter, &group_metrics::cpu,
     "CPU time of its tasks and of the groups below it", "cpu_ns", "group_cpu_seconds_total",
     "CPU time of the group's tasks and of the groups below it, in seconds"},
    {"recent", figure<group_metrics>::kind::gauge, &group_metrics::recent,
     "CPU time in the recent past"},
    {"asked", figure<group_metrics>::kind::gauge, &group_metrics::asked,
     "CPU time in the recent past that its weight asked for"},
    {"weight", figure<group_metrics>::kind::gauge, &group_metrics::weight, "its weight", "weight",
     "group_weight", "the group's weight"},
    {"tasks", figure<group_metrics>::kind::gauge, &group_metrics::tasks, "its tasks alive", "tasks",
     "group_tasks", "the group's tasks alive"},
    {"admitted", figure<group_metrics>::kind::counter, &group_metrics::admitted,
     "its requests that admit() has admitted", "admitted", "group_requests_admitted_total",
     "the group's requests that admit() has admitted"},
    {"refused_share", figure<group_metrics>::kind::counter, &group_metrics::refused_share,
     "its requests refused because it had its share of an overloaded context", "refused_share",
     "group_requests_refused_share_total",
     "the group's requests refused because it had its share of an overloaded context"},
    {"refused_overload", figure<group_metrics>::kind::counter, &group_metrics::refused_overload,
     "its requests refused because of an overload that no single group caused", "refused_overload",
     "group_requests_refused_overload_total",
     "the group's requests refused because of an overload that no single group caused"},
    {"queue_delay", figure<group_metrics>::kind::peak, &group_metrics::queue_delay,
     "the queue delay when its last request was decided about", "queue_delay_ns",
     "group_queue_delay_seconds",
     "the queue delay when the group's last request was decided about, in seconds"},
    {"wants_more", figure<group_metrics>::kind::gauge, &group_metrics::wants_more,
     "whether it would use more CPU time if it got more, as far as admit() knows", "wants_more"},
});

/// Something that has moved to a shard.
struct shard_move_metrics {
  std::string who{};       ///< its task's name, or what else names it: any bytes, at most 47
  std::uint64_t from = 0;  ///< the shard that it came from
  std::uint64_t to = 0;
  move_reason why = move_reason::imbalance;
  std::chrono::nanoseconds ago{0};   ///< when it arrived, before the reading
  std::chrono::nanoseconds took{0};  ///< from the decision until it had arrived
  friend bool operator==(const shard_move_metrics&, const shard_move_metrics&) = default;
};

/// A shard of a sharded_context.
struct shard_metrics {
  std::uint64_t set = 0;              ///< number of the sharded_context in the process, from 1
  std::uint64_t index = 0;            ///< of the shard
  std::uint64_t shards = 0;           ///< of the sharded_context; 0: the context is no shard
  std::uint64_t cpu_permille = 0;     ///< of a CPU, that its thread has used
  std::chrono::nanoseconds delay{0};  ///< how long an operation waited for its turn
  std::uint64_t movable = 0;          ///< connections and tasks that may move
  bool draining = false;
  /// Why the shard gives nothing away; `moves` if it does.
  stay_reason keeps = stay_reason::balanced;
  std::uint64_t in_imbalance = 0;  ///< moves to it, by their reason
  std::uint64_t in_stuck = 0;
  std::uint64_t in_drain = 0;
  std::uint64_t in_ordered = 0;
  std::uint64_t out_imbalance = 0;  ///< moves from it, by their reason
  std::uint64_t out_stuck = 0;
  std::uint64_t out_drain = 0;
  std::uint64_t out_ordered = 0;
  std::uint64_t received = 0;  ///< messages and answers of other shards
  std::uint64_t wakes = 0;     ///< how often one of them found it asleep
  bool pinned = false;
  std::uint64_t cpu = 0;                    ///< that its thread is pinned to
  std::vector<shard_move_metrics> moves{};  ///< the last ones to it, newest first, at most 8
  friend bool operator==(const shard_metrics&, const shard_metrics&) = default;

  [[nodiscard]] std::uint64_t moves_in() const noexcept {
    return in_imbalance + in_stuck + in_drain + in_ordered;
  }
  [[nodiscard]] std::uint64_t moves_out() const noexcept {
    return out_imbalance + out_stuck + out_drain + out_ordered;
  }
};

template <>
inline constexpr auto figure_table<shard_metrics> = std::to_array<figure<shard_metrics>>({
    {"set", figure<shard_metrics>::kind::gauge, &shard_metrics::set,
     "number of its sharded_context in the process", "set"},
    {"index", figure<shard_metrics>::kind::gauge, &shard_metrics::index, "its number", "index"},
    {"shards", figure<shard_metrics>::kind::gauge, &shard_metrics::shards,
     "shards of its sharded_context", "shards"},
    {"cpu_permille", figure<shard_metrics>::kind::gauge, &shard_metrics::cpu_permille,
     "thousandths of a CPU that its thread has used, when it was last measured", "cpu_permille",
     "shard_cpu_permille"},
    {"delay", figure<shard_metrics>::kind::gauge, &shard_metrics::delay,
     "how long an operation waited for its turn, when that was last measured", "delay_ns",
     "shard_delay_seconds",
     "how long an operation of the shard waited for its turn, when that was last measured, in "
     "seconds"},
    {"movable", figure<shard_metrics>::kind::gauge, &shard_metrics::movable,
     "its connections and tasks that may move", "movable", "shard_movable"},
    {"draining", figure<shard_metrics>::kind::gauge, &shard_metrics::draining,
     "whether it gives everything away", "draining", "shard_draining"},
    {"in_imbalance", figure<shard_metrics>::kind::counter, &shard_metrics::in_imbalance,
     "moves to it because another shard had more load", "in_imbalance",
     "shard_moves_in_imbalance_total"},
    {"in_stuck", figure<shard_metrics>::kind::counter, &shard_metrics::in_stuck,
     "moves to it from shards that were stuck", "in_stuck", "shard_moves_in_stuck_total"},
    {"in_drain", figure<shard_metrics>::kind::counter, &shard_metrics::in_drain,
     "moves to it from shards that were drained", "in_drain", "shard_moves_in_drain_total"},
    {"in_ordered", figure<shard_metrics>::kind::counter, &shard_metrics::in_ordered,
     "moves to it that the program ordered", "in_ordered", "shard_moves_in_ordered_total"},
    {"out_imbalance", figure<shard_metrics>::kind::counter, &shard_metrics::out_imbalance,
     "moves from it because it had more load than others", "out_imbalance",
     "shard_moves_out_imbalance_total"},
    {"out_stuck", figure<shard_metrics>::kind::counter, &shard_metrics::out_stuck,
     "moves from it because it was stuck", "out_stuck", "shard_moves_out_stuck_total"},
    {"out_drain", figure<shard_metrics>::kind::counter, &shard_metrics::out_drain,
     "moves from it because it was drained", "out_drain", "shard_moves_out_drain_total"},
    {"out_ordered", figure<shard_metrics>::kind::counter, &shard_metrics::out_ordered,
     "moves from it that the program ordered", "out_ordered", "shard_moves_out_ordered_total"},
    {"received", figure<shard_metrics>::kind::counter, &shard_metrics::received,
     "messages and answers of other shards", "received", "shard_messages_total"},
    {"wakes", figure<shard_metrics>::kind::counter, &shard_metrics::wakes,
     "how often a message found it asleep", "wakes", "shard_wakes_total"},
    {"pinned", figure<shard_metrics>::kind::gauge, &shard_metrics::pinned,
     "whether its thread is pinned to a CPU", "pinned", "shard_pinned"},
    {"cpu", figure<shard_metrics>::kind::gauge, &shard_metrics::cpu,
     "the CPU that its thread is pinned to", "cpu"},
});

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

template <>
inline constexpr auto figure_table<worker_metrics> = std::to_array<figure<worker_metrics>>({
    {"thread", figure<worker_metrics>::kind::gauge, &worker_metrics::thread,
     "the kernel's id of the worker's thread; 0 if it has left", "thread", "worker_thread"},
    {"polls", figure<worker_metrics>::kind::counter, &worker_metrics::polls,
     "handlers run by the worker", "", "worker_polls_total"},
    {"cpu", figure<worker_metrics>::kind::counter, &worker_metrics::cpu,
     "CPU time of handlers on the worker", "", "worker_cpu_seconds_total"},
    {"running_for", figure<worker_metrics>::kind::gauge, &worker_metrics::running_for,
     "how long the worker's current poll has lasted by the wall clock", "",
     "worker_running_seconds",
     "how long the worker's current poll has lasted by the wall clock, in seconds; 0 between "
     "polls"},
    {"longest_batch", figure<worker_metrics>::kind::peak, &worker_metrics::longest_batch,
     "the longest batch of handlers that one strand ran on the worker without a break", "",
     "worker_longest_batch_seconds"},
});

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
  std::size_t top_tasks = 50;   ///< at most; by recent CPU time, then by all of it
  std::size_t top_sites = 50;   ///< at most; by CPU time
  std::size_t top_groups = 50;  ///< at most; by recent CPU time, then by all of it
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
  std::vector<group_metrics> groups{};
  /// The sum of all others. CPU times are only those of groups at the top: those of the others are
  /// parts of them.
  group_metrics other_groups{};
  std::uint64_t group_count = 0;  ///< alive
  /// The recent CPU time of all groups. What a group's `recent` and `asked` are shares of.
  std::chrono::nanoseconds group_recent{0};
  shard_metrics shard{};  ///< if the context is a shard
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
