// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/tier_manager.hpp>

#include <algorithm>

namespace asio_pulse {
namespace {

using timing::ticks;

constexpr ticks max_ticks = std::numeric_limits<ticks>::max();

constexpr ticks add(ticks a, ticks b) noexcept { return b > max_ticks - a ? max_ticks : a + b; }
constexpr ticks subtract(ticks a, ticks b) noexcept { return a > b ? a - b : 0; }

constexpr tier below(tier t) noexcept {
  return static_cast<tier>(static_cast<std::uint8_t>(t) - 1);
}

void increment(std::uint8_t& counter) noexcept {
  if (counter != std::numeric_limits<std::uint8_t>::max()) {
    ++counter;
  }
}

// How long a task in `level` has to be clean.
ticks window(const tier_state& state, const tier_limits& limits) noexcept {
  const ticks base =
      state.level == tier::isolate ? limits.isolate_clean_window : limits.clean_window;
  return base > (max_ticks >> state.backoff) ? max_ticks : base << state.backoff;
}

void demote(tier_state& state, ticks at, tier_decision& decision, reason why) noexcept {
  state.level = below(state.level);
  state.window_start = at;
  state.overruns = 0;
  state.slow_polls = 0;
  state.probation = true;
  ++decision.demotions;
  decision.to = state.level;
  decision.why = why;
}

// As many steps as whole windows fit between the last offence and `until`.
void demote_for_time(tier_state& state, ticks until, const tier_limits& limits,
                     tier_decision& decision) noexcept {
  while (state.level != tier::monitor && until >= state.window_start &&
         until - state.window_start >= window(state, limits)) {
    const bool ran = state.last_poll > state.window_start && state.last_poll <= until;
    demote(state, add(state.window_start, window(state, limits)), decision,
           ran ? reason::clean : reason::idle);
  }
}

void promote(tier_state& state, tier to, ticks now, const tier_limits& limits) noexcept {
  if (state.probation) {
    const bool clean =
        state.level == tier::monitor && subtract(now, state.window_start) >= window(state, limits);
    state.backoff =
        clean ? std::uint8_t{0}
              : std::min(static_cast<std::uint8_t>(state.backoff + 1), tier_manager::max_backoff);
    state.probation = false;
  }
  state.level = to;
  state.slow_polls = 0;
}

struct evidence {
  tier target = tier::monitor;
  reason why = reason::none;
  bool slow = false;
  bool overrun = false;

