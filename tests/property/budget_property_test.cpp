// SPDX-License-Identifier: BSL-1.0
//
// Random sequences of charges, compared with a model that computes in 128 bits what the budget
// computes in 64 bits with saturation.

#include "shrink.hpp"

#include <asio_pulse/task_budget.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using asio_pulse::task_budget;
using asio_pulse_test::for_all;
using asio_pulse_test::generator;

constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

__extension__ using wide = unsigned __int128;

struct charge {
  std::uint64_t now;
  std::uint64_t cost;
  bool shared;
};

std::ostream& operator<<(std::ostream& out, const charge& c) {
  return out << (c.shared ? "charge_shared(" : "charge(") << c.now << ", " << c.cost << ")";
}

struct setup {
  std::uint64_t budget, per, burst;
};

std::ostream& operator<<(std::ostream& out, const setup& s) {
  return out << "configure(" << s.budget << ", " << s.per << ", " << s.burst << ")";
}

// The definition, without regard to speed or size.
class model {
 public:
  explicit model(const setup& s) {
    wide rate = 65536;
    if (s.per > s.budget) {
      rate = ((wide{s.per} << 16) + s.budget / 2) / s.budget;
    }
    rate_ = std::min<wide>(rate, 0xffffffff);
    const wide burst = s.burst == 0 ? s.budget : s.burst;
    wide tolerance = ((burst * rate_) >> 16) + 512;
    tolerance = std::clamp<wide>(tolerance >> 10, 1, 0xffffffff);
    tolerance_ = tolerance << 10;
  }

  // Over budget, where the end of the counter leaves room to say so.
  bool apply(std::uint64_t now, std::uint64_t cost) {
    wide full_at = std::max<wide>(full_at_, now) + ((wide{cost} * rate_) >> 16);
    full_at = std::min<wide>(full_at, wide{now} + 2 * tolerance_);
    full_at_ = std::min<wide>(full_at, max);
    return full_at_ > wide{now} + tolerance_;
  }

  std::uint64_t backlog(std::uint64_t now) const {
    return full_at_ > now ? static_cast<std::uint64_t>(full_at_ - now) : 0;
  }
  std::uint64_t tolerance() const { return static_cast<std::uint64_t>(tolerance_); }

 private:
  wide rate_ = 0;
  wide tolerance_ = 0;
  wide full_at_ = 0;
};

setup random_setup(generator& random) {
  if (random.chance(50)) {
    const std::uint64_t budget = 1'000 + random.below(10'000'000);
    return {budget, budget + random.below(100) * budget, random.below(3) * budget};
  }
  return {std::max<std::uint64_t>(random.any_size(), 1), random.any_size(), random.any_size()};
}

// The rate of a hostile configuration is rounded after both sides are shortened to 47 bits: the
// model is held to the exact quotient where budget and window fit, as every valid option does.
bool exact_setup(const setup& s) { return s.budget < (max >> 17); }

std::vector<charge> random_charges(generator& random) {
  std::vector<charge> events;
  std::uint64_t now = random.chance(10) ? random.any_size() : 1'000'000'000;
  const std::uint64_t count = 1 + random.below(200);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (random.chance(2)) {
      now = random.any_size();
    } else {
      const std::uint64_t time =
          random.chance(50) ? random.below(5'000'000) : random.any_size() >> 20;
      now += std::min(time, max - now);
    }
    const std::uint64_t cost = random.chance(80) ? random.below(1'000'000) : random.any_size();
    events.push_back({now, cost, random.chance(50)});
  }
  return events;
}

template <typename... Parts>
std::string say(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  return text.str();
}

