// SPDX-License-Identifier: BSL-1.0
//
// Random histories of a task, with invariants that must hold at every step.

#include "shrink.hpp"

#include <asio_pulse/tier_manager.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using asio_pulse::reason;
using asio_pulse::task_budget;
using asio_pulse::tier;
using asio_pulse::tier_counts;
using asio_pulse::tier_decision;
using asio_pulse::tier_limits;
using asio_pulse::tier_manager;
using asio_pulse::tier_metrics;
using asio_pulse::tier_state;
using asio_pulse_test::for_all;
using asio_pulse_test::generator;

constexpr std::uint64_t us = 1'000;
constexpr std::uint64_t ms = 1'000 * us;
constexpr std::uint64_t s = 1'000 * ms;
constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

struct event {
  enum { poll, idle, jump } what;
  std::uint64_t wait;  // before it; for a jump, the new time
  std::uint64_t cost = 0;
  bool exact = true;
  bool would_park = false;
};

std::ostream& operator<<(std::ostream& out, const event& e) {
  switch (e.what) {
    case event::poll:
      return out << "wait " << e.wait << ", poll " << e.cost << (e.exact ? "" : ", inexact")
                 << (e.would_park ? ", would park" : "");
    case event::idle:
      return out << "wait " << e.wait << ", on_idle";
    case event::jump:
      break;
  }
  return out << "time is " << e.wait;
}

std::uint64_t random_cost(generator& random) {
  switch (random.below(20)) {
    case 0:
      return random.below(80 * ms);
    case 1:
      return random.any_size() >> 24;
    case 2:
    case 3:
      return random.below(8 * ms);
    default:
      return random.below(300 * us);
  }
}

std::uint64_t random_wait(generator& random) {
  switch (random.below(20)) {
    case 0:
      return random.below(5 * s);
    case 1:
    case 2:
    case 3:
      return random.below(200 * ms);
    default:
      return random.below(2 * ms);
  }
}

std::vector<event> random_life(generator& random, bool hostile) {
  std::vector<event> events;
  const std::uint64_t count = 1 + random.below(250);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (hostile && random.chance(3)) {
      events.push_back({event::jump, random.any_size()});
    } else if (random.chance(10)) {
      events.push_back({event::idle, random_wait(random)});
    } else {
      const std::uint64_t cost =
          hostile && random.chance(3) ? random.any_size() : random_cost(random);
      events.push_back(
          {event::poll, random_wait(random), cost, random.chance(90), random.chance(30)});
    }
  }
  return events;
}

tier_limits random_limits(generator& random, bool hostile) {
  const auto off = [&](std::uint64_t value) {
    return random.chance(10) ? tier_limits::off : value;
  };
  tier_limits l;
  l.slow_poll = off(1 + random.below(10 * ms));
  l.yield_poll = off((l.slow_poll == tier_limits::off ? 0 : l.slow_poll) + random.below(30 * ms));
  l.isolate_poll = off(std::max(l.slow_poll == tier_limits::off ? 1 : l.slow_poll,
                                l.yield_poll == tier_limits::off ? 1 : l.yield_poll) +
                       random.below(60 * ms));
  l.quiet_below = std::min({l.slow_poll, l.yield_poll, l.isolate_poll});
  l.clean_window = 1 + (hostile && random.chance(20) ? random.any_size() : random.below(150 * ms));
  l.clean_window = std::max<std::uint64_t>(l.clean_window, 1);
  const std::uint64_t more = hostile && random.chance(20) ? random.any_size() : random.below(s);
  l.isolate_clean_window = l.clean_window + std::min(more, max - l.clean_window);
  l.yield_after = static_cast<std::uint8_t>(random.below(5));
  l.isolate_after = static_cast<std::uint8_t>(random.below(6));
  l.shadow = random.chance(30);
  l.trust_occupancy = random.chance(10);
  return l;
}

void random_budget(generator& random, task_budget& budget) {
  if (random.chance(10)) {
    return;  // unlimited
  }
  const std::uint64_t amount = 10 * us + random.below(2 * ms);
  budget.configure(amount, amount * (1 + random.below(20)), amount * random.below(4));
}

template <typename... Parts>
std::string say(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  return text.str();
}

bool grew(const tier_counts& before, const tier_counts& after) {
  for (std::size_t from = 0; from < 4; ++from) {
    for (std::size_t to = 0; to < 4; ++to) {
      if (after.transitions[from][to] < before.transitions[from][to]) {
        return false;
      }
    }
  }
  return after.overruns >= before.overruns && after.slow_polls >= before.slow_polls &&
         after.saved >= before.saved;
}

