// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/clock.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <cstdint>
#include <limits>

namespace asio_pulse::detail {

/// What the watchdog keeps for a worker, and its decisions about it. It is pure: the caller
/// provides time and evidence, and acts on the outcome.
///
/// The watchdog looks at a worker now and then. A look shows whether the worker is in a poll, and
/// since when; if the start is the same, so is the poll. The part of the poll's age in which the
/// worker waited for a CPU, or it or the whole machine was stopped, is *excused*. The rest is
/// *blamed*, and a poll that is blamed for as long as the threshold is a stall.
///
/// Invariants, each with its test in stall_watch_test.cpp:
/// 1. There is no stall below the threshold: blamed <= now - start, at every look.
/// 2. It is exact: a caller that looks at `next` finds the stall at the first look at which
///    blamed >= threshold. If nothing is excused, that is at start + threshold.
/// 3. There is one `crossed` for each poll and one `ended` for each `crossed`, alternately.
///    `repeat` comes only between the two.
/// 4. The interval of reports grows: at T, 2T, 4T ... of blamed time, with steps of at most
///    `longest_step`.
/// 5. Only blamed time that is the task's own doing is *culpable*; culpable <= blamed. Limits are
///    crossed by culpable time, once each.
/// 6. Times may wrap around. `now` may be earlier than a stamp if the counters of CPUs differ; then
///    the age of the poll is zero.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class stall_watch {
 public:
  using ticks = timing::ticks;
  static constexpr ticks off = std::numeric_limits<ticks>::max();

  struct limits {
    ticks threshold = off;     ///< blamed time from which a poll is a stall
    ticks yield = off;         ///< culpable time at which to escalate
    ticks isolate = off;       ///< culpable time at which to escalate again
    ticks longest_step = off;  ///< longest time between reports about one stall
    ticks glance = off;        ///< longest time between looks at a stall
    ticks max_critical = off;  ///< longest time in one critical section
  };

  /// What a look has seen.
  struct sight {
    ticks now = 0;
    bool polling = false;
    ticks start = 0;        ///< start of the poll
    bool evidence = false;  ///< whether `excused` is new; otherwise it is as before
    ticks excused = 0;      ///< the excused part of the poll's age
    /// The most of the blamed time since the last event that is the task's own doing: CPU time, and
    /// sleep that it asked for. Used in looks that are due().
    ticks culpable = 0;
    ticks critical_since = 0;  ///< 0 if it is not in a critical section
  };

  /// What has to be done.
  struct outcome {
    ticks next = 0;         ///< the latest time of the next look
    bool ended = false;     ///< the previous stall is over; to be handled first
    bool crossed = false;   ///< a stall begins
    bool repeat = false;    ///< it is time for a further report
    bool escalate = false;  ///< `culpable` has crossed a limit; possible together with `crossed`
    bool overstay = false;  ///< a critical section lasts too long; once for each
    ticks blamed = 0;
    ticks culpable = 0;
  };

  /// Whether a look at `now` may have a consequence, so that evidence of the cause is worth its
  /// cost.
  [[nodiscard]] bool due(ticks now, bool polling, ticks start, const limits&) const noexcept;

  outcome look(const sight&, const limits&) noexcept;

  /// The watchdog did not find again what it had seen. Forgets the poll, which is neither a stall
  /// nor ended.
  void dismiss() noexcept;

  [[nodiscard]] bool stalled() const noexcept { return stalled_; }
  /// Whether the last look saw the poll with this start.
  [[nodiscard]] bool watches(ticks start) const noexcept { return polling_ && start == start_; }
  /// The start of the poll that is watched.
  [[nodiscard]] ticks start() const noexcept { return start_; }
  /// The time from `a` to `b`; 0 if `b` is earlier.
  [[nodiscard]] static ticks between(ticks a, ticks b) noexcept {
    return static_cast<std::int64_t>(b - a) > 0 ? b - a : 0;
  }

 private:
  [[nodiscard]] ticks until_event(ticks blamed, const limits&) const noexcept;

  ticks start_ = 0;    ///< start of the poll that was seen last
  ticks excused_ = 0;  ///< the excused part of its age
  ticks judged_ = 0;   ///< blamed time of which it was decided whether it is culpable
  ticks culpable_ = 0;
  ticks next_report_ = 0;  ///< the blamed time at which the next report is due
  ticks step_ = 0;
  ticks overstay_ = 0;  ///< the critical section that was reported last
  bool polling_ = false;
  bool stalled_ = false;
  std::uint8_t escalated_ = 0;  ///< how many limits were crossed
  bool dismissed_ = false;      ///< this poll is not looked at any more
};

}  // namespace asio_pulse::detail