  // The stronger evidence names the reason; of two alike, the first.
  void add(tier wanted, reason r) noexcept {
    if (why == reason::none || wanted > target) {
      target = std::max(target, wanted);
      why = r;
    }
  }
};

void judge_length(tier_state& state, ticks cost, const tier_limits& limits, evidence& e) noexcept {
  const auto above = [cost](ticks limit) { return limit != tier_limits::off && cost >= limit; };
  if (above(limits.isolate_poll)) {
    e.add(tier::isolate, reason::long_poll);
  } else if (above(limits.yield_poll)) {
    e.add(tier::yield, reason::long_poll);
  } else if (above(limits.slow_poll)) {
    e.add(tier::warn, reason::slow_poll);
  } else {
    return;
  }
  e.slow = true;
  if (state.level == tier::yield) {
    increment(state.slow_polls);
    if (limits.isolate_after != 0 && state.slow_polls >= limits.isolate_after) {
      e.add(tier::isolate, reason::yield_did_not_help);
    }
  }
}

void judge_budget(tier_state& state, const task_budget& budget, const poll_result& poll, bool exact,
                  const tier_limits& limits, evidence& e) noexcept {
  const ticks quarter = std::max<ticks>(budget.burst() / 4, 1);
  // What the clock cannot vouch for is half of what counts as one overrun at most: never one by
  // itself. With a clock that can vouch for nothing, a storm is still found out.
  state.spent = add(state.spent, exact ? poll.cost : std::min(poll.cost, quarter / 2));
  if (!poll.over_budget) {
    state.excused = false;
    return;
  }
  const bool first = state.overruns == 0 && !state.excused;
  if (first && !exact) {
    state.excused = true;
    state.spent = 0;
    return;
  }
  if (!first && state.spent < quarter) {
    return;
  }
  state.excused = false;
  state.spent = 0;
  increment(state.overruns);
  e.overrun = true;
  e.add(tier::warn, reason::overrun);
  if (limits.yield_after != 0 && state.overruns >= limits.yield_after &&
      state.level < tier::yield) {
    e.add(tier::yield, reason::repeated_overruns);
  }
}

}  // namespace

tier_decision tier_manager::judge(tier_state& state, const task_budget& budget,
                                  const poll_result& poll, const tier_limits& limits) noexcept {
  tier_decision decision{.from = state.level, .to = state.level, .enforce = !limits.shadow};
  state.window_start = std::min(state.window_start, poll.now);  // time may run backwards

  // The time before this poll, first: what happened long ago must not add to what happens now. The
  // bucket has been charged already, so its level at the start is not known; but from the deepest
  // debt, two refills, it is half full again after one and a half.
  const ticks start = subtract(poll.now, poll.cost);
  const ticks half_full_after = budget.refill_time() + budget.refill_time() / 2;
  if (state.level != tier::monitor && subtract(start, state.last_poll) >= half_full_after) {
    demote_for_time(state, start, limits, decision);
  }
  state.last_poll = poll.now;

  if (limits.shadow && poll.would_park) {
    decision.saved = std::min(poll.cost, max_ticks - state.saved);
    state.saved += decision.saved;
  }

  const bool exact = poll.exact || limits.trust_occupancy;
  evidence e;
  if (exact) {
    judge_length(state, poll.cost, limits, e);
  }
  judge_budget(state, budget, poll, exact, limits, e);
  decision.slow = e.slow;
  decision.overrun = e.overrun;
  decision.report = e.slow || e.overrun;

  if (e.target > state.level) {
    promote(state, e.target, poll.now, limits);
    decision.to = state.level;
  }
  if (decision.report) {
    decision.why = e.why;
  }
  if (decision.report || poll.over_budget) {
    if (state.level != tier::monitor) {  // there it is the time of the last demotion
      state.window_start = poll.now;
    }
  } else if (state.level != tier::monitor &&
             subtract(poll.now, state.window_start) >= window(state, limits) &&
             budget.fill(poll.now) >= 0.5) {
    demote(state, poll.now, decision, reason::clean);
  }
  return decision;
}

tier_decision tier_manager::on_stall(tier_state& state, ticks now, ticks spent,
                                     const tier_limits& limits) noexcept {
  tier_decision decision{.from = state.level, .to = state.level, .enforce = !limits.shadow};
  const auto above = [spent](ticks limit) { return limit != tier_limits::off && spent >= limit; };
  const tier wanted = above(limits.isolate_poll) ? tier::isolate
                      : above(limits.yield_poll) ? tier::yield
                      : above(limits.slow_poll)  ? tier::warn
                                                 : tier::monitor;
  if (wanted == tier::monitor) return decision;
  if (wanted > state.level) {
    promote(state, wanted, now, limits);
    decision.to = state.level;
    decision.why = wanted == tier::warn ? reason::slow_poll : reason::long_poll;
  }
  state.window_start = now;  // it is not clean while it is stuck
  return decision;
}

tier_decision tier_manager::settle_idle(tier_state& state, const task_budget& budget, ticks now,
                                        const tier_limits& limits) noexcept {
  tier_decision decision{.from = state.level, .to = state.level, .enforce = !limits.shadow};
  state.window_start = std::min(state.window_start, now);
  if (budget.fill(now) >= 0.5) {
    demote_for_time(state, now, limits, decision);
  }
  return decision;
}

std::string_view to_string(tier t) noexcept {
  switch (t) {
    case tier::monitor:
      return "monitor";
    case tier::warn:
      return "warn";
    case tier::yield:
      return "yield";
    case tier::isolate:
      return "isolate";
  }
  return "unknown";
}

std::string_view to_string(reason r) noexcept {
  switch (r) {
    case reason::none:
      return "none";
    case reason::overrun:
      return "overrun";
    case reason::slow_poll:
      return "slow_poll";
    case reason::long_poll:
      return "long_poll";
    case reason::repeated_overruns:
      return "repeated_overruns";
    case reason::yield_did_not_help:
      return "yield_did_not_help";
    case reason::clean:
      return "clean";
    case reason::idle:
      return "idle";
  }
  return "unknown";
}

std::uint64_t tier_counts::into(tier to) const noexcept {
  const auto column = static_cast<std::size_t>(to);
  std::uint64_t sum = 0;
  for (std::size_t from = 0; from < column && column < transitions.size(); ++from) {
    sum += transitions[from][column];
  }
  return sum;
}

std::uint64_t tier_counts::promotions() const noexcept {
  return into(tier::warn) + into(tier::yield) + into(tier::isolate);
}

std::uint64_t tier_counts::demotions() const noexcept {
  return transitions[3][2] + transitions[2][1] + transitions[1][0];
}

void tier_metrics::add(const tier_decision& decision) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  decision.for_each_step([this](tier from, tier to, reason) {
    transitions_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)].fetch_add(1,
                                                                                         relaxed);
  });
  if (decision.overrun) {
    overruns_.fetch_add(1, relaxed);
  }
  if (decision.slow) {
    slow_polls_.fetch_add(1, relaxed);
  }
  if (decision.saved != 0) {
    // Monotone to the end of the counter: it stops there.
    std::uint64_t saved = saved_.load(relaxed);
    while (!saved_.compare_exchange_weak(saved, asio_pulse::add(saved, decision.saved), relaxed)) {
    }
  }
}

tier_counts tier_metrics::snapshot() const noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  tier_counts counts;
  for (std::size_t from = 0; from < 4; ++from) {
    for (std::size_t to = 0; to < 4; ++to) {
      counts.transitions[from][to] = transitions_[from][to].load(relaxed);
    }
  }
  counts.overruns = overruns_.load(relaxed);
  counts.slow_polls = slow_polls_.load(relaxed);
  counts.saved = saved_.load(relaxed);
  return counts;
}

}  // namespace asio_pulse
