// SPDX-License-Identifier: BSL-1.0
//
// Replay: what other settings would have done with the polls of a recording, and which settings do
// best.
//
// The decisions are the library's own: each recorded poll is charged to a task_budget and passed to
// the tier_manager, with the times of the recording. How long polls would have waited comes from a
// model, in which each worker is a loop of its own:
//
//   1. A poll keeps its cost. The worker keeps the time that it took from one poll to the next.
//   2. There is no idle time between two polls if the gap is at most 10 us or within a recorded
//      queue delay. (The recorded duration of a poll is CPU time. So a poll that sleeps looks like
//      idle time, unless a probe waited meanwhile.)
//   3. The time from ready to run follows the recorded queue delays: at the end of a delay it is
//      the delay, at the beginning of a stretch without idle time it is zero, in between it is
//      interpolated, and after the last delay it stays the same. In a stretch without a recorded
//      delay all polls were ready at its beginning, which is the longest possible wait. Asio's
//      queue is first in, first out, so no poll was ready before those that ran before it.
//   4. A poll that starts while its task is in Yield or above and over budget is put back, with
//      those of its task behind it. They run when the scheduler has gone through everything that
//      was ready: one at a time, round robin over the tasks, in their order.
//   5. Nothing becomes ready earlier or later because of that. Polls inside polls stay there.
//   6. A task in Isolate is treated as in Yield. That it leaves the worker is counted, but not
//      modelled.
//
// At the beginning all tasks are in Monitor and have a full budget, and each poll is judged by
// itself (a process sums up polls below 20 us). In a recording that was made with enforcement,
// polls are where enforcement has put them. Record with options::shadow to see them without it.

#pragma once

#include <asio_pulse/recording.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace asio_pulse {

struct replay_options {
  /// The budget of every task that has one, instead of the recorded one. Unlimited tasks stay
  /// unlimited.
  std::optional<std::chrono::nanoseconds> budget = std::nullopt;
  std::optional<std::chrono::nanoseconds> per = std::nullopt;
  std::optional<std::chrono::nanoseconds> burst = std::nullopt;
  /// Budgets of single tasks, by id; the names are ignored.
  std::vector<recorded_task> tasks = {};
};

/// The setting that is out of range, as "asio_pulse::options.yield_threshold must ..."; empty if
/// there is none. The recording's own budgets are not checked, because task_budget saturates.
std::string invalid_reason(const recorded_settings&, const replay_options& = {});

/// The waits of polls, from ready to run.
struct waiting {
  histogram durations{};
  std::chrono::nanoseconds p50{0};  ///< exact; not computed from buckets
  std::chrono::nanoseconds p99{0};
  std::chrono::nanoseconds longest{0};
  friend bool operator==(const waiting&, const waiting&) = default;
};

struct replayed_task {
  std::uint64_t id = 0;  ///< 0 for work of no task, which is never put back
  std::string name{};
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
  std::uint64_t offences = 0;    ///< overruns and slow polls that would be reported
  std::uint64_t warns = 0;       ///< how often it would have been promoted to Warn
  std::uint64_t put_back = 0;    ///< polls that would have been put back
  std::uint64_t isolations = 0;  ///< how often it would have been promoted to Isolate
  /// The time in each tier, indexed by the tier's number. A tier ends with its window, even if the
  /// library would look at the task only later.
  std::array<std::chrono::nanoseconds, tier_count> in_tier{};
  std::chrono::nanoseconds waited_before{0};  ///< the sum over its polls
  std::chrono::nanoseconds waited_after{0};
  friend bool operator==(const replayed_task&, const replayed_task&) = default;
};

struct replay_result {
  std::chrono::nanoseconds length{0};
  std::uint64_t polls = 0;
  std::uint64_t lost = 0;              ///< events that are missing from the recording
  std::vector<replayed_task> tasks{};  ///< sorted by CPU time, then by id
  std::uint64_t tasks_touched = 0;     ///< tasks with polls that would have been put back
  std::uint64_t put_back = 0;
  std::uint64_t warns = 0;
  std::uint64_t isolations = 0;
  /// Waits of tasks without polls that would have been put back, as recorded and as replayed.
  waiting others_before{};
  waiting others_after{};
  /// The waits of the other tasks.
  waiting touched_before{};
  waiting touched_after{};
  friend bool operator==(const replay_result&, const replay_result&) = default;
};

/// What `settings` would have done. Unless `how` says otherwise, tasks have the recorded budgets,
/// and those that had ended when the recording was taken have the default of task_options.
///
/// \par Cost    n log n in the number of polls; about 120 bytes of memory for each.
/// \par Errors  std::invalid_argument, whose text is invalid_reason(); std::bad_alloc.
[[nodiscard]] replay_result replay(const recording&, const recorded_settings& settings,
                                   const replay_options& how = {});

// ---- the tuner

struct tuning_goal {
  /// The longest acceptable wait for 99 of 100 polls of the tasks that are not put back.
  std::chrono::nanoseconds others_p99 = std::chrono::milliseconds{1};
};

/// The result of a replay in short.
struct tuning_figures {
  std::chrono::nanoseconds others_p50{0};
  std::chrono::nanoseconds others_p99{0};
  std::chrono::nanoseconds others_longest{0};
  std::uint64_t tasks_touched = 0;
  std::uint64_t put_back = 0;
  std::uint64_t warns = 0;
  std::uint64_t isolations = 0;
  friend bool operator==(const tuning_figures&, const tuning_figures&) = default;
};

struct proposal {
  recorded_settings settings{};
  /// The budget for every task that has one, if it should be changed; with a burst of one budget.
  std::optional<std::chrono::nanoseconds> budget{};
  std::optional<std::chrono::nanoseconds> per{};
  tuning_figures present{};   ///< a replay with the recording's settings
  tuning_figures proposed{};  ///< a replay with these settings
  bool reaches_goal = false;
  friend bool operator==(const proposal&, const proposal&) = default;
};

/// Why the recording is not sufficient, as a sentence; empty if it is. It has to be as long as ten
/// clean windows, so that tasks can be demoted; it needs 1000 polls, so that the 99th percentile is
/// more than a single poll; and it must not have lost more than a tenth of its events.
std::string too_short(const recording&);

/// At most three settings that are better than the recording's, the best first. Settings are better
/// if, in this order, they reach the goal; if not, others wait less; fewer tasks are held back;
/// fewer polls are put back; fewer settings are changed. Waits, and numbers of polls, with the same
/// three leading bits count as equal. The result is empty if nothing is better or the recording is
/// too_short().
///
/// The search starts with the recording's settings. It varies one setting at a time (the tasks'
/// budget and per, yield_threshold, tiers.yield_after, isolate_threshold, stall_threshold) over a
/// fixed list of values, keeps the best, and repeats that until nothing gets better or it has
/// replayed 40 million polls. It is deterministic.
///
/// \par Errors  std::invalid_argument: the recording's settings are out of range, or the goal is
///              negative; std::bad_alloc.
[[nodiscard]] std::vector<proposal> tune(const recording&, const tuning_goal& goal = {});

/// A proposal as C++ code to be pasted: the members of asio_pulse::options that it changes.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string to_cpp(const proposal&);

}  // namespace asio_pulse
