// SPDX-License-Identifier: BSL-1.0
//
// What a user can set. Two aggregates of chrono durations and enums, whose defaults can be left
// alone. Zero switches a thing off where its comment says so; nonsense is refused by name.

#pragma once

#include <asio_pulse/error.hpp>
#include <asio_pulse/hints.hpp>
#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/tier.hpp>
#include <asio_pulse/tier_manager.hpp>
#include <asio_pulse/timing/clock.hpp>

#include <boost/system/error_code.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace asio_pulse {

struct report;

/// How the threads of the isolation pool are made to give way.
enum class isolation_priority : std::uint8_t {
  normal,  ///< left alone
  batch,   ///< SCHED_BATCH
  idle,    ///< SCHED_IDLE
  nice,    ///< options::isolation_nice
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(isolation_priority) noexcept;

/// When something is collected.
enum class instrument_mode : std::uint8_t {
  off,        ///< never
  on_demand,  ///< while somebody looks: pulse_top, an exporter, a program that asks
  on          ///< always
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(instrument_mode) noexcept;

/// A task's name and budget.
///
/// The order of the members is stable: designated initialisers go on compiling.
struct task_options {
  /// For reports. Any bytes, of any length: what is not printable is escaped there.
  std::string name = {};

  /// CPU time in every window of `per`. Zero: unlimited, the task is accounted for but never over
  /// budget. Otherwise at least 1 us, not above `per`, and not below `per` / 65535.
  /// The default is a tenth of a CPU; small enough that a storm is put back within a millisecond
  /// (benches/run starvation), and harmless, since a task over budget still gets what nobody wants.
  std::chrono::nanoseconds budget = std::chrono::microseconds{300};

  /// The window. Must be positive; at most 60 s.
  std::chrono::nanoseconds per = std::chrono::milliseconds{3};

  /// CPU time that may be spent at once after a quiet time. Zero: one budget. Otherwise at least
  /// 1 us, and small enough to be refilled within 600 s.
  std::chrono::nanoseconds burst = std::chrono::nanoseconds{0};

  /// The task may run on the isolation pool: its handlers share no state with others without a
  /// strand or a lock.
  bool isolatable = false;

  bool operator==(const task_options&) const = default;
};

/// The options of a context.
///
/// The order of the members is stable: designated initialisers go on compiling.
struct options {
  /// One poll of this much CPU time is slow: the task is reported, and enters Warn. So does one
  /// that is stuck for as long, spinning or blocked, while it is (see `watchdog`). Zero disables;
  /// at most an hour.
  std::chrono::nanoseconds stall_threshold = std::chrono::milliseconds{5};

  /// One poll of this much CPU time, or stuck for it, puts its task into Yield. Zero disables;
  /// otherwise not below stall_threshold; at most an hour.
  std::chrono::nanoseconds yield_threshold = std::chrono::milliseconds{20};

  /// One poll of this much CPU time, or stuck for it, puts its task into Isolate. Zero disables;
  /// otherwise not below stall_threshold and yield_threshold; at most an hour.
  std::chrono::nanoseconds isolate_threshold = std::chrono::milliseconds{50};

  /// What each accepted connection gets, where accept_rule is on.
  task_options accepted = {.name = "connection"};

  /// What work gets that belongs to no task. It is never held back, only reported, and a whole
  /// server may run in it: no budget by default.
  task_options unnamed = {.name = "unnamed", .budget = std::chrono::nanoseconds{0}};

  /// Each accepted connection becomes a task of its own, instead of its listener's.
  bool accept_rule = true;

  /// False: nothing is accounted for, nothing is enforced.
  bool enabled = true;

  /// True: everything is decided and reported, nothing is enforced.
  bool shadow = false;

  /// How long a task that is over budget or was asked to yield runs until its checkpoints do so.
  /// Must be positive; at most an hour.
  std::chrono::nanoseconds quantum = std::chrono::microseconds{500};

  /// A checkpoint does not yield before this much of the poll is over. Must be positive, not above
  /// quantum.
  std::chrono::nanoseconds min_slice = std::chrono::microseconds{50};

  /// Threads of the isolation pool, started with the first isolated task. Zero: no isolation. At
  /// most 256.
  std::size_t isolation_threads = 1;

  /// How those threads give way to the workers.
  asio_pulse::isolation_priority isolation_priority = asio_pulse::isolation_priority::batch;

  /// Their nice value, for isolation_priority::nice. From 0 to 19.
  int isolation_nice = 10;

  /// At most one report in this time per task. Zero: no such limit. At most an hour.
  std::chrono::nanoseconds report_interval = std::chrono::seconds{1};

  /// At most this many reports a second over all tasks. Zero: no such limit. At most 1 000 000.
  std::size_t reports_per_second = 10;

  /// Gets the reports; called on the worker at the end of the poll, and on the watchdog's thread
  /// for polls that do not end. Empty: one line on stderr, with the stack below it where there is
  /// one.
  ///
  /// On the watchdog's thread it must not wait for the stuck handler, nor for who destroys the
  /// context: the destructor waits for it to return.
  std::function<void(const report&)> on_report = {};

