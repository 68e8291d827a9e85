// SPDX-License-Identifier: BSL-1.0
//
// Counters of a context and of a task.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/timing/clock.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace asio_pulse {

/// The counters of a context, since it was made. statistic_table describes each member.
struct statistics {
  std::uint64_t warns = 0;
  std::uint64_t yields = 0;
  std::uint64_t strand_breaks = 0;
  std::uint64_t checkpoint_yields = 0;
  std::uint64_t isolated = 0;
  std::uint64_t isolations_refused = 0;
  std::uint64_t promotions = 0;
  std::uint64_t demotions = 0;
  std::uint64_t reports = 0;
  std::uint64_t reports_suppressed = 0;
  std::uint64_t reports_silenced = 0;
  std::uint64_t reports_dropped = 0;
  std::uint64_t callback_errors = 0;
  std::uint64_t stalls = 0;
  std::uint64_t stalls_spinning = 0;
  std::uint64_t stalls_blocked = 0;
  std::uint64_t stall_reports = 0;
  std::uint64_t spares_started = 0;
  std::uint64_t spares = 0;
  std::uint64_t hints = 0;
  std::uint64_t hints_lost = 0;
  std::uint64_t deferrals = 0;
  std::uint64_t requests_admitted = 0;
  std::uint64_t requests_refused_share = 0;
  std::uint64_t requests_refused_overload = 0;
  std::uint64_t policy_turns = 0;
  std::uint64_t policy_faults = 0;
  std::uint64_t classify_failures = 0;
  std::uint64_t updates = 0;
  std::uint64_t automatic_checks = 0;
  std::uint64_t automatic_suspensions = 0;
  std::uint64_t automatic_refused_lock = 0;
  std::uint64_t automatic_refused_uncounted = 0;
  std::uint64_t automatic_refused_exception = 0;
  std::uint64_t automatic_refused_critical = 0;
  std::uint64_t automatic_refused_signal = 0;
  std::uint64_t automatic_refused_parallel = 0;
  std::uint64_t automatic_refused_stack = 0;
  std::uint64_t automatic_refused_place = 0;
  std::uint64_t parked = 0;
  std::uint64_t tasks = 0;
  std::chrono::nanoseconds shadow_saved{0};
  timing::clock_kind clock = timing::clock_kind::none;  ///< in use by the workers
  friend bool operator==(const statistics&, const statistics&) = default;
};

/// Describes a member of statistics: its meaning, and its names outside the process.
struct statistic {
  enum class kind : std::uint8_t {
    counter,  ///< only grows
    gauge     ///< as it is now
  };

  std::string_view name;  ///< the name of the member, also in JSON
  kind what;
  std::string_view help;  ///< the meaning, without a full stop
  /// Exactly one of the two is not null.
  std::uint64_t statistics::*count = nullptr;
  std::chrono::nanoseconds statistics::*time = nullptr;
  /// The name of the metric for Prometheus, without the prefix and without the ending of times
  /// (`_seconds_total`), and a label if several members make up one metric. Empty if the exporter
  /// treats the member in another way.
  std::string_view metric{};
  std::string_view label{};
  std::string_view value{};
};

