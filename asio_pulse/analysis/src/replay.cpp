// SPDX-License-Identifier: BSL-1.0

#include "replay_run.hpp"
#include "text/duration_math.hpp"

#include <asio_pulse/options.hpp>
#include <asio_pulse/replay.hpp>
#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/tier_manager.hpp>

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <unordered_map>

namespace asio_pulse {
namespace {

using detail::busy_stretch;
using detail::queued_poll;
using detail::replay_model;
using detail::replay_poll;
using std::chrono::nanoseconds;
using timing::ticks;
using namespace std::chrono_literals;

// In a replay a tick is a nanosecond, so that the result is the same on every machine.
ticks to_ticks(nanoseconds value) noexcept {
  return static_cast<ticks>(std::max<nanoseconds::rep>(value.count(), 0));
}
nanoseconds to_ns(ticks value) noexcept {
  return nanoseconds{static_cast<nanoseconds::rep>(value)};
}

options as_options(const recorded_settings& s) {
  options o;
  o.stall_threshold = s.stall_threshold;
  o.yield_threshold = s.yield_threshold;
  o.isolate_threshold = s.isolate_threshold;
  o.tiers = s.tiers;
  o.shadow = s.shadow;
  return o;
}

class task_run {
 public:
  void start(const recorded_task& task, const tier_limits& limits) {
    limits_ = limits;
    budget_.configure(to_ticks(task.budget), to_ticks(task.per), to_ticks(task.burst));
    result.id = task.id;
    result.name = task.name;
  }

  /// A poll is about to run. Returns whether it is put back.
  bool begin(nanoseconds at) {
    const ticks now = to_ticks(at);
    account_idle(now);
    ++running_;
    if (!holds_back(state_.level)) return false;
    count(tier_manager::on_idle(state_, budget_, now, limits_));
    const bool held = holds_back(state_.level) && budget_.over(now);
    would_park_ = limits_.shadow && held;
    if (held) ++result.put_back;
    return held;
  }

  void end(nanoseconds at, nanoseconds cost) {
    const ticks now = to_ticks(at);
    spend(now);
    --running_;
    ++result.polls;
    detail::add_up(result.cpu, cost);
    const bool over = budget_.charge(now, to_ticks(cost));
    count(tier_manager::on_poll(
        state_, budget_,
        {.now = now, .cost = to_ticks(cost), .over_budget = over, .would_park = would_park_},
        limits_));
  }

  void finish(nanoseconds at) { account_idle(to_ticks(at)); }

  replayed_task result{};

 private:
  // Adds the time up to `now` to the current tier.
  void spend(ticks now) {
    if (now <= since_) return;
    result.in_tier[static_cast<std::size_t>(state_.level)] += to_ns(now - since_);
    since_ = now;
  }

  // The task has not run up to `now`. When it would have been demoted is computed on a copy,
  // because the library itself looks only when it needs to know, as begin() does.
  void account_idle(ticks now) {
    constexpr ticks resolution = 1000;
    tier_state idle = state_;
    while (running_ == 0 && idle.level != tier::monitor && since_ < now) {
      const auto step_at = [this, &idle](ticks at) {
        tier_state copy = idle;
        return tier_manager::on_idle(copy, budget_, at, limits_).demotions != 0;
      };
      if (!step_at(now)) break;
      ticks before = since_;
      ticks after = now;
      while (after - before > resolution) {
        const ticks middle = before + (after - before) / 2;
        (step_at(middle) ? after : before) = middle;
      }
      result.in_tier[static_cast<std::size_t>(idle.level)] += to_ns(after - since_);
      since_ = after;
      (void)tier_manager::on_idle(idle, budget_, after, limits_);
    }
    if (now > since_) {
      result.in_tier[static_cast<std::size_t>(idle.level)] += to_ns(now - since_);
      since_ = now;
    }
  }

  void count(const tier_decision& decision) {
    if (decision.report) ++result.offences;
    decision.for_each_step([this](tier from, tier to, reason) {
      if (to > from && to == tier::warn) ++result.warns;
      if (to > from && to == tier::isolate) ++result.isolations;
    });
  }