  /// The clock for polls. Empty: the best that this machine has. Not none, and not manual.
  std::optional<timing::clock_kind> clock = std::nullopt;

  /// When tasks climb and come down.
  tier_policy tiers = {};

  /// A critical section longer than this is reported: when it is left, and while it lasts if the
  /// watchdog sees it. Zero disables; at most an hour.
  std::chrono::nanoseconds max_critical = std::chrono::milliseconds{1};

  /// A poll that has lasted for stall_threshold, and for 500 us, is reported while it goes on, by a
  /// thread of the process that watches all contexts. False, or stall_threshold zero: not this
  /// context.
  bool watchdog = true;

  /// The signal that asks a stuck thread for its stack. Zero: SIGURG, which does nothing by default
  /// and which Go's runtime uses likewise. Negative: no signal, and no stacks. Otherwise one that a
  /// handler can be installed for and that says nothing about a fault.
  int stall_signal = 0;

  /// How much of a stuck thread's stack is copied, in bytes. From 4096 to 1 MiB.
  std::size_t stack_bytes = 65536;

  /// Threads that may take over run() while handlers keep the context's own threads. Zero: none. At
  /// most 64. With it the handlers may run on threads that did not call run().
  std::size_t spare_workers = 0;

  /// How long such a thread stays when the stall is over. Zero: not at all; at most an hour.
  std::chrono::nanoseconds spare_cooldown = std::chrono::seconds{1};

  /// The stack of a fiber (preemptible(), spawn()), in bytes, rounded up to pages. From 16 KiB to
  /// 8 MiB.
  std::size_t fiber_stack = 65536;

  /// Where threads inside run(), run_for() and run_until() get hints from that others wait for
  /// their CPU. Not poll() and run_one(), nor a run through boost::asio::io_context&.
  hint_source hints = hint_source::environment;

  /// The socket of scx_pulse. Empty: as the variable ASIO_PULSE_SOCKET says, else
  /// "/run/scx_pulse.sock". At most 107 bytes.
  std::string hint_socket = {};

  /// What the workers agree to, should they ignore a hint. None: nothing is ever forced.
  escalation_policy escalation = escalation_policy::none;

  /// Whether the workers may be escalated against at all; see escapable_scope.
  bool escapable = true;

  /// Advice for a scheduler that goes by priority: 0 to 1000, higher is more urgent.
  int hint_priority = 500;

  /// What reports and instruments call the context. Any bytes, of any length.
  std::string name = {};

  /// Histograms, and what each site and worker did (metrics.hpp). About 3 ns a poll while they are
  /// collected, nothing while not.
  instrument_mode metrics = instrument_mode::on_demand;

  /// Events of the last moments, for recordings and Perfetto (recording.hpp). About 3 ns a poll
  /// while they are collected.
  instrument_mode trace = instrument_mode::on_demand;

  /// Memory that the instruments of this context may take, in bytes. At least 65536; at most 1 GiB.
  /// A worker for whom it leaves no room is not collected from, and that is counted.
  std::size_t instrument_bytes = std::size_t{2} << 20;

  /// Events that are kept of each worker, 16 bytes each; rounded up to a power of two. From 256 to
  /// 16777216. The default is a guess: some milliseconds of a busy worker, seconds of most.
  std::size_t trace_events = 8192;

  /// A folder into which a recording is written when a stall is found, while `trace` is `on`, and
  /// at `trace_signal`; at most one in 10 s, and 16 in all, as name "PROGRAM.PID.NUMBER.pulse".
  /// Empty: none.
  std::string trace_folder = {};

  /// The signal at which that is done. Zero: none. Otherwise one that a handler can be installed
  /// for and that says nothing about a fault.
  int trace_signal = 0;

  /// pulse_top, run by the same user, may look into this context. It takes a thread in the process,
  /// which sleeps while nobody does.
  bool inspectable = true;
};

/// Says what is wrong, as "asio_pulse::options.quantum must be ... (got ...)"; empty when nothing.
std::string invalid_reason(const options&);

/// As above, as "asio_pulse::task_options.budget must be ...".
std::string invalid_reason(const task_options&);

/// Refuses what is out of range.
///
/// \par Errors  std::invalid_argument, whose text is invalid_reason().
void validate(const options&);
void validate(const task_options&);

/// As above; sets `ec` to error::invalid_option, or clears it.
inline void validate(const options& o, boost::system::error_code& ec) {
  ec = invalid_reason(o).empty() ? boost::system::error_code()
                                 : make_error_code(error::invalid_option);
}
inline void validate(const task_options& o, boost::system::error_code& ec) {
  ec = invalid_reason(o).empty() ? boost::system::error_code()
                                 : make_error_code(error::invalid_option);
}

/// The thresholds and the policy in ticks of the process's timebase. The options are valid.
tier_limits make_tier_limits(const options&) noexcept;

/// Configures a budget in ticks of the process's timebase. The options are valid.
void configure(task_budget&, const task_options&) noexcept;

}  // namespace asio_pulse
