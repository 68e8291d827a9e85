// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/hooks/assert.hpp>
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
  const ticks base = isolates(state.level) ? limits.isolate_clean_window : limits.clean_window;
  return base > (max_ticks >> state.backoff) ? max_ticks : base << state.backoff;
}

void demote(tier_state& state, ticks at, tier_decision& decision, reason why) noexcept {
  ASIO_PULSE_ASSERT(state.level != tier::monitor);
  ASIO_PULSE_ASSERT(decision.demotions + 1U < tier_count);
  state.level = below(state.level);
  state.window_start = at;
  state.overruns = 0;
  state.slow_polls = 0;
  state.probation = true;
  ++decision.demotions;
  decision.to = state.level;
  decision.why = why;
}

// Demotes by one tier for each whole window between the last offence and `until`.
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
  ASIO_PULSE_ASSERT(to > state.level && to <= last_tier);
  ASIO_PULSE_ASSERT(state.backoff <= tier_manager::max_backoff);
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

  // The reason is that of the highest tier; of two that are equal, the first.
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
  // A poll that the clock cannot vouch for counts at most half of what makes an overrun, so that it
  // alone never makes one. Even with a clock that vouches for nothing, a storm is noticed.
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

  // First the time before this poll is considered, since old offences must not add to new ones. The
  // budget was charged already, so its level at the start of the poll is not known. But even from
  // the deepest debt it is half full after one and a half refill times.
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
    ASIO_PULSE_ASSERT(e.why != reason::none);
    decision.why = e.why;
  }
  if (decision.report || poll.over_budget) {
    if (state.level != tier::monitor) {  // in Monitor it is the time of the last demotion
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
  state.window_start = now;  // a stuck task is not clean
  return decision;
}

tier_decision tier_manager::judge_idle(tier_state& state, const task_budget& budget, ticks now,
                                       const tier_limits& limits) noexcept {
  tier_decision decision{.from = state.level, .to = state.level, .enforce = !limits.shadow};
  state.window_start = std::min(state.window_start, now);
  if (budget.fill(now) >= 0.5) {
    demote_for_time(state, now, limits, decision);
  }
  return decision;
}

std::string_view to_string(tier t) noexcept {
  const auto number = static_cast<std::size_t>(t);
  return number < tier_count ? tier_names[number] : "unknown";
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
  std::uint64_t sum = 0;
  for (std::size_t to = 1; to < tier_count; ++to) sum += into(static_cast<tier>(to));
  return sum;
}

std::uint64_t tier_counts::demotions() const noexcept {
  std::uint64_t sum = 0;
  for (std::size_t from = 1; from < tier_count; ++from) sum += transitions[from][from - 1];
  return sum;
}

void tier_metrics::add(const tier_decision& decision) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  decision.for_each_step([this](tier from, tier to, reason) {
    ASIO_PULSE_ASSERT(from <= last_tier && to <= last_tier && from != to);
    ASIO_PULSE_ASSERT(to > from || static_cast<int>(from) - static_cast<int>(to) == 1);
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
    // The counter saturates.
    std::uint64_t saved = saved_.load(relaxed);
    while (!saved_.compare_exchange_weak(saved, asio_pulse::add(saved, decision.saved), relaxed)) {
    }
  }
}

tier_counts tier_metrics::snapshot() const noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  tier_counts counts;
  for (std::size_t from = 0; from < tier_count; ++from) {
    for (std::size_t to = 0; to < tier_count; ++to) {
      counts.transitions[from][to] = transitions_[from][to].load(relaxed);
    }
  }
  counts.overruns = overruns_.load(relaxed);
  counts.slow_polls = slow_polls_.load(relaxed);
  counts.saved = saved_.load(relaxed);
  return counts;
}

}  // namespace asio_pulse
