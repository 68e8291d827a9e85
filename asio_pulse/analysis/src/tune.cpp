// SPDX-License-Identifier: BSL-1.0

#include "replay_run.hpp"
#include "text/duration_literal.hpp"

#include <asio_pulse/replay.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <span>
#include <stdexcept>
#include <utility>

namespace asio_pulse {
namespace {

using detail::duration_literal;
using detail::replay_model;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

// These are explained at too_short() in the header.
constexpr int least_windows = 10;
constexpr std::size_t least_polls = 1000;
constexpr std::uint64_t least_kept_of_lost = 9;

constexpr std::size_t polls_replayed = 40'000'000;  // takes some seconds
constexpr std::size_t least_replays = 8;
constexpr std::size_t most_replays = 400;
constexpr std::size_t most_proposals = 3;

// The values that are tried. They are guesses, about a factor of two to three apart.
constexpr nanoseconds budgets[] = {50us, 100us, 200us, 300us, 500us, 1ms,
                                   2ms,  5ms,   10ms,  20ms,  50ms,  100ms};
constexpr nanoseconds windows[] = {1ms, 3ms, 10ms, 30ms, 100ms};
constexpr nanoseconds stalls[] = {1ms, 2ms, 5ms, 10ms, 20ms, 50ms};
constexpr nanoseconds yields[] = {1ms, 2ms, 5ms, 10ms, 20ms, 50ms, 100ms};
constexpr nanoseconds isolates[] = {5ms, 10ms, 20ms, 50ms, 100ms, 200ms, 1s};
constexpr nanoseconds counts[] = {1ns, 2ns, 3ns, 4ns, 8ns};  // numbers of overruns

enum coordinate : std::size_t { budget, per, yield, after, isolate, stall, coordinates };
using candidate = std::array<nanoseconds, coordinates>;

constexpr std::array<std::span<const nanoseconds>, coordinates> grid = {budgets, windows,  yields,
                                                                        counts,  isolates, stalls};

// A small difference is no reason to change a setting, so values with the same three leading bits
// count as equal.
std::uint64_t roughly(std::uint64_t value) {
  constexpr int leading = 3;
  const int shift = std::max(static_cast<int>(std::bit_width(value)) - leading, 0);
  return value >> shift << shift;
}

// Scores are compared member by member; less is better.
struct score {
  bool missed = false;
  bool worse = false;     // the goal is missed, and others wait longer than now
  std::uint64_t p99 = 0;  // rounded; 0 if the goal is reached
  std::uint64_t touched = 0;
  std::uint64_t put_back = 0;  // rounded
  std::size_t changes = 0;
  friend auto operator<=>(const score&, const score&) = default;
};

struct outcome {
  tuning_figures figures;
  score value;
};

class tuner {
 public:
  tuner(const recording& r, const tuning_goal& goal)
      : model_(r), present_settings_(r.settings), goal_(goal) {
    present_[yield] = r.settings.yield_threshold;
    present_[after] = nanoseconds{r.settings.tiers.yield_after};
    present_[isolate] = r.settings.isolate_threshold;
    present_[stall] = r.settings.stall_threshold;
    find_usual_budget();
    replays_left_ = std::clamp(polls_replayed / std::max<std::size_t>(model_.polls.size(), 1),
                               least_replays, most_replays);
  }

  std::vector<proposal> search() {
    candidate best = present_;
    score best_score = look(best)->value;
    for (bool better = true; better;) {
      better = false;
      for (std::size_t which = 0; which < coordinates; ++which) {
        if (which <= per && !has_budgets_) continue;
        for (const candidate& c : neighbours(best, which)) {
          const outcome* const seen = look(c);
          if (seen == nullptr || seen->value >= best_score) continue;
          best = c;
          best_score = seen->value;
          better = true;
        }
      }
    }
    return choose();
  }

