// SPDX-License-Identifier: BSL-1.0
//
// The options of contexts and tasks: aggregates of chrono durations and enumerations with defaults
// that suit most programs. Zero switches a feature off where the comment says so. A value out of
// range is refused with an exception that names the option.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/error.hpp>
#include <asio_pulse/group_ref.hpp>
#include <asio_pulse/hints.hpp>
#include <asio_pulse/report_kind.hpp>
#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/tier.hpp>
#include <asio_pulse/tier_manager.hpp>
#include <asio_pulse/timing/clock.hpp>

#include <boost/system/error_code.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace asio_pulse {

struct accepted_connection;
struct report;
class scheduling_policy;

/// How the priority of the isolation pool's threads is lowered.
enum class isolation_priority : std::uint8_t {
  normal,  ///< not changed
  batch,   ///< SCHED_BATCH
  idle,    ///< SCHED_IDLE
  nice,    ///< options::isolation_nice
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(isolation_priority) noexcept;

/// Which handlers may be put behind those of other tasks. Within a task, and within a strand, the
/// order is always Asio's.
enum class handler_order : std::uint8_t {
  /// Those of tasks that the program declared, and of connections in a group if the group has a
  /// budget or `policy` is not round_robin. While two or more threads run the context, also those of
  /// other accepted connections, because then Asio guarantees no order between handlers. None in a
  /// thread that runs the context through a reference to boost::asio::io_context.
  automatic,
  /// None: first in, first out, as in Asio. Checkpoints still yield.
  strict,
  /// Those of every task.
  per_task
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(handler_order) noexcept;

/// Which handlers run on a fiber, so that they can be suspended in the middle: by checkpoints that the
/// program wrote, and by those that the compiler wrote (docs/auto_checkpoints.md).
///
/// By choosing more than `declared` you promise, also for handlers that were not written for this, that
/// other handlers of their context may run in the middle of them, at any call or loop. The data that they
/// change must be consistent at each of these places, or be protected by a lock that is counted
/// (asio_pulse::lock_count), a critical_section, or a strand.
enum class preemptible_handlers : std::uint8_t {
  declared,     ///< those that the program wraps in preemptible(), and coroutines of spawn()
  connections,  ///< those, and the handlers of accepted and outgoing connections' tasks
  all           ///< those, and all others that the context runs, except accepts' handlers
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(preemptible_handlers) noexcept;

/// Which of the waiting tasks runs next while a context is saturated; see options::saturation.
/// Within a task, and within a strand, the order is always Asio's.
enum class scheduling : std::uint8_t {
  /// First in, first out. A task over its budget is held back in favour of work that has had less.
  round_robin,
  /// By task_options::priority, the most urgent class first. A task that has waited for 50 ms is
  /// served before those of more urgent classes, the longest waiting one first; but such tasks get
  /// at most an eighth of the CPU time, unless nothing else waits. So each task is served after
  /// 50 ms + 8 (k + 1) L at the latest, where k is the number of tasks that have waited for longer,
  /// and L the longest poll.
  priority,
  /// The group that has had the least CPU time for its weight; in it, the group below it that has had
  /// the least, and so on. Tasks in no group, and work of no task, count as one group of weight 100.
  /// So do the tasks of a group that has groups below it, beside those. Tasks of the same group get
  /// equal parts.
  fair,
  /// The task whose deadline is next; see task_options::deadline.
  deadline,
  /// The task that an object of the program chooses; see options::custom_policy.
  custom
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(scheduling) noexcept;

/// When figures are collected.
enum class instrument_mode : std::uint8_t {
  off,        ///< never
  on_demand,  ///< while they are read: by pulse_top, an exporter or the program
  on          ///< always
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(instrument_mode) noexcept;

/// A task's name and budget.
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct task_options {
  /// The name in reports. Any bytes, of any length; reports escape what is not printable.
  std::string name = {};

  /// CPU time that the task may use in every window of `per`. Zero: unlimited, the task is
  /// accounted for but never over budget. Otherwise at least 1 us, not above `per`, and not below
  /// `per` / 65535.
  ///
  /// The default is a tenth of a CPU. It is small enough that a storm of handlers is held back
  /// within a millisecond (benches/run --scenario storm). It does not slow down a task that runs
  /// alone: a task over budget still gets the CPU time that no other task wants.
  std::chrono::nanoseconds budget = std::chrono::microseconds{300};

  /// The window. Must be positive; at most 60 s.
  std::chrono::nanoseconds per = std::chrono::milliseconds{3};

  /// CPU time that the task may use at once after it was idle. Zero: one budget. Otherwise at least
  /// 1 us, and small enough to be refilled within 600 s.
  std::chrono::nanoseconds burst = std::chrono::nanoseconds{0};

  /// The task may run on the isolation pool. By setting this you promise that its handlers share no
  /// state with other handlers unless a strand or a lock protects it.
  bool isolatable = false;

  /// The task_group that the task belongs to, which must be one of the task's context. Empty: none.
  /// Cannot be set in options, because a context has no groups before it exists.
  group_ref group = {};

  /// The class of the task under scheduling::priority. From 0 to 7; higher is more urgent.
  unsigned priority = 3;

  /// How long the task's work may wait until it is started, under scheduling::deadline. It counts
  /// from when the work is ready; for a task made by this_task::begin(), from that call for all of its
  /// work. Zero: none, which counts as 100 ms. Otherwise at least 1 us; at most 60 s.
  std::chrono::nanoseconds deadline = std::chrono::nanoseconds{0};

  bool operator==(const task_options&) const = default;
};

/// A task_group's name, weight and budget.
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct group_options {
  /// The name in metrics. Any bytes, of any length.
  std::string name = {};

  /// The group's part of the CPU, relative to the weights of the groups beside it. From 1 to 10000.
  unsigned weight = 100;

  /// The group that this one is a part of. Empty: none. Groups can be nested 16 levels deep.
  group_ref parent = {};

  /// CPU time that the group's tasks, and those of the groups below it, may use together in every
  /// window of `per`. While the group is over it, its tasks are treated as tasks over their budget:
  /// they are held back in favour of others that wait. Zero: unlimited. Otherwise at least 1 us, not
  /// above `per`, and not below `per` / 65535.
  std::chrono::nanoseconds budget = std::chrono::nanoseconds{0};

  /// The window. Must be positive; at most 60 s.
  std::chrono::nanoseconds per = std::chrono::milliseconds{10};

  bool operator==(const group_options&) const = default;
};

/// When admit() refuses requests.
///
/// \par Source  Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue 10(5), 2012), for the two
///              options and their defaults.
struct admission_policy {
  /// Operations may wait this long in the context's queue. A context in which they wait longer is
  /// overloaded if that lasts. It should be some times as long as a handler. At least 10 us; at most
  /// an hour.
  std::chrono::nanoseconds target = std::chrono::milliseconds{5};