// One task's life. Returns what is wrong with a decision, or nothing.
class life {
 public:
  life(const tier_limits& limits, const task_budget& budget) : limits_(limits), budget_(budget) {}

  std::string check(const tier_decision& d, const tier_state& before, const tier_state& after) {
    if (d.from != before.level || d.to != after.level) {
      return "the decision does not say what the state does";
    }
    if (d.enforce == limits_.shadow) {
      return "shadow mode enforces, or enforcing mode does not";
    }
    tier at = d.from;
    bool up = false;
    std::string fault;
    d.for_each_step([&](tier from, tier to, reason why) {
      const int step = static_cast<int>(to) - static_cast<int>(from);
      if (from != at || to > tier::isolate) {
        fault = "steps are not a chain";
      } else if (step < -1 || step == 0) {
        fault = "a demotion that is not a single step";
      } else if (up) {
        fault = "a step after a promotion";
      } else if ((step > 0) == (why == reason::clean || why == reason::idle)) {
        fault = "the reason does not fit the step";
      } else if (why == reason::none) {
        fault = "a step without a reason";
      }
      up = up || step > 0;
      at = to;
      ++seen_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
    });
    if (!fault.empty()) {
      return fault;
    }
    if (at != d.to || up != d.promoted()) {
      return "steps do not lead where the decision says";
    }
    if (up && !d.report) {
      return "a promotion without a report";
    }
    if (d.report != (d.slow || d.overrun)) {
      return "a report without an offence, or the reverse";
    }
    if (d.report && d.why == reason::none) {
      return "an offence without a reason";
    }
    if (after.backoff > tier_manager::max_backoff) {
      return "backoff above its cap";
    }
    if (after.saved < before.saved || after.saved - before.saved != d.saved ||
        (!limits_.shadow && d.saved != 0)) {
      return "saved is wrong";
    }
    metrics_.count(d);
    const tier_counts counts = metrics_.snapshot();
    if (!grew(counts_, counts) || counts.transitions != seen_) {
      return "metrics are not monotone, or not what was observed";
    }
    counts_ = counts;
    return {};
  }

  std::string check_poll(const tier_decision& d, const event& e, bool over) {
    const bool exact = e.exact || limits_.trust_occupancy;
    const auto above = [&](std::uint64_t limit) {
      return exact && limit != tier_limits::off && e.cost >= limit;
    };
    if ((above(limits_.isolate_poll) && d.to != tier::isolate) ||
        (above(limits_.yield_poll) && d.to < tier::yield) ||
        (above(limits_.slow_poll) && d.to < tier::warn)) {
      return "a long poll did not escalate in one call";
    }
    if (d.slow !=
        (above(limits_.slow_poll) || above(limits_.yield_poll) || above(limits_.isolate_poll))) {
      return "slow is wrong";
    }
    if (d.promoted() && !d.slow && !d.overrun) {
      return "promoted without an offence";
    }
    if (d.overrun && !over) {
      return "an overrun within budget";
    }
    // At most one overrun a quarter of a burst, whatever happens in between, but for a first one in
    // a tier, which has a clean window before it.
    consumed_ += std::min(e.cost, max - consumed_);
    fresh_ = fresh_ || d.demotions != 0;
    if (d.overrun) {
      if (!fresh_ && consumed_ < budget_.burst() / 4) {
        return say("two overruns within ", consumed_, " ticks of CPU time");
      }
      consumed_ = 0;
      fresh_ = false;
    }
    return {};
  }

 private:
  const tier_limits& limits_;
  const task_budget& budget_;
  tier_metrics metrics_;
  tier_counts counts_;
  std::array<std::array<std::uint64_t, 4>, 4> seen_{};
  std::uint64_t consumed_ = 0;
  bool fresh_ = true;
};

// A task that was idle for all windows, even longer ones, is like a new task.
std::string check_idle_resets(tier_state state, const task_budget& budget, std::uint64_t now,
                              const tier_limits& limits) {
  const std::uint64_t longest =
      8 * (limits.isolate_clean_window + 2 * limits.clean_window) + 2 * budget.refill_time();
  const tier_decision d = tier_manager::on_idle(state, budget, now + longest, limits);
  if (d.to != tier::monitor || d.demotions != static_cast<int>(d.from)) {
    return "idle does not reset the tier";
  }
  if (state.overruns != 0 || state.slow_polls != 0) {
    return "idle does not reset the counters";
  }
  if (limits.slow_poll == tier_limits::off) {
    return {};
  }
  now += 2 * longest;
  task_budget unlimited;
  tier_manager::on_poll(state, unlimited, {.now = now, .cost = limits.slow_poll}, limits);
  return state.backoff == 0 ? std::string{} : "idle does not reset the backoff";
}

