// SPDX-License-Identifier: BSL-1.0
//
// The tier manager: a pure function from the cost of a poll to a decision. It reads no clock, owns
// no thread and does no I/O.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/tier.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace asio_pulse {

/// A `tier_policy` and the thresholds of `options`, in ticks. Made once per context by
/// make_tier_limits(); a default constructed one has every threshold off.
struct tier_limits {
  /// The value of a threshold that is switched off: no poll costs more.
  static constexpr timing::ticks off = std::numeric_limits<timing::ticks>::max();

  timing::ticks slow_poll = off;     ///< one poll this long: Warn
  timing::ticks yield_poll = off;    ///< one poll this long: Yield
  timing::ticks isolate_poll = off;  ///< one poll this long: Isolate
  timing::ticks quiet_below = off;   ///< the least of the three: no poll below it is slow
  timing::ticks clean_window = 1;
  timing::ticks isolate_clean_window = 1;
  std::uint8_t yield_after = 0;    ///< 0: off
  std::uint8_t isolate_after = 0;  ///< 0: off
  bool shadow = false;             ///< decide, but enforce nothing
  /// The program chose a clock that measures occupancy only (steady). Then polls that the clock
  /// cannot vouch for count like any other.
  bool trust_occupancy = false;
};

/// What the tier manager keeps for each task. Zero-initialised, it is a task in Monitor.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe. For readers on other threads
///                     the caller may keep a copy of `level`.
struct tier_state {
  timing::ticks window_start = 0;  ///< last offence, or last demotion
  timing::ticks last_poll = 0;     ///< end of the last poll above Monitor
  timing::ticks spent = 0;         ///< CPU ticks since the last counted overrun
  timing::ticks saved = 0;         ///< shadow mode: CPU ticks that would have been held back
  tier level = tier::monitor;
  bool excused = false;         ///< over budget by a poll that the clock could not vouch for
  bool probation = false;       ///< demoted, and not clean for a window since
  std::uint8_t backoff = 0;     ///< windows are 2^backoff times as long, 0 to 3
  std::uint8_t overruns = 0;    ///< since the last demotion, saturating
  std::uint8_t slow_polls = 0;  ///< in Yield, since it was entered, saturating
};

static_assert(sizeof(tier_state) <= 40);

/// A poll that has ended.
struct poll_result {
  timing::ticks now = 0;     ///< its end
  timing::ticks cost = 0;    ///< its CPU time
  bool over_budget = false;  ///< what task_budget::charge() returned
  /// False if the clock could not tell CPU time from time off the CPU. Such a poll is charged, but
  /// its length alone is not an offence, and it alone never makes an overrun.
  bool exact = true;
  bool would_park = false;  ///< shadow mode: the gate would have held this poll back
};

/// A decision of the tier manager.
struct tier_decision {
  tier from = tier::monitor;   ///< before the call
  tier to = tier::monitor;     ///< from now on
  reason why = reason::none;   ///< the offence, if there was one; else the reason of the demotion
  std::uint8_t demotions = 0;  ///< single steps down, taken before any promotion
  bool report = false;         ///< there was an offence; subject to the report limiter
  bool enforce = true;         ///< false in shadow mode
  bool overrun = false;        ///< an overrun was counted
  bool slow = false;           ///< the poll was above a threshold
  timing::ticks saved = 0;     ///< shadow mode: added to tier_state::saved by this call

  /// Whether the task was promoted, by one tier or several.
  bool promoted() const noexcept {
    return static_cast<int>(to) > static_cast<int>(from) - demotions;
  }

  /// Whether the tier changed, even if only down and up again.
  bool changed() const noexcept { return demotions != 0 || to != from; }

  /// Calls `f(tier from, tier to, reason)` for each transition, in order: demotions one tier at a
  /// time, then the promotion.
  template <typename Function>
  void for_each_step(Function&& f) const {
    auto at = static_cast<std::uint8_t>(from);
    const reason down = report ? reason::idle : why;
    for (std::uint8_t n = 0; n < demotions; ++n, --at) {
      f(static_cast<tier>(at), static_cast<tier>(at - 1), down);
    }
    if (promoted()) {
      f(static_cast<tier>(at), to, why);
    }
  }
};

static_assert(sizeof(tier_decision) == 16, "returned in two registers");

/// Decides on tiers.
///
/// Promotion follows the strongest evidence and may skip tiers. Demotion goes one tier at a time,
/// each after a clean window of its own, so that a call after a long idle time takes several steps.
/// A task that is promoted again soon after a demotion gets longer windows, so that it does not
/// change its tier all the time.
///
/// \par Cost           on_poll() of a task in Monitor without an offence: three compares, inline,
///                     no store. Otherwise tens of nanoseconds. No allocation, no clock, no lock.
/// \par Thread safety  No other thread may use the `tier_state` during the call.
/// \par Errors         None (noexcept). Times that run backwards restart the window.
class tier_manager {
 public:
  /// Windows become up to 2^3 = 8 times as long: by default 0.8 s in Yield and 8 s in Isolate. This
  /// is a guess: with less, a task changes its tier more often; with more, it is held back for
  /// longer after its behaviour has improved.
  static constexpr std::uint8_t max_backoff = 3;