  task_budget budget_;
  tier_state state_{};
  tier_limits limits_{};
  ticks since_ = 0;
  int running_ = 0;
  bool would_park_ = false;
};

// Buckets of an eighth of a power of two: values with the same four leading bits.
class bucket_counts {
 public:
  void add(nanoseconds value) {
    const auto bits = static_cast<std::uint64_t>(value.count());
    const std::size_t shift = shift_of(bits);
    ++counts_[shift * buckets_of_shift + static_cast<std::size_t>(bits >> shift)];
  }
  [[nodiscard]] std::vector<histogram::bucket> take() const {
    std::vector<histogram::bucket> buckets;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] == 0) continue;
      const std::uint64_t leading = i % buckets_of_shift;
      const std::uint64_t upper = ((leading + 1) << (i / buckets_of_shift)) - 1;
      buckets.push_back({to_ns(upper), counts_[i]});
    }
    return buckets;
  }

 private:
  static constexpr std::size_t leading_bits = 4;
  static constexpr std::size_t buckets_of_shift = std::size_t{1} << leading_bits;

  static std::size_t shift_of(std::uint64_t bits) {
    return std::max(static_cast<std::size_t>(std::bit_width(bits)), leading_bits) - leading_bits;
  }
  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(64 * buckets_of_shift);
};

// The percentile of `waits`, which may be in any order.
nanoseconds percentile(std::vector<nanoseconds>& waits, std::size_t of_100) {
  if (waits.empty()) return 0ns;
  const auto at =
      waits.begin() + static_cast<std::ptrdiff_t>((waits.size() * of_100 + 99) / 100 - 1);
  std::nth_element(waits.begin(), at, waits.end());
  return *at;
}

waiting summarize(std::vector<nanoseconds>&& waits) {
  waiting w;
  if (waits.empty()) return w;
  bucket_counts buckets;
  for (const nanoseconds wait : waits) {
    buckets.add(wait);
    detail::add_up(w.durations.sum, wait);
  }
  w.durations.count = waits.size();
  w.durations.buckets = buckets.take();
  w.p50 = percentile(waits, 50);
  w.p99 = percentile(waits, 99);
  w.longest = percentile(waits, 100);
  return w;
}

// The outcome for the tasks, and the waits of the queued polls.
struct played {
  std::vector<task_run> tasks;
  std::vector<nanoseconds> after;

  [[nodiscard]] bool touched(const queued_poll& q) const {
    return tasks[q.task].result.put_back != 0;
  }
};

std::vector<task_run> make_tasks(const replay_model& model, const recorded_settings& settings,
                                 const replay_options& how) {
  const tier_limits limits = detail::limits_of(settings, to_ticks);
  std::unordered_map<std::uint64_t, const recorded_task*> chosen;
  for (const recorded_task& t : how.tasks) chosen.insert_or_assign(t.id, &t);
  std::vector<task_run> tasks(model.tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    recorded_task t = model.tasks[i];
    if (t.budget > 0ns) {
      t.budget = how.budget.value_or(t.budget);
      t.per = how.per.value_or(t.per);
      t.burst = how.burst.value_or(t.burst);
    }
    if (const auto found = chosen.find(t.id); found != chosen.end()) {
      t.budget = found->second->budget;
      t.per = found->second->per;
      t.burst = found->second->burst;
    }
    tasks[i].start(t, t.id == 0 ? detail::without_enforcement(limits) : limits);
  }
  return tasks;
}

played play(const replay_model& model, const recorded_settings& settings,
            const replay_options& how) {
  played p{make_tasks(model, settings, how), {}};
  std::vector<char> put_back(model.polls.size());
  for (const std::uint32_t step : model.steps) {
    const replay_poll& poll = model.polls[step / 2];
    if (step % 2 == 0) {
      put_back[step / 2] = p.tasks[poll.task].begin(poll.start) ? 1 : 0;
    } else {
      p.tasks[poll.task].end(poll.end, poll.cost);
    }
  }
  for (task_run& t : p.tasks) t.finish(model.length);

  p.after.resize(model.queued.size());
  detail::replay_loop loop(model);
  for (const busy_stretch& stretch : model.stretches) {
    const auto first = model.queued.begin() + static_cast<std::ptrdiff_t>(stretch.first);
    const auto end = model.queued.begin() + static_cast<std::ptrdiff_t>(stretch.end);
    if (std::any_of(first, end, [&](const queued_poll& q) { return put_back[q.poll] != 0; })) {
      loop.run(stretch, put_back, p.after);
    } else {
      for (std::size_t i = stretch.first; i < stretch.end; ++i) {
        p.after[i] = model.queued[i].start - model.queued[i].ready;
      }
    }
  }
  return p;
}

}  // namespace

