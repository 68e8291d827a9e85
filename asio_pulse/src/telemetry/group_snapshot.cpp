// SPDX-License-Identifier: BSL-1.0
//
// Makes the metrics of groups.
#include "context_telemetry.hpp"
#include "groups/task_groups.hpp"
#include "keep_best.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace asio_pulse::detail {
namespace {

using timing::to_ns;

// What a snapshot keeps of each group. The pointers are only compared: the groups may have ended.
struct seen_group {
  const group_state* parent = nullptr;
  double weight = 0;
  bool wants = false;
  double below = 0;  // the weights of those below it that want CPU time
};

struct listed_group {
  const group_state* which = nullptr;
  group_metrics figures;
};

// Whether `a` has used more than `b`, first of all recently.
bool used_more(const group_metrics& a, const group_metrics& b) noexcept {
  return a.recent != b.recent ? a.recent > b.recent : a.cpu > b.cpu;
}

// Whether `a` comes before `b`. Groups that have used the same are ordered by their paths, in which a
// parent comes first.
bool goes_before(const listed_group& a, const listed_group& b) noexcept {
  if (used_more(a.figures, b.figures)) return true;
  return !used_more(b.figures, a.figures) && a.figures.path < b.figures.path;
}

// How the CPU time of all groups is divided by their weights.
class divided {
 public:
  void add(const group_state& g, unsigned weight, bool wants) {
    seen_[&g] = {.parent = g.above(), .weight = static_cast<double>(weight), .wants = wants};
  }
  // After the last add().
  void sum_up() noexcept {
    // What a group uses its parent uses, but they are not charged at the same moment.
    for (const auto& [which, g] : seen_) {
      if (!g.wants) continue;
      for (auto at = seen_.find(g.parent); at != seen_.end() && !at->second.wants;
           at = seen_.find(at->second.parent)) {
        at->second.wants = true;
      }
    }
    for (const auto& [which, g] : seen_) {
      if (!g.wants) continue;
      const auto parent = seen_.find(g.parent);
      (parent != seen_.end() ? parent->second.below : top_) += g.weight;
    }
  }
  [[nodiscard]] bool at_top(const group_state* which) const noexcept {
    return seen_.at(which).parent == nullptr;
  }
  // The part of a group, of one.
  [[nodiscard]] double part_of(const group_state* which) const noexcept {
    double part = 1;
    for (auto at = seen_.find(which); at != seen_.end(); at = seen_.find(at->second.parent)) {
      const seen_group& g = at->second;
      if (!g.wants) return 0;
      const auto parent = seen_.find(g.parent);
      part *= g.weight / (parent != seen_.end() ? parent->second.below : top_);
    }
    return part;
  }

 private:
  std::unordered_map<const group_state*, seen_group> seen_;
  double top_ = 0;
};

// A group's figures, but for its names and what it asked for.
group_metrics figures_now(const group_state& g, timing::ticks cost) {
  group_metrics m;
  m.cpu = to_ns(cost);
  m.recent = to_ns(g.recent.get());
  m.weight = g.weight.load(std::memory_order_relaxed);
  m.tasks = g.tasks.load(std::memory_order_relaxed);
  if (const group_requests* const r = g.requests.load(std::memory_order_acquire)) {
    m.admitted = r->admitted.load(std::memory_order_relaxed);
    m.refused_share = r->refused_share.load(std::memory_order_relaxed);
    m.refused_overload = r->refused_overload.load(std::memory_order_relaxed);
    m.queue_delay =
        to_ns(timing::ticks{r->delay.load(std::memory_order_relaxed)} << cost_unit_bits);
  }
  return m;
}

// Adds to the sum, or takes away, what is the group's own.
template <class Change>
void change_own(group_metrics& sum, const group_metrics& m, Change change) {
  for (const auto member : {&group_metrics::tasks, &group_metrics::admitted,
                            &group_metrics::refused_share, &group_metrics::refused_overload}) {
    sum.*member = change(sum.*member, m.*member);
  }
}
// The same for the CPU time of a group at the top.
template <class Change>
void change_cpu(group_metrics& sum, const group_metrics& m, Change change) {
  for (const auto member : {&group_metrics::cpu, &group_metrics::recent, &group_metrics::asked}) {
    sum.*member = change(sum.*member, m.*member);
  }
}

}  // namespace

void context_telemetry::collect_groups(const metrics_request& what, bool roll,
                                       context_metrics& to) {
  task_groups& groups = core_.groups();
  std::vector<listed_group> best;
  divided all;
  group_metrics& others = to.other_groups;
  constexpr auto plus = [](auto a, auto b) { return a + b; };
  constexpr auto minus = [](auto a, auto b) { return a - std::min(a, b); };
  groups.walk([&](group_state& g) {
    const timing::ticks cost = g.cost.load();
    if (roll) g.recent.roll(cost, to.recent_interval.count() == 0);
    listed_group one{.which = &g, .figures = figures_now(g, cost)};
    group_metrics& m = one.figures;
    m.wants_more = groups.wants_more(g);
    all.add(g, static_cast<unsigned>(m.weight), m.wants_more || m.recent.count() != 0);
    ++to.group_count;
    change_own(others, m, plus);
    if (g.parent == nullptr) {
      change_cpu(others, m, plus);
      to.group_recent += m.recent;
    }
    if (what.top_groups == 0) return;
    if (best.size() == what.top_groups && used_more(best.front().figures, m)) return;
    m.path = path_of(g, told_name);
    if (best.size() == what.top_groups && !goes_before(one, best.front())) return;
    m.name = g.title().substr(0, told_name);
    keep_best(best, std::move(one), what.top_groups, goes_before);
  });
  std::sort_heap(best.begin(), best.end(), goes_before);
  all.sum_up();
  others.asked = to.group_recent;
  for (listed_group& g : best) {
    group_metrics& m = g.figures;
    m.asked = std::chrono::nanoseconds{static_cast<std::int64_t>(
        all.part_of(g.which) * static_cast<double>(to.group_recent.count()))};
    change_own(others, m, minus);
    if (all.at_top(g.which)) change_cpu(others, m, minus);
    to.groups.push_back(std::move(m));
  }
}

}  // namespace asio_pulse::detail