 private:
  // The budget that most tasks have.
  void find_usual_budget() {
    std::map<std::pair<nanoseconds, nanoseconds>, std::size_t> usual;
    std::size_t most = 0;
    for (const recorded_task& t : model_.tasks) {
      if (t.id == 0 || t.budget <= 0ns) continue;
      const std::size_t count = ++usual[{t.budget, t.per}];
      if (count <= most) continue;
      most = count;
      present_[budget] = t.budget;
      present_[per] = t.per;
    }
    has_budgets_ = most != 0;
  }

  [[nodiscard]] bool changes_budget(const candidate& c) const {
    return c[budget] != present_[budget] || c[per] != present_[per];
  }

  [[nodiscard]] recorded_settings settings_of(const candidate& c) const {
    recorded_settings s = present_settings_;
    s.yield_threshold = c[yield];
    s.tiers.yield_after = static_cast<unsigned>(c[after].count());
    s.isolate_threshold = c[isolate];
    s.stall_threshold = c[stall];
    return s;
  }

  [[nodiscard]] replay_options options_of(const candidate& c) const {
    replay_options how;
    if (changes_budget(c)) {
      how.budget = c[budget];
      how.per = c[per];
      how.burst = 0ns;  // one budget, as in the code that to_cpp() writes
    }
    return how;
  }

  // The candidates that differ in one setting, those nearest to the present value first. The other
  // thresholds are moved along if that is needed to keep their order.
  [[nodiscard]] std::vector<candidate> neighbours(const candidate& from, std::size_t which) const {
    std::vector<nanoseconds> values(grid[which].begin(), grid[which].end());
    values.push_back(present_[which]);
    const auto ratio = [this, which](nanoseconds value) {
      const auto a = static_cast<double>(std::max(value, 1ns).count());
      const auto b = static_cast<double>(std::max(present_[which], 1ns).count());
      return std::max(a / b, b / a);
    };
    std::stable_sort(values.begin(), values.end(),
                     [&ratio](nanoseconds a, nanoseconds b) { return ratio(a) < ratio(b); });
    std::vector<candidate> found;
    for (const nanoseconds value : values) {
      if (value == from[which]) continue;
      candidate c = from;
      c[which] = value;
      if (which == yield && value != 0ns) {
        c[stall] = std::min(c[stall], value);
        if (c[isolate] != 0ns) c[isolate] = std::max(c[isolate], value);
      }
      found.push_back(c);
    }
    return found;
  }

  // Replays a candidate, unless its result is known already. Null if it is out of range, or the
  // limit of replayed polls is reached.
  const outcome* look(const candidate& c) {
    if (const auto seen = seen_.find(c); seen != seen_.end()) return &seen->second;
    const recorded_settings settings = settings_of(c);
    const replay_options how = options_of(c);
    const bool first = seen_.empty();
    if (!first && (replays_left_ == 0 || !invalid_reason(settings, how).empty())) return nullptr;
    if (replays_left_ != 0) --replays_left_;
    const detail::replay_figures replayed = detail::figures_of_replay(model_, settings, how);
    outcome o{.figures = replayed.value, .value = {}};
    // The goal does not count as reached if all tasks are held back.
    const bool alone = replayed.others == 0;
    o.value.missed = alone || o.figures.others_p99 > goal_.others_p99;
    if (alone) {
      o.value.p99 = ~std::uint64_t{0};
    } else if (o.value.missed) {
      o.value.worse = !first && o.figures.others_p99 > seen_.at(present_).figures.others_p99;
      o.value.p99 = roughly(static_cast<std::uint64_t>(o.figures.others_p99.count()));
    }
    o.value.touched = o.figures.tasks_touched;
    o.value.put_back = roughly(o.figures.put_back);
    for (std::size_t i = 0; i < coordinates; ++i) o.value.changes += c[i] != present_[i] ? 1U : 0U;
    order_.push_back(c);
    return &seen_.emplace(c, o).first->second;
  }