  /// How long the wait must be above `target` until requests are refused, and below it until the
  /// overload is over. It is also the time after which what a group used is forgotten. Not below
  /// `target`; at most an hour.
  std::chrono::nanoseconds interval = std::chrono::milliseconds{100};

  bool operator==(const admission_policy&) const = default;
};

/// The options of a context.
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct options {
  /// A poll that uses this much CPU time is slow: it is reported, and its task enters Warn. The
  /// same holds for a poll that is stuck for this long, spinning or blocked, while it is still
  /// stuck (see `watchdog`). Zero disables; at most an hour.
  std::chrono::nanoseconds stall_threshold = std::chrono::milliseconds{5};

  /// A poll that uses this much CPU time, or is stuck for this long, moves its task into Yield.
  /// Zero disables; otherwise not below stall_threshold; at most an hour.
  std::chrono::nanoseconds yield_threshold = std::chrono::milliseconds{20};

  /// A poll that uses this much CPU time, or is stuck for this long, moves its task into Isolate.
  /// Zero disables; otherwise not below stall_threshold and yield_threshold; at most an hour.
  std::chrono::nanoseconds isolate_threshold = std::chrono::milliseconds{50};

  /// The name and budget of each accepted connection's task, if accept_rule is on.
  task_options accepted = {.name = "connection"};

  /// The name and budget of each outgoing connection's task, if connect_rule is on.
  task_options connected = {.name = "outgoing connection"};

  /// The name and budget of work that belongs to no task. Such work is never held back, only
  /// reported. It has no budget by default, since a whole server may consist of it.
  task_options unnamed = {.name = "unnamed", .budget = std::chrono::nanoseconds{0}};

  /// Each accepted connection becomes a separate task, instead of work of its listener's task.
  bool accept_rule = true;

  /// Each outgoing connection becomes a separate task, instead of work of the task that opens it,
  /// unless the program declared that task.
  bool connect_rule = true;

  /// False: nothing is accounted for, and nothing is enforced.
  bool enabled = true;

  /// Shadow mode. True: everything is decided and reported, but nothing is enforced.
  bool shadow = false;

  /// Which handlers may be put behind those of other tasks.
  handler_order order = handler_order::automatic;

  /// A poll that has lasted this long yields at its next checkpoint, even if its task has budget
  /// left. Must be positive; at most an hour.
  std::chrono::nanoseconds quantum = std::chrono::microseconds{500};

  /// A checkpoint does not yield before the poll has lasted this long, unless a hint asks for it.
  /// Must be positive, and not above quantum.
  std::chrono::nanoseconds min_slice = std::chrono::microseconds{50};

  /// The number of threads in the isolation pool, which starts with the first task that is
  /// isolatable. Zero: no isolation. At most 256.
  std::size_t isolation_threads = 1;

  /// How the priority of these threads is lowered.
  asio_pulse::isolation_priority isolation_priority = asio_pulse::isolation_priority::batch;

  /// Their nice value, for isolation_priority::nice. From 0 to 19.
  int isolation_nice = 10;

  /// A task gets at most one report in this time. Zero: no such limit. At most an hour.
  std::chrono::nanoseconds report_interval = std::chrono::seconds{1};

  /// At most this many reports a second over all tasks. Zero: no such limit. At most 1 000 000.
  std::size_t reports_per_second = 10;

  /// Kinds of reports that are sent neither to on_report nor to stderr. They are counted in
  /// statistics::reports_silenced. Silencing a kind changes nothing else. If `stall` is silenced and
  /// `stall_ended` is not, the end of a stall is still reported.
  report_kinds silenced = {};

  /// Receives the reports. It is called on the worker at the end of the poll, and on the watchdog's
  /// thread for polls that do not end. Empty: reports go to write_to_stderr(), which does not
  /// block.
  ///
  /// On the watchdog's thread it must not wait for the stuck handler. Neither may it wait for the
  /// thread that destroys the context, because the destructor waits for it to return.
  std::function<void(const report&)> on_report = {};

  /// The clock with which polls are measured. Empty: the best one that this machine has. `none` and
  /// `manual` are refused.
  std::optional<timing::clock_kind> clock = std::nullopt;

  /// When tasks change their tier.
  tier_policy tiers = {};

  /// A critical section that is longer than this is reported when it is left, and while it lasts if
  /// the watchdog sees it. Zero disables; at most an hour.
  std::chrono::nanoseconds max_critical = std::chrono::milliseconds{1};

  /// A poll that has lasted for stall_threshold, and for at least 500 us, is reported while it goes
  /// on. One thread in the process watches all contexts. It does not watch this one if this option
  /// is false or stall_threshold is zero.
  bool watchdog = true;

  /// The signal with which the stack of a stuck thread is taken. Zero: SIGURG, which is ignored by
  /// default; Go's runtime uses it for the same reason. Negative: no signal, and no stacks.
  /// Otherwise it must be a signal for which a handler can be installed, and not one that reports a
  /// fault, such as SIGSEGV.
  int stall_signal = 0;

  /// How much of a stuck thread's stack is copied, in bytes. From 4096 to 1 MiB.
  std::size_t stack_bytes = 65536;

  /// The number of threads that may take over run() while all threads of the context are stuck in
  /// handlers. Zero: none. At most 64. If it is not zero, handlers may run on threads that did not
  /// call run().
  std::size_t spare_workers = 0;

  /// How long such a thread continues after the stall has ended. At most an hour.
  std::chrono::nanoseconds spare_cooldown = std::chrono::seconds{1};

  /// The size of a fiber's stack (preemptible(), spawn()), in bytes. It is rounded up to pages.
  /// From 16 KiB to 8 MiB.
  std::size_t fiber_stack = 65536;

  /// Where threads inside run(), run_for() and run_until() get hints from. There are no hints in
  /// poll() and run_one(), and none in calls through a boost::asio::io_context&.
  hint_source hints = hint_source::environment;

  /// The socket of scx_pulse. Empty: the value of the variable ASIO_PULSE_SOCKET or, if that is not
  /// set, "/run/scx_pulse.sock". At most 107 bytes.
  std::string hint_socket = {};

  /// What the scheduler may do if a worker ignores a hint. `none`: nothing is forced.
  escalation_policy escalation = escalation_policy::none;

  /// Whether the scheduler may escalate against the workers at all; see escapable_scope.
  bool escapable = true;

  /// The priority of the workers for a scheduler that uses priorities: 0 to 1000, higher is more
  /// urgent.
  int hint_priority = 500;

  /// The name of the context in reports and metrics. Any bytes, of any length.
  std::string name = {};

  /// When histograms, and the metrics of sites and workers, are collected (metrics.hpp). This costs
  /// about 4 ns for each poll while they are collected, and nothing while they are not.
  instrument_mode metrics = instrument_mode::on_demand;

  /// When events are collected for recordings and Perfetto (recording.hpp). This costs about 6 ns
  /// for each poll while they are collected, including that of metrics.
  instrument_mode trace = instrument_mode::on_demand;

  /// Memory that the metrics and events of this context may take, in bytes. At least 65536; at most
  /// 1 GiB. Workers for which no memory is left are not measured; context_metrics counts them.
  std::size_t instrument_bytes = std::size_t{2} << 20;

  /// The number of events that are kept of each worker, 16 bytes each, rounded up to a power of
  /// two. From 256 to 16777216. The default is a guess: it holds some milliseconds of a saturated
  /// worker, and seconds of most others.
  std::size_t trace_events = 8192;

  /// A folder for recordings. One is written when a stall is found while `trace` is `on`, and at
  /// `trace_signal`: at most one in 10 s, and 16 in all, named "PROGRAM.PID.NUMBER.pulse". Empty:
  /// no recordings.
  std::string trace_folder = {};

  /// The signal at which a recording is written. Zero: none. Otherwise it must be a signal for
  /// which a handler can be installed, and not one that reports a fault.
  int trace_signal = 0;

  /// When admit() refuses requests.
  admission_policy admission = {};

  /// Chooses the group of each accepted connection, if accept_rule is on: the connection's task joins
  /// the group that is returned, or none if that is empty. Empty: connections join no group. It is
  /// called in the poll that has accepted the connection, before its handler runs, on the worker, and
  /// its time is charged to the listener's task: if it is slow, the accept is reported as a slow
  /// poll. It is called on several workers at a time if several run the context. No lock is held.
  ///
  /// The connection joins no group if it throws, or returns a group of another context. That is
  /// reported as `misuse`, about the listener, and counted in statistics::classify_failures.
  ///
  /// A context has no groups before it exists. So either the function refers to groups that are made
  /// later, or it is set later, with io_context::classify().
  std::function<group_ref(const accepted_connection&)> classify = {};

  /// pulse_top, run by the same user, may look into this context. This needs a thread in the
  /// process, which sleeps while no client is connected.
  bool inspectable = true;

  /// Which of the waiting tasks runs next while the context is saturated. `order` says for which tasks
  /// the policy may decide; the others, and work of no task, keep their order in the queue.
  scheduling policy = scheduling::round_robin;

  /// A context is saturated when operations wait longer than this in its queue, until nothing waits
  /// any more. Until then `policy` has no effect. Zero: always saturated. Otherwise at least 10 us; at
  /// most an hour. Not used with scheduling::round_robin.
  std::chrono::nanoseconds saturation = std::chrono::microseconds{100};

  /// Makes the policy for scheduling::custom; see scheduling_policy.hpp. Called by the context's
  /// constructor and by io_context::update(), when `policy` becomes `custom`.
  std::function<std::unique_ptr<scheduling_policy>()> custom_policy = {};

  /// pulse_top, run by the same user or by root, may also change this context: enforcement and shadow
  /// mode, and the weights of groups. Without effect if `inspectable` is false. It is on by default
  /// because a process of the same user can stop or end this one anyway.
  bool controllable = true;

  /// Which handlers run on a fiber. Unless it is `declared`, stacks have 8 MiB of addresses instead of
  /// `fiber_stack` (only what a handler uses takes memory), and some part of the program must include
  /// <asio_pulse/preemptible.hpp>, which needs Boost.Context. If there is no memory for a fiber, the
  /// handler runs on its thread's stack.
  preemptible_handlers preemptible = preemptible_handlers::declared;

  /// Profiles: values to begin with, which can be changed before the context is made. The trade is
  /// between how soon others get the CPU and how much work is done in all, because each change of the
  /// task costs time, and the next one finds the caches cold. `benches/run profiles` shows it.
  ///
  /// They choose when the library acts, and not what it may do: the order of handlers, shadow mode,
  /// threads, and budgets of tasks that the program declares keep their defaults.
  ///
  /// latency(): others wait as little as possible. Checkpoints yield after 200 us, or 20 us over
  /// budget; the budgets of connections are the same tenth of a CPU in windows of 1 ms, so that a
  /// storm is noticed in a third of the time; the first overrun leads to Yield; polls are slow from
  /// 2 ms on; requests are refused when the queue is 2 ms long for 40 ms. More is reported, and work
  /// that fills the caches is slower.
  ///
  /// \par Errors  None of the three throws, except std::bad_alloc.
  [[nodiscard]] static options latency();
  /// balanced(): the defaults.
  [[nodiscard]] static options balanced();
  /// throughput(): as much work as possible. Checkpoints yield after 4 ms, or 400 us over budget; the
  /// windows of connections are 30 ms; polls are slow from 20 ms on; requests are refused when the
  /// queue is 50 ms long for 500 ms. Others wait for some milliseconds beside a task that hogs.
  [[nodiscard]] static options throughput();
};

/// The reason why options are refused, as "asio_pulse::options.quantum must be ... (got ...)".
/// Empty if they are valid.
std::string invalid_reason(const options&);

/// The same for the options of a task: "asio_pulse::task_options.budget must be ...".
std::string invalid_reason(const task_options&);
/// The same for the options of a group: "asio_pulse::group_options.weight must be ...".
std::string invalid_reason(const group_options&);

/// Throws if an option is out of range.
///
/// \par Errors  std::invalid_argument, whose text is invalid_reason().
void validate(const options&);
void validate(const task_options&);
void validate(const group_options&);

/// The same with an error code: sets `ec` to error::invalid_option, or clears it.
inline void validate(const options& o, boost::system::error_code& ec) {
  ec = invalid_reason(o).empty() ? boost::system::error_code()
                                 : make_error_code(error::invalid_option);
}
inline void validate(const task_options& o, boost::system::error_code& ec) {
  ec = invalid_reason(o).empty() ? boost::system::error_code()
                                 : make_error_code(error::invalid_option);
}
inline void validate(const group_options& o, boost::system::error_code& ec) {
  ec = invalid_reason(o).empty() ? boost::system::error_code()
                                 : make_error_code(error::invalid_option);
}

/// The thresholds and the policy in ticks of the process's timebase.
///
/// \pre The options are valid.
tier_limits make_tier_limits(const options&) noexcept;

/// Configures a budget in ticks of the process's timebase.
///
/// \pre The options are valid.
void configure(task_budget&, const task_options&) noexcept;

}  // namespace asio_pulse