/// All members of statistics except `clock`, in their order on the wire. stats(), the wire format,
/// the JSON of pulse_top, the Prometheus exporter and docs/statistics.md are derived from this
/// table. A new counter needs a member, a row here, and a call of detail::counters::add() where the
/// event happens.
inline constexpr std::array statistic_table{
    statistic{"warns", statistic::kind::counter, "changes of a task's tier into Warn",
              &statistics::warns, nullptr, "warns_total"},
    statistic{"yields", statistic::kind::counter,
              "operations put back when it was their turn, so that others go first",
              &statistics::yields, nullptr, "yields_total", "kind", "operation"},
    statistic{"strand_breaks", statistic::kind::counter,
              "batches of a strand cut short, so that others go first", &statistics::strand_breaks,
              nullptr, "yields_total", "kind", "strand"},
    statistic{"checkpoint_yields", statistic::kind::counter,
              "times that a checkpoint was told to yield", &statistics::checkpoint_yields, nullptr,
              "yields_total", "kind", "checkpoint"},
    statistic{"isolated", statistic::kind::counter, "handlers run on the isolation pool",
              &statistics::isolated, nullptr, "isolated_total"},
    statistic{"isolations_refused", statistic::kind::counter,
              "times that isolation was wanted and would have been unsafe",
              &statistics::isolations_refused, nullptr, "isolations_refused_total"},
    statistic{"promotions", statistic::kind::counter, "changes of a task's tier upwards",
              &statistics::promotions, nullptr, "tier_transitions_total", "direction", "up"},
    statistic{"demotions", statistic::kind::counter, "changes of a task's tier downwards",
              &statistics::demotions, nullptr, "tier_transitions_total", "direction", "down"},
    statistic{"reports", statistic::kind::counter, "reports sent", &statistics::reports, nullptr,
              "reports_total", "outcome", "sent"},
    statistic{"reports_suppressed", statistic::kind::counter, "reports held back by the limits",
              &statistics::reports_suppressed, nullptr, "reports_total", "outcome", "suppressed"},
    statistic{"reports_silenced", statistic::kind::counter,
              "reports not sent because their kind is silenced", &statistics::reports_silenced,
              nullptr, "reports_total", "outcome", "silenced"},
    statistic{"reports_dropped", statistic::kind::counter,
              "of the reports sent: those that stderr did not take", &statistics::reports_dropped,
              nullptr, "reports_dropped_total"},
    statistic{"callback_errors", statistic::kind::counter,
              "exceptions that on_report or a hook threw", &statistics::callback_errors, nullptr,
              "callback_errors_total"},
    statistic{"stalls", statistic::kind::counter, "polls that the watchdog found stuck",
              &statistics::stalls},
    statistic{"stalls_spinning", statistic::kind::counter,
              "of these: polls that were using their CPU", &statistics::stalls_spinning, nullptr,
              "stalls_total", "cause", "spinning"},
    statistic{"stalls_blocked", statistic::kind::counter,
              "of these: polls that were waiting in the kernel", &statistics::stalls_blocked,
              nullptr, "stalls_total", "cause", "blocked"},
    statistic{"stall_reports", statistic::kind::counter,
              "reports about stuck polls: first ones, repeated ones and those of their end",
              &statistics::stall_reports, nullptr, "stall_reports_total"},
    statistic{"spares_started", statistic::kind::counter,
              "threads started to stand in for stuck ones", &statistics::spares_started, nullptr,
              "spares_started_total"},
    statistic{"spares", statistic::kind::gauge, "threads that stand in for stuck ones",
              &statistics::spares, nullptr, "spares"},
    statistic{"hints", statistic::kind::counter,
              "hints of the operating system that others wait for a worker's CPU",
              &statistics::hints, nullptr, "hints_total"},
    statistic{"hints_lost", statistic::kind::counter, "hints that the scheduler could not deliver",
              &statistics::hints_lost, nullptr, "hints_lost_total"},
    statistic{"deferrals", statistic::kind::counter, "tasks put behind all others for a hint",
              &statistics::deferrals, nullptr, "deferrals_total"},
    statistic{"requests_admitted", statistic::kind::counter, "requests that admit() has admitted",
              &statistics::requests_admitted, nullptr, "requests_total", "verdict", "admitted"},
    statistic{"requests_refused_share", statistic::kind::counter,
              "requests refused because their group had its share of an overloaded context",
              &statistics::requests_refused_share, nullptr, "requests_total", "verdict",
              "refused_share"},
    statistic{"requests_refused_overload", statistic::kind::counter,
              "requests refused because of an overload that no single group caused",
              &statistics::requests_refused_overload, nullptr, "requests_total", "verdict",
              "refused_overload"},
    statistic{"policy_turns", statistic::kind::counter,
              "operations that options::policy chose among those that waited",
              &statistics::policy_turns, nullptr, "policy_turns_total"},
    statistic{"policy_faults", statistic::kind::counter,
              "times that a custom policy threw, or chose what did not wait",
              &statistics::policy_faults, nullptr, "policy_faults_total"},
    statistic{"classify_failures", statistic::kind::counter,
              "accepted connections that joined no group because options::classify failed",
              &statistics::classify_failures, nullptr, "classify_failures_total"},
    statistic{"updates", statistic::kind::counter,
              "changes of the options, and of tasks' budgets, while the context exists",
              &statistics::updates, nullptr, "updates_total"},
    statistic{"automatic_checks", statistic::kind::counter,
              "checks that the compiler wrote (automatic checkpoints) and that reached the library",
              &statistics::automatic_checks, nullptr, "automatic_checks_total"},
    statistic{"automatic_suspensions", statistic::kind::counter,
              "of checkpoint_yields: handlers suspended where the compiler wrote a check",
              &statistics::automatic_suspensions, nullptr, "automatic_suspensions_total"},
    statistic{"automatic_refused_lock", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because a lock was held",
              &statistics::automatic_refused_lock, nullptr, "automatic_refusals_total", "reason",
              "lock"},
    statistic{"automatic_refused_uncounted", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because locks are not counted (asio_pulse::lock_count)",
              &statistics::automatic_refused_uncounted, nullptr, "automatic_refusals_total",
              "reason", "uncounted"},
    statistic{"automatic_refused_exception", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because an exception was in flight or being handled",
              &statistics::automatic_refused_exception, nullptr, "automatic_refusals_total",
              "reason", "exception"},
    statistic{"automatic_refused_critical", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because of a critical_section, a tracked lock or a hook",
              &statistics::automatic_refused_critical, nullptr, "automatic_refusals_total",
              "reason", "critical"},
    statistic{"automatic_refused_signal", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because other signals were blocked than at its start, as in a signal handler",
              &statistics::automatic_refused_signal, nullptr, "automatic_refusals_total", "reason",
              "signal"},
    statistic{"automatic_refused_parallel", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because of an OpenMP region",
              &statistics::automatic_refused_parallel, nullptr, "automatic_refusals_total",
              "reason", "parallel"},
    statistic{"automatic_refused_stack", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because its stack was nearly used up",
              &statistics::automatic_refused_stack, nullptr, "automatic_refusals_total", "reason",
              "stack"},
    statistic{"automatic_refused_place", statistic::kind::counter,
              "automatic checkpoints that did not suspend a handler "
              "because its rest could not be queued for the same thread",
              &statistics::automatic_refused_place, nullptr, "automatic_refusals_total", "reason",
              "place"},
    statistic{"parked", statistic::kind::gauge, "operations put back and not yet released",
              &statistics::parked, nullptr, "parked_operations"},
    statistic{"tasks", statistic::kind::gauge, "tasks alive, without the unnamed one",
              &statistics::tasks, nullptr, "tasks"},
    statistic{"shadow_saved", statistic::kind::counter,
              "CPU time of polls that enforcement would have put behind all others, in shadow mode",
              nullptr, &statistics::shadow_saved, "shadow_saved"},
};

/// Fails if a member has no row: all members except `clock` (with its padding) are in the table.
static_assert(sizeof(statistics) == (statistic_table.size() + 1) * sizeof(std::uint64_t));

/// The counters of a task.
struct task_statistics {
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
};

/// The counters of a task_group: of its tasks and of those in groups below it, but the requests only
/// of the group itself.
struct group_statistics {
  std::uint64_t tasks = 0;          ///< alive; of the group itself
  std::chrono::nanoseconds cpu{0};  ///< used by its tasks, also by those that have ended
  std::uint64_t admitted = 0;
  std::uint64_t refused_share = 0;
  std::uint64_t refused_overload = 0;
};

}  // namespace asio_pulse