namespace detail {

replay_result run_replay(const replay_model& model, const recorded_settings& settings,
                         const replay_options& how) {
  played p = play(model, settings, how);
  std::vector<nanoseconds> waits[2][2];  // [touched][after]
  for (std::size_t i = 0; i < model.queued.size(); ++i) {
    const queued_poll& q = model.queued[i];
    replayed_task& t = p.tasks[q.task].result;
    detail::add_up(t.waited_before, q.start - q.ready);
    detail::add_up(t.waited_after, p.after[i]);
    const std::size_t touched = p.touched(q) ? 1 : 0;
    waits[touched][0].push_back(q.start - q.ready);
    waits[touched][1].push_back(p.after[i]);
  }
  replay_result result;
  result.length = model.length;
  result.polls = model.polls.size();
  result.lost = model.lost;
  result.others_before = summarize(std::move(waits[0][0]));
  result.others_after = summarize(std::move(waits[0][1]));
  result.touched_before = summarize(std::move(waits[1][0]));
  result.touched_after = summarize(std::move(waits[1][1]));
  for (task_run& t : p.tasks) {
    result.put_back += t.result.put_back;
    result.warns += t.result.warns;
    result.isolations += t.result.isolations;
    result.tasks_touched += t.result.put_back != 0 ? 1 : 0;
    result.tasks.push_back(std::move(t.result));
  }
  std::sort(result.tasks.begin(), result.tasks.end(),
            [](const replayed_task& a, const replayed_task& b) {
              return a.cpu != b.cpu ? a.cpu > b.cpu : a.id < b.id;
            });
  return result;
}

replay_figures figures_of_replay(const replay_model& model, const recorded_settings& settings,
                                 const replay_options& how) {
  const played p = play(model, settings, how);
  std::vector<nanoseconds> waits;
  waits.reserve(model.queued.size());
  for (std::size_t i = 0; i < model.queued.size(); ++i) {
    if (!p.touched(model.queued[i])) waits.push_back(p.after[i]);
  }
  replay_figures figures;
  figures.others = waits.size();
  figures.value.others_p50 = percentile(waits, 50);
  figures.value.others_p99 = percentile(waits, 99);
  figures.value.others_longest = percentile(waits, 100);
  for (const task_run& t : p.tasks) {
    figures.value.tasks_touched += t.result.put_back != 0 ? 1 : 0;
    figures.value.put_back += t.result.put_back;
    figures.value.warns += t.result.warns;
    figures.value.isolations += t.result.isolations;
  }
  return figures;
}

}  // namespace detail

std::string invalid_reason(const recorded_settings& settings, const replay_options& how) {
  std::string fault = invalid_reason(as_options(settings));
  // Options that are not given get values that are consistent with the others.
  task_options t;
  t.per = how.per.value_or(std::max(t.per, how.budget.value_or(0ns)));
  t.budget = how.budget.value_or(std::min(t.budget, t.per));
  t.burst = how.burst.value_or(0ns);
  if (fault.empty()) fault = invalid_reason(t);
  for (const recorded_task& task : how.tasks) {
    if (!fault.empty()) break;
    fault =
        invalid_reason(task_options{.budget = task.budget, .per = task.per, .burst = task.burst});
  }
  return fault;
}

replay_result replay(const recording& r, const recorded_settings& settings,
                     const replay_options& how) {
  if (const std::string fault = invalid_reason(settings, how); !fault.empty()) {
    throw std::invalid_argument(fault);
  }
  return detail::run_replay(replay_model(r), settings, how);
}

}  // namespace asio_pulse
