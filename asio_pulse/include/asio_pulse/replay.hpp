// SPDX-License-Identifier: BSL-1.0
//
// Replay: what other settings would have done with the polls of a recording, and which settings do
// best.
//
// The decisions are the library's own: each recorded poll is charged to a task_budget and shown to
// the tier_manager, with the times of the recording. What that would have meant for those who wait
// is a model, of which each worker is a loop of its own:
//
//   1. A poll keeps its cost, and the worker the time that it took from one poll to the next.
//   2. Polls follow one another without idle time as long as a gap is at most 10 us, or lies within
//      a recorded queue delay. (The recorded duration of a poll is CPU time: one that sleeps looks
//      like idle time, but for a probe that waited meanwhile.)
//   3. From ready to run it took as long as the recorded queue delays say: at the end of a delay
//      exactly that, at the beginning of a stretch without idle time nothing, in between on a
//      straight line, and after the last one as long as that. In a stretch without a recorded delay
//      all was ready at its beginning, which is the longest that can have been. Asio's queue is
//      first in, first out: none was ready before those that ran before it.
//   4. A poll that starts while its task is in Yield or above and over budget is put back, and so
//      are those of its task behind it. They run when the scheduler has gone through all that was
//      ready, one of them at a time, round robin over the tasks, in their order.
//   5. Nothing becomes ready earlier or later for that. Polls inside polls stay there.
//   6. A task in Isolate goes on as in Yield: that it leaves the worker is counted, not modelled.
//
// At the beginning all tasks are in Monitor with their budget full, and each poll is judged by
// itself (a process sums up those below 20 us). A recording made with enforcement shows polls where
// enforcement has put them: to judge from nothing, record with options::shadow.

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
  /// Of every task that has a budget, in place of the recorded one. Those that are unlimited stay
  /// so.
  std::optional<std::chrono::nanoseconds> budget = std::nullopt;
  std::optional<std::chrono::nanoseconds> per = std::nullopt;
  std::optional<std::chrono::nanoseconds> burst = std::nullopt;
  /// Budgets of single tasks, by id; their names are not looked at.
  std::vector<recorded_task> tasks = {};
};

/// Says which setting is out of range, as "asio_pulse::options.yield_threshold must ..."; empty
/// when none is. The recording's own budgets are not looked at: task_budget saturates.
std::string invalid_reason(const recorded_settings&, const replay_options& = {});

/// From ready to run.
struct waiting {
  histogram durations{};
  std::chrono::nanoseconds p50{0};  ///< exact: of the durations, not of the buckets
  std::chrono::nanoseconds p99{0};
  std::chrono::nanoseconds longest{0};
  friend bool operator==(const waiting&, const waiting&) = default;
};

struct replayed_task {
  std::uint64_t id = 0;  ///< 0: work of no task, which is never put back
  std::string name{};
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
  std::uint64_t offences = 0;    ///< overruns and slow polls, as far as they would be reported
  std::uint64_t warns = 0;       ///< times it would have climbed into Warn
  std::uint64_t put_back = 0;    ///< polls
  std::uint64_t isolations = 0;  ///< times it would have climbed into Isolate
  /// In each tier, by tier's numbers. It leaves one when its window is over, be it looked at or
  /// not.
  std::array<std::chrono::nanoseconds, 4> in_tier{};
  std::chrono::nanoseconds waited_before{0};  ///< all its polls together
  std::chrono::nanoseconds waited_after{0};
  friend bool operator==(const replayed_task&, const replayed_task&) = default;
};

struct replay_result {
  std::chrono::nanoseconds length{0};
  std::uint64_t polls = 0;
  std::uint64_t lost = 0;              ///< events that the recording does not have
  std::vector<replayed_task> tasks{};  ///< by CPU time, then id
  std::uint64_t tasks_touched = 0;     ///< tasks with polls that would have been put back
  std::uint64_t put_back = 0;
  std::uint64_t warns = 0;
  std::uint64_t isolations = 0;
  /// Polls of the tasks that would not have been touched, as recorded and as replayed.
  waiting others_before{};
  waiting others_after{};
  /// Polls of those that would have been.
  waiting touched_before{};
  waiting touched_after{};
  friend bool operator==(const replay_result&, const replay_result&) = default;
};

/// What `settings` would have done. The tasks' budgets are the recorded ones, those of tasks that
/// had ended when it was taken the default of task_options, where `how` does not say otherwise.
///
/// \par Cost    n log n in the number of polls; about 120 bytes of memory each.
/// \par Errors  std::invalid_argument, whose text is invalid_reason(); std::bad_alloc.
[[nodiscard]] replay_result replay(const recording&, const recorded_settings& settings,
                                   const replay_options& how = {});

// ---- the tuner

struct tuning_goal {
  /// What 99 of 100 polls of the tasks that are not touched wait at most.
  std::chrono::nanoseconds others_p99 = std::chrono::milliseconds{1};
};

/// What a replay gave, in short.
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
  /// Of every task that has a budget, where it is to be changed; with a burst of one budget.
  std::optional<std::chrono::nanoseconds> budget{};
  std::optional<std::chrono::nanoseconds> per{};
  tuning_figures present{};   ///< the recording's settings, replayed
  tuning_figures proposed{};  ///< these
  bool reaches_goal = false;
  friend bool operator==(const proposal&, const proposal&) = default;
};

/// Why the recording does not allow to judge, in a sentence; empty when it does. It has to be as
/// long as ten clean windows, so that a task can come down again; to hold 1000 polls, so that the
/// 99th percentile is more than a single one; and not to have lost more than a tenth of its events.
std::string too_short(const recording&);

/// Settings that are better than the recording's, best first, at most three. Better is: the goal is
/// reached; if not, others wait less; fewer tasks are touched; fewer polls are put back; fewer
/// settings are changed. Waits and polls put back that have the same three leading bits are alike.
/// None when nothing is better, or when the recording is too_short().
///
/// It goes from the recording's settings along one of them at a time (the tasks' budget and per,
/// yield_threshold, tiers.yield_after, isolate_threshold, stall_threshold), over a fixed list of
/// values each, keeps the best, and goes around again until nothing gets better or it has replayed
/// 40 million polls. No chance is involved.
///
/// \par Errors  std::invalid_argument: the recording's settings are out of range, or the goal is
///              negative; std::bad_alloc.
[[nodiscard]] std::vector<proposal> tune(const recording&, const tuning_goal& goal = {});

/// A proposal as C++ to be pasted: the members of asio_pulse::options that it is about.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string to_cpp(const proposal&);

}  // namespace asio_pulse