TEST(budget_property, agrees_with_the_definition_and_never_wraps) {
  for_all<charge>(6'000, random_charges, [](std::uint64_t seed, const std::vector<charge>& events) {
    generator random{~seed};
    const setup s = random_setup(random);
    task_budget budget;
    budget.configure(s.budget, s.per, s.burst);
    model expected{s};
    const bool exact = exact_setup(s);
    if (exact && budget.refill_time() != expected.tolerance()) {
      return say(s, ": tolerance ", budget.refill_time(), ", not ", expected.tolerance());
    }
    for (const charge& c : events) {
      const bool over =
          c.shared ? budget.charge_shared(c.now, c.cost) : budget.charge(c.now, c.cost);
      const bool wanted = expected.apply(c.now, c.cost);
      if (exact && over != wanted) {
        return say(s, ", ", c, ": over is ", over);
      }
      if (over != budget.over(c.now)) {
        return say(s, ", ", c, ": charge() and over() differ");
      }
      const std::uint64_t cap = budget.refill_time();
      if (budget.debt(c.now) > cap) {
        return say(s, ", ", c, ": debt above the cap");
      }
      if (exact &&
          budget.debt(c.now) != expected.backlog(c.now) - std::min(expected.backlog(c.now), cap)) {
        return say(s, ", ", c, ": debt ", budget.debt(c.now));
      }
      if (const double fill = budget.fill(c.now); !(fill >= 0.0 && fill <= 1.0)) {
        return say(s, ", ", c, ": fill ", fill);
      }
      if (over && (budget.remaining(c.now) != 0 || budget.fill(c.now) > 0.0)) {
        return say(s, ", ", c, ": over, and something is left");
      }
      const std::uint64_t paid = c.now + std::min(budget.debt(c.now), max - c.now);
      if (budget.over(paid)) {
        return say(s, ", ", c, ": still over when the debt is paid");
      }
    }
    return std::string{};
  });
}

TEST(budget_property, remaining_is_the_largest_cost_that_is_not_over) {
  for_all<charge>(6'000, random_charges, [](std::uint64_t seed, const std::vector<charge>& events) {
    generator random{~seed};
    const setup s = random_setup(random);
    for (const std::uint64_t more : {std::uint64_t{0}, std::uint64_t{1}}) {
      task_budget budget;
      budget.configure(s.budget, s.per, s.burst);
      for (const charge& c : events) {
        budget.charge(c.now, c.cost);
      }
      const std::uint64_t now = events.empty() ? 0 : events.back().now;
      if (now > max / 2) {
        continue;  // at the end of the counter there is no room to be over
      }
      const std::uint64_t left = budget.remaining(now);
      if (budget.over(now)) {
        continue;
      }
      if (budget.charge(now, left + more) != (more == 1)) {
        return say(s, ": ", left, " + ", more, " is wrong");
      }
    }
    return std::string{};
  });
}

// What the budget is for: over any time, the CPU time used while not over is at most the burst, one
// last poll and the share of the window. No poll is longer than the burst here: of a longer one,
// the cap on debt forgives a part.
TEST(budget_property, share_of_the_window_holds_over_any_run) {
  for_all<charge>(
      3'000,
      [](generator& random) {
        std::vector<charge> events;
        std::uint64_t now = 1'000'000'000;
        for (int i = 0; i < 300; ++i) {
          const std::uint64_t cost = random.below(200'000);
          now += cost + (random.chance(30) ? random.below(3'000'000) : 0);
          events.push_back({now, cost, random.chance(50)});
        }
        return events;
      },
      [](std::uint64_t seed, const std::vector<charge>& events) {
        generator random{~seed};
        const std::uint64_t amount = 100'000 + random.below(1'000'000);
        const setup s{amount, amount * (1 + random.below(50)), amount * random.below(4)};
        task_budget budget;
        budget.configure(s.budget, s.per, s.burst);
        double used = 0;
        for (const charge& c : events) {
          if (budget.over(c.now)) {
            continue;  // held back
          }
          const std::uint64_t cost = std::min(c.cost, budget.burst());
          budget.charge(c.now, cost);
          used += static_cast<double>(cost);
          const double time = static_cast<double>(c.now - events.front().now);
          const double allowed = static_cast<double>(budget.burst()) +
                                 time * static_cast<double>(s.budget) / static_cast<double>(s.per) +
                                 200'000;
          if (used > allowed * 1.0001 + 2'048) {
            return say(s, ": used ", used, " of ", allowed);
          }
        }
        return std::string{};
      });
}

}  // namespace
