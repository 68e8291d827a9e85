// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/clock.hpp>
#include <asio_pulse/timing/timebase.hpp>
#include <cstdint>
#include <limits>

namespace asio_pulse::detail {

/// What the watchdog remembers of one worker, and decides about it: pure, the caller brings time
/// and evidence and acts on the outcome.
///
/// A worker is looked at now and then. A look tells whether it is in a poll, and since when; the
/// same start says the same poll. Of the poll's age, the time that is not the worker's own doing is
/// *excused*: it waited for a CPU, was stopped, or the whole machine was. What is left is *blamed*,
/// and a poll that is blamed for the threshold is a stall.
///
/// Invariants, each with its test in stall_watch_test.cpp:
/// 1. No stall below the threshold: blamed <= now - start, at every look.
/// 2. Exact: who looks at `next` finds the crossing at the first look at which blamed >= threshold;
///    with nothing excused that is at start + threshold.
/// 3. One `crossed` per poll, one `ended` per `crossed`, in turn; `repeat` only between the two.
/// 4. Reports back off: at T, 2T, 4T ... of blamed time, the steps at most `longest_step`.
/// 5. Only blamed time that is the task's own doing is *culpable*; culpable <= blamed.
///    Limits are crossed by culpable time, once each.
/// 6. Times may wrap around, and `now` may be behind a stamp by what CPUs' counters differ: such a
///    poll has age zero.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class stall_watch {
 public:
  using ticks = timing::ticks;
  static constexpr ticks off = std::numeric_limits<ticks>::max();

  struct limits {
    ticks threshold = off;     ///< blamed for this: a stall
    ticks yield = off;         ///< culpable for this: escalate
    ticks isolate = off;       ///< and this
    ticks longest_step = off;  ///< between reports about one stall
    ticks glance = off;        ///< a stall is looked at at least this often
    ticks max_critical = off;  ///< in one critical section
  };

  /// What a look saw.
  struct sight {
    ticks now = 0;
    bool polling = false;
    ticks start = 0;        ///< of the poll
    bool evidence = false;  ///< `excused` is known anew; else as before
    ticks excused = 0;      ///< of the poll's age
    /// Of the blamed time since the last event, what is the task's own doing: CPU time, and sleep
    /// that it asked for. At most; counts in looks that are due().
    ticks culpable = 0;
    ticks critical_since = 0;  ///< 0: in no critical section
  };

  /// What is to be done.
  struct outcome {
    ticks next = 0;         ///< when to look again, at the latest
    bool ended = false;     ///< the stall seen before is over; first of all
    bool crossed = false;   ///< a stall begins
    bool repeat = false;    ///< it is time for a further report
    bool escalate = false;  ///< a limit has been crossed, with `culpable`; also with `crossed`
    bool overstay = false;  ///< a critical section lasts too long; once for each
    ticks blamed = 0;
    ticks culpable = 0;
  };

  /// Whether a look at `now` may have a consequence, so that evidence of the cause is worth its
  /// price.
  [[nodiscard]] bool due(ticks now, bool polling, ticks start, const limits&) const noexcept;

  outcome look(const sight&, const limits&) noexcept;

  /// The watchdog could not find what it had seen: forgets the poll, which is neither a stall nor
  /// ended.
  void dismiss() noexcept;

  [[nodiscard]] bool stalled() const noexcept { return stalled_; }
  /// Whether the last look saw the poll that started then.
  [[nodiscard]] bool watches(ticks start) const noexcept { return polling_ && start == start_; }
  /// The poll that is watched; of a stall, the stall's.
  [[nodiscard]] ticks start() const noexcept { return start_; }
  /// Age from `a` to `b`; 0 where `b` is earlier.
  [[nodiscard]] static ticks between(ticks a, ticks b) noexcept {
    return static_cast<std::int64_t>(b - a) > 0 ? b - a : 0;
  }

 private:
  [[nodiscard]] ticks until_event(ticks blamed, const limits&) const noexcept;

  ticks start_ = 0;    ///< of the poll seen then
  ticks excused_ = 0;  ///< of its age
  ticks judged_ = 0;   ///< blamed time that has been found culpable or not
  ticks culpable_ = 0;
  ticks next_report_ = 0;  ///< in blamed time
  ticks step_ = 0;
  ticks overstay_ = 0;  ///< the critical section that was told of
  bool polling_ = false;
  bool stalled_ = false;
  std::uint8_t escalated_ = 0;  ///< limits crossed
  bool dismissed_ = false;      ///< this poll is not looked at any more
};

}  // namespace asio_pulse::detail