std::string run_life(std::uint64_t seed, const std::vector<event>& events, bool hostile) {
  generator random{~seed};
  const tier_limits limits = random_limits(random, hostile);
  task_budget budget;
  random_budget(random, budget);
  tier_state state{};
  life life{limits, budget};
  std::uint64_t now = 100 * s;
  const auto pass = [&now](std::uint64_t time) { now += std::min(time, max - now); };
  for (std::size_t i = 0; i < events.size(); ++i) {
    const event& e = events[i];
    if (e.what == event::jump) {
      now = e.wait;
      continue;
    }
    pass(e.wait);
    const tier_state before = state;
    std::string fault;
    tier_decision d;
    if (e.what == event::poll) {
      pass(e.cost);
      const bool over = budget.charge(now, e.cost);
      d = tier_manager::on_poll(state, budget,
                                {.now = now,
                                 .cost = e.cost,
                                 .over_budget = over,
                                 .exact = e.exact,
                                 .would_park = e.would_park},
                                limits);
      fault = life.check_poll(d, e, over);
    } else {
      d = tier_manager::on_idle(state, budget, now, limits);
      if (d.to > d.from || d.report) {
        fault = "idling is no offence";
      }
      life.check_poll(d, {event::poll, 0}, false);  // demotions are noted
    }
    if (fault.empty()) {
      fault = life.check(d, before, state);
    }
    if (fault.empty() && !hostile) {
      fault = check_idle_resets(state, budget, now, limits);
    }
    if (!fault.empty()) {
      return say("event ", i, " (", e, "), ", to_string(d.from), " -> ", to_string(d.to), ", ",
                 to_string(d.why), ": ", fault);
    }
  }
  return {};
}

TEST(tier_manager_property, invariants_hold_in_any_life) {
  for_all<event>(
      6'000, [](generator& random) { return random_life(random, false); },
      [](std::uint64_t seed, const std::vector<event>& events) {
        return run_life(seed, events, false);
      });
}

TEST(tier_manager_property, invariants_hold_with_wild_times_costs_and_limits) {
  for_all<event>(
      6'000, [](generator& random) { return random_life(random, true); },
      [](std::uint64_t seed, const std::vector<event>& events) {
        return run_life(seed, events, true);
      });
}

TEST(tier_manager_property, task_that_stays_within_its_budget_never_leaves_monitor) {
  for_all<event>(
      4'000, [](generator& random) { return random_life(random, false); },
      [](std::uint64_t seed, const std::vector<event>& events) -> std::string {
        generator random{~seed};
        const tier_limits limits = random_limits(random, false);
        task_budget budget;
        random_budget(random, budget);
        tier_state state{};
        std::uint64_t now = 100 * s;
        for (std::size_t i = 0; i < events.size(); ++i) {
          const event& e = events[i];
          now += e.wait;
          const std::uint64_t cost =
              std::min({e.cost, budget.remaining(now), limits.quiet_below - 1});
          now += cost;
          const tier_decision d = tier_manager::on_poll(
              state, budget,
              {.now = now, .cost = cost, .over_budget = budget.charge(now, cost), .exact = e.exact},
              limits);
          if (state.level != tier::monitor || d.changed() || d.report) {
            return say("event ", i, ": left Monitor, or was reported");
          }
        }
        return {};
      });
}

TEST(tier_manager_property, single_long_poll_escalates_from_any_life) {
  for_all<event>(
      4'000, [](generator& random) { return random_life(random, true); },
      [](std::uint64_t seed, const std::vector<event>& events) -> std::string {
        generator random{~seed};
        tier_limits limits = random_limits(random, true);
        limits.isolate_poll = std::min<std::uint64_t>(limits.isolate_poll, 100 * ms);
        limits.quiet_below = std::min(limits.quiet_below, limits.isolate_poll);
        task_budget budget;
        random_budget(random, budget);
        tier_state state{};
        std::uint64_t now = 100 * s;
        for (const event& e : events) {
          now = e.what == event::jump ? e.wait : now + std::min(e.wait, max - now);
          tier_manager::on_poll(state, budget,
                                {.now = now,
                                 .cost = e.cost,
                                 .over_budget = budget.charge_shared(now, e.cost),
                                 .exact = e.exact},
                                limits);
        }
        const std::uint64_t cost = 10 * s;
        now += std::min(cost, max - now);
        const tier_decision d = tier_manager::on_poll(
            state, budget, {.now = now, .cost = cost, .over_budget = budget.charge(now, cost)},
            limits);
        return d.to == tier::isolate ? std::string{}
                                     : say("in ", to_string(d.to), " after a 10 s poll");
      });
}

}  // namespace