  /// Call it after each poll, when the cost of the poll has been charged to `budget`.
  static tier_decision on_poll(tier_state& state, const task_budget& budget,
                               const poll_result& poll, const tier_limits& limits) noexcept {
    if (state.level == tier::monitor && !state.excused && !poll.over_budget &&
        poll.cost < limits.quiet_below) [[likely]] {
      return tier_decision{.enforce = !limits.shadow};
    }
    return judge(state, budget, poll, limits);
  }

  /// Call it while a poll goes on that has cost `spent` by `now`: the task is promoted because of
  /// the length of the poll. on_poll() counts the offence when the poll has ended.
  static tier_decision on_stall(tier_state& state, timing::ticks now, timing::ticks spent,
                                const tier_limits& limits) noexcept;

  /// Demotes a task that was not polled for a while before `now`. Call it before a task is held
  /// back because of the tier that it had when it last ran.
  static tier_decision on_idle(tier_state& state, const task_budget& budget, timing::ticks now,
                               const tier_limits& limits) noexcept {
    if (state.level == tier::monitor) [[likely]] {
      return tier_decision{.enforce = !limits.shadow};
    }
    return judge_idle(state, budget, now, limits);
  }

 private:
  static tier_decision judge(tier_state&, const task_budget&, const poll_result&,
                             const tier_limits&) noexcept;
  static tier_decision judge_idle(tier_state&, const task_budget&, timing::ticks now,
                                  const tier_limits&) noexcept;
};

/// Counters of decisions, over all tasks of a context. Each only grows.
struct tier_counts {
  /// transitions[from][to]
  std::array<std::array<std::uint64_t, tier_count>, tier_count> transitions{};
  std::uint64_t overruns = 0;    ///< overruns counted
  std::uint64_t slow_polls = 0;  ///< polls above a threshold
  timing::ticks saved = 0;       ///< shadow mode: CPU ticks that enforcement would have held back

  std::uint64_t into(tier) const noexcept;  ///< promotions into that tier
  std::uint64_t promotions() const noexcept;
  std::uint64_t demotions() const noexcept;
};

/// The counters behind tier_counts.
///
/// \par Cost           count(): nothing if nothing happened; otherwise one relaxed addition for
///                     each fact.
/// \par Thread safety  Every member may be called from any thread.
/// \par Memory order   Relaxed: the counters are independent, and a snapshot is not of one instant.
class tier_metrics {
 public:
  void count(const tier_decision& decision) noexcept {
    if (decision.changed() || decision.report || decision.saved != 0) [[unlikely]] {
      add(decision);
    }
  }

  tier_counts snapshot() const noexcept;

 private:
  void add(const tier_decision&) noexcept;

  std::array<std::array<std::atomic<std::uint64_t>, tier_count>, tier_count> transitions_{};
  std::atomic<std::uint64_t> overruns_{0};
  std::atomic<std::uint64_t> slow_polls_{0};
  std::atomic<std::uint64_t> saved_{0};
};

}  // namespace asio_pulse

namespace asio_pulse::detail {

/// The thresholds and the policy of `options`, or of the settings of a recording, which must be
/// valid. `to_ticks` converts a duration into ticks of the timebase in use.
template <class Settings, class ToTicks>
tier_limits limits_of(const Settings& s, ToTicks to_ticks) noexcept {
  // At least one tick, because 0 would switch the threshold off.
  const auto at_least_one = [&](std::chrono::nanoseconds value) {
    return std::max<timing::ticks>(to_ticks(value), 1);
  };
  const auto threshold = [&](std::chrono::nanoseconds value) {
    return value.count() <= 0 ? tier_limits::off : at_least_one(value);
  };
  const auto count = [](unsigned value) {
    constexpr unsigned most = std::numeric_limits<std::uint8_t>::max();
    return static_cast<std::uint8_t>(std::min(value, most));
  };
  tier_limits limits;
  limits.slow_poll = threshold(s.stall_threshold);
  limits.yield_poll = threshold(s.yield_threshold);
  limits.isolate_poll = threshold(s.isolate_threshold);
  limits.quiet_below = std::min({limits.slow_poll, limits.yield_poll, limits.isolate_poll});
  limits.clean_window = at_least_one(s.tiers.clean_window);
  limits.isolate_clean_window = at_least_one(s.tiers.isolate_clean_window);
  limits.yield_after = count(s.tiers.yield_after);
  limits.isolate_after = count(s.tiers.isolate_after);
  limits.shadow = s.shadow;
  return limits;
}

/// The limits for the unnamed task, which is only reported.
inline tier_limits without_enforcement(tier_limits limits) noexcept {
  limits.yield_poll = limits.isolate_poll = tier_limits::off;
  limits.yield_after = limits.isolate_after = 0;
  limits.quiet_below = limits.slow_poll;
  return limits;
}

}  // namespace asio_pulse::detail