  // The best candidate, and others that are nearly as good and change less.
  [[nodiscard]] std::vector<proposal> choose() const {
    const outcome& present = seen_.at(present_);
    std::vector<candidate> sorted = order_;
    std::stable_sort(sorted.begin(), sorted.end(), [this](const candidate& a, const candidate& b) {
      return seen_.at(a).value < seen_.at(b).value;
    });
    std::vector<proposal> chosen;
    std::size_t changes = coordinates + 1;
    for (const candidate& c : sorted) {
      const outcome& o = seen_.at(c);
      if (o.value >= present.value || chosen.size() == most_proposals) break;
      if (o.value.changes >= changes) continue;
      changes = o.value.changes;
      const replay_options how = options_of(c);
      chosen.push_back({.settings = settings_of(c),
                        .budget = how.budget,
                        .per = how.per,
                        .present = present.figures,
                        .proposed = o.figures,
                        .reaches_goal = !o.value.missed});
    }
    return chosen;
  }

  replay_model model_;
  recorded_settings present_settings_;
  tuning_goal goal_;
  candidate present_{};
  bool has_budgets_ = false;
  std::size_t replays_left_ = 0;
  std::map<candidate, outcome> seen_;
  std::vector<candidate> order_;
};

}  // namespace

std::string too_short(const recording& r) {
  std::size_t polls = 0;
  std::uint64_t lost = 0;
  std::uint64_t kept = 0;
  for (const recorded_worker& w : r.workers) {
    lost += std::min(w.lost, ~std::uint64_t{0} - lost);
    kept += w.events.size();
    polls += static_cast<std::size_t>(
        std::count_if(w.events.begin(), w.events.end(),
                      [](const recorded_event& e) { return e.kind() == event_kind::poll; }));
  }
  if (r.length / least_windows < r.settings.tiers.clean_window) {
    return fmt::format(
        "the recording is too short to judge: it must last for {} clean windows of {} (got {})",
        least_windows, duration_literal(r.settings.tiers.clean_window), duration_literal(r.length));
  }
  if (polls < least_polls) {
    return fmt::format("the recording is too short to judge: it must hold {} polls (got {})",
                       least_polls, polls);
  }
  if (lost > kept / least_kept_of_lost) {
    return fmt::format(
        "the recording is incomplete: at most a tenth of its events may be lost (got {} of {})",
        lost, lost + std::min(kept, ~std::uint64_t{0} - lost));
  }
  return {};
}

std::vector<proposal> tune(const recording& r, const tuning_goal& goal) {
  if (goal.others_p99 < 0ns) {
    throw std::invalid_argument("asio_pulse::tuning_goal.others_p99 must not be negative");
  }
  if (const std::string fault = invalid_reason(r.settings); !fault.empty()) {
    throw std::invalid_argument(fault);
  }
  if (!too_short(r).empty()) return {};
  return tuner(r, goal).search();
}

std::string to_cpp(const proposal& p) {
  const recorded_settings& s = p.settings;
  std::string text = fmt::format(
      "asio_pulse::options{{\n"
      "    .stall_threshold = {},\n"
      "    .yield_threshold = {},\n"
      "    .isolate_threshold = {},\n",
      duration_literal(s.stall_threshold), duration_literal(s.yield_threshold),
      duration_literal(s.isolate_threshold));
  if (p.budget.has_value() && p.per.has_value()) {
    text += fmt::format(
        "    // The same budget and per for the program's own tasks.\n"
        "    .accepted = {{.name = \"connection\", .budget = {}, .per = {}}},\n",
        duration_literal(*p.budget), duration_literal(*p.per));
  }
  text += fmt::format(
      "    .tiers = {{.yield_after = {},\n"
      "              .isolate_after = {},\n"
      "              .clean_window = {},\n"
      "              .isolate_clean_window = {}}}}}",
      s.tiers.yield_after, s.tiers.isolate_after, duration_literal(s.tiers.clean_window),
      duration_literal(s.tiers.isolate_clean_window));
  return text;
}

}  // namespace asio_pulse
