// SPDX-License-Identifier: BSL-1.0
//
// The tier manager: a pure function from what a poll cost to what is to be done about it. It reads
// no clock, owns no thread and does no I/O.

#pragma once

#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/tier.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace asio_pulse {

/// A `tier_policy` and the thresholds of `options`, in ticks. Made once per context by
/// make_tier_limits(); a default constructed one has every threshold off.
struct tier_limits {
  /// What a threshold that is switched off holds: no poll costs more.
  static constexpr timing::ticks off = std::numeric_limits<timing::ticks>::max();

  timing::ticks slow_poll = off;     ///< one poll this long: Warn
  timing::ticks yield_poll = off;    ///< one poll this long: Yield
  timing::ticks isolate_poll = off;  ///< one poll this long: Isolate
  timing::ticks quiet_below = off;   ///< least of the three: no poll below it is slow
  timing::ticks clean_window = 1;
  timing::ticks isolate_clean_window = 1;
  std::uint8_t yield_after = 0;    ///< 0: off
  std::uint8_t isolate_after = 0;  ///< 0: off
  bool shadow = false;             ///< decide, enforce nothing
  /// The clock in use measures occupancy only, by the user's own choice (steady_clock): then a
  /// poll that the clock could not vouch for counts like any other.
  bool trust_occupancy = false;
};

/// What the tier manager remembers of one task. Zero-initialised is a task in Monitor.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe; `level` alone may be copied
///                     elsewhere by the caller for readers on other threads.
struct tier_state {
  timing::ticks window_start = 0;  ///< last offence, or last demotion
  timing::ticks last_poll = 0;     ///< end of the last poll above Monitor
  timing::ticks spent = 0;         ///< CPU ticks since the last counted overrun
  timing::ticks saved = 0;         ///< shadow mode: CPU ticks that would have been held back
  tier level = tier::monitor;
  bool excused = false;         ///< over budget by a poll that the clock could not vouch for
  bool probation = false;       ///< demoted, and not clean for a window since
  std::uint8_t backoff = 0;     ///< windows are doubled this often, 0 to 3
  std::uint8_t overruns = 0;    ///< since the last demotion, saturating
  std::uint8_t slow_polls = 0;  ///< in Yield, since it was entered, saturating
};

static_assert(sizeof(tier_state) <= 40);

/// What one poll was.
struct poll_result {
  timing::ticks now = 0;     ///< its end
  timing::ticks cost = 0;    ///< its CPU time
  bool over_budget = false;  ///< what task_budget::charge() returned
  /// False: the clock could not tell CPU time from time off the CPU. Such a poll is charged for,
  /// but its length alone is no offence, and by itself it is never an overrun.
  bool exact = true;
  bool would_park = false;  ///< shadow mode: the gate would have held this poll back
};

/// What is to be done.
struct tier_decision {
  tier from = tier::monitor;   ///< before the call
  tier to = tier::monitor;     ///< from now on
  reason why = reason::none;   ///< the offence, where there was one; else why it came down
  std::uint8_t demotions = 0;  ///< single steps down, taken before any promotion
  bool report = false;         ///< there was an offence; subject to the report limiter
  bool enforce = true;         ///< false in shadow mode
  bool overrun = false;        ///< an overrun was counted
  bool slow = false;           ///< the poll was above a threshold
  timing::ticks saved = 0;     ///< shadow mode: added to tier_state::saved by this call

  /// Whether the last step was up, perhaps by several tiers.
  bool promoted() const noexcept {
    return static_cast<int>(to) > static_cast<int>(from) - demotions;
  }

  /// Whether the tier was changed, be it down and up again.
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
/// Promotion follows the strongest evidence and may jump; demotion goes one tier at a time, each
/// after a clean window of its own, so that a long idle time takes several steps in one call. A
/// task that climbs again too soon after a demotion has its windows doubled: it does not flap.
///
/// \par Cost           on_poll() of a task that behaves in Monitor: three compares, inline, no
///                     store. Otherwise tens of nanoseconds. No allocation, no clock, no lock.
/// \par Thread safety  The caller has the `tier_state` to itself.
/// \par Errors         None (noexcept): times that run backwards restart the window.
class tier_manager {
 public:
  /// Windows are doubled up to 8 times: a guess between a task that still flaps and one that is
  /// punished for long after it was mended (0.8 s in Yield, 8 s in Isolate by default).
  static constexpr std::uint8_t max_backoff = 3;

  /// To be called after each poll, when its cost has been charged to `budget`.
  static tier_decision on_poll(tier_state& state, const task_budget& budget,
                               const poll_result& poll, const tier_limits& limits) noexcept {
    if (state.level == tier::monitor && !state.excused && !poll.over_budget &&
        poll.cost < limits.quiet_below) [[likely]] {
      return tier_decision{.enforce = !limits.shadow};
    }
    return judge(state, budget, poll, limits);
  }

  /// A poll has cost `spent` of what it will be charged with, and goes on at `now`: the task climbs
  /// for its length alone. The offence is counted by on_poll(), when the poll has ended.
  static tier_decision on_stall(tier_state& state, timing::ticks now, timing::ticks spent,
                                const tier_limits& limits) noexcept;

  /// Demotion by time alone, for a task that has not been polled up to `now`. To be asked before a
  /// task is held back for the tier that it had when it last ran.
  static tier_decision on_idle(tier_state& state, const task_budget& budget, timing::ticks now,
                               const tier_limits& limits) noexcept {
    if (state.level == tier::monitor) [[likely]] {
      return tier_decision{.enforce = !limits.shadow};
    }
    return settle_idle(state, budget, now, limits);
  }

 private:
  static tier_decision judge(tier_state&, const task_budget&, const poll_result&,
                             const tier_limits&) noexcept;
  static tier_decision settle_idle(tier_state&, const task_budget&, timing::ticks now,
                                   const tier_limits&) noexcept;
};

/// What the tiers did, over all tasks of a context. Every count only grows.
struct tier_counts {
  /// transitions[from][to]
  std::array<std::array<std::uint64_t, 4>, 4> transitions{};
  std::uint64_t overruns = 0;    ///< overruns counted
  std::uint64_t slow_polls = 0;  ///< polls above a threshold
  timing::ticks saved = 0;       ///< shadow mode: CPU ticks that enforcement would have held back

  std::uint64_t into(tier) const noexcept;  ///< promotions into that tier
  std::uint64_t promotions() const noexcept;
  std::uint64_t demotions() const noexcept;
};

/// The counters behind tier_counts.
///
/// \par Cost           count(): nothing for a decision in which nothing happened; else one relaxed
///                     addition per fact.
/// \par Thread safety  Every member may be called from any thread.
/// \par Memory order   Relaxed: each counter stands for itself, a snapshot is not one instant.
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

  std::array<std::array<std::atomic<std::uint64_t>, 4>, 4> transitions_{};
  std::atomic<std::uint64_t> overruns_{0};
  std::atomic<std::uint64_t> slow_polls_{0};
  std::atomic<std::uint64_t> saved_{0};
};

}  // namespace asio_pulse
