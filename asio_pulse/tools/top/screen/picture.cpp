// SPDX-License-Identifier: BSL-1.0

#include "picture.hpp"

#include "site_index.hpp"
#include "text/duration_math.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace asio_pulse::top {
namespace {

using std::chrono::nanoseconds;

// Turns two readings of a counter into a rate.
class meter {
 public:
  explicit meter(std::optional<nanoseconds> interval) noexcept
      : seconds_(interval ? std::chrono::duration<double>(*interval).count() : 0.0) {}

  // If it is smaller than before, it has started again from zero.
  [[nodiscard]] rate of(std::uint64_t now, std::uint64_t before) const noexcept {
    if (!(seconds_ > 0)) return std::nullopt;
    return static_cast<double>(now >= before ? now - before : now) / seconds_;
  }
  [[nodiscard]] rate of(nanoseconds now, nanoseconds before) const noexcept {
    if (!(seconds_ > 0)) return std::nullopt;
    const nanoseconds spent = now >= before ? now - before : now;
    return std::chrono::duration<double>(spent).count() / seconds_;
  }

 private:
  double seconds_;
};

template <typename Range, typename Same>
auto* find(const Range* range, Same same) {
  using element = const typename Range::value_type;
  if (range == nullptr) return static_cast<element*>(nullptr);
  const auto found = std::find_if(range->begin(), range->end(), same);
  return found == range->end() ? nullptr : &*found;
}

// Groups by their paths. A hostile process may have many, with long paths.
class group_index {
 public:
  explicit group_index(const std::vector<group_metrics>& groups) {
    for (const group_metrics& g : groups) {
      const auto [at, fresh] = by_path_.try_emplace(g.path, &g);
      if (!fresh) at->second = nullptr;
    }
  }
  [[nodiscard]] bool has(const std::string& path) const { return by_path_.contains(path); }
  // Null also if several groups have this path.
  [[nodiscard]] const group_metrics* only(const std::string& path) const {
    const auto at = by_path_.find(path);
    return at != by_path_.end() ? at->second : nullptr;
  }

 private:
  std::unordered_map<std::string_view, const group_metrics*> by_path_;
};

std::uint64_t refusals(const group_metrics& g) noexcept {
  return g.refused_share + g.refused_overload;
}

group_view view_of(const group_metrics& group, const context_metrics& now) {
  group_view view{.now = group};
  if (now.recent_interval.count() > 0) {
    view.load = meter{now.recent_interval}.of(group.recent, nanoseconds{0});
  }
  if (now.group_recent.count() > 0) {
    view.got = detail::share_of(group.recent, now.group_recent);
    view.asked = detail::share_of(group.asked, now.group_recent);
  }
  return view;
}

std::vector<group_view> views_of_groups(const context_metrics& now, const context_metrics* before,
                                        const meter& m) {
  std::vector<group_view> views;
  for (const group_metrics& group : now.groups) views.push_back(view_of(group, now));
  if (before == nullptr) return views;
  const group_index present(now.groups);
  const group_index past(before->groups);
  const bool all_listed = before->groups.size() == before->group_count;
  for (group_view& view : views) {
    const std::string& path = view.now.path;
    if (present.only(path) == nullptr) continue;
    static const group_metrics fresh;
    const group_metrics* old = past.only(path);
    if (all_listed && !past.has(path)) old = &fresh;
    if (old == nullptr) continue;
    view.admitted = m.of(view.now.admitted, old->admitted);
    view.refused = m.of(refusals(view.now), refusals(*old));
  }
  return views;
}

duration_view view_of(const histogram& now, const histogram* before) {
  const histogram counted = before == nullptr ? now : difference(now, *before);
  return {counted.count, counted.quantile(0.5), counted.quantile(0.99), counted.quantile(1.0)};
}

worker_view view_of(const worker_metrics& now, const worker_metrics* before, const meter& m,
                    const std::vector<stall_metrics>& stalls) {
  worker_view view{.now = now};
  if (before != nullptr) {
    view.load = m.of(now.cpu, before->cpu);
    view.polls = m.of(now.polls, before->polls);
  }
  for (const stall_metrics& stall : stalls) {
    if (!stall.ended && stall.thread == now.thread && stall.site == now.running) {
      view.waits_in = stall.system_call;
      break;  // the newest
    }
  }
  return view;
}

totals_view view_of_totals(const context_metrics& now, const context_metrics* before,
                           const meter& m) {
  if (before == nullptr) return {};
  totals_view view{.polls = m.of(now.polls, before->polls), .load = m.of(now.cpu, before->cpu)};
  for (std::size_t i = 0; i < statistic_table.size(); ++i) {
    const statistic& row = statistic_table[i];
    if (row.what != statistic::kind::counter || row.count == nullptr) continue;
    view.counted[i] = m.of(now.totals.*row.count, before->totals.*row.count);
  }
  return view;
}

context_view view_of(const context_metrics& now, const context_metrics* before, const meter& m) {
  context_view view;
  view.now = now;
  // If the earlier reading was not collected, there is nothing to compare with.
  const context_metrics* const counted = before != nullptr && before->collecting ? before : nullptr;
  for (const worker_metrics& worker : now.workers) {
    if (worker.thread == 0) continue;  // it has left
    const auto* old = find(counted == nullptr ? nullptr : &counted->workers,
                           [&](const auto& w) { return w.thread == worker.thread; });
    // If it is missing from the earlier reading, it is new since then.
    static const worker_metrics fresh;
    if (old == nullptr && counted != nullptr && counted->uncollected_workers == 0) old = &fresh;
    view.workers.push_back(view_of(worker, old, m, now.stalls));
  }
  // Only the watchdog knows a worker that was stuck before the collection began.
  for (const stall_metrics& stall : now.stalls) {
    if (stall.ended || find(&view.workers, [&](const worker_view& w) {
                         return w.now.thread == stall.thread;
                       }) != nullptr) {
      continue;
    }
    view.workers.push_back({.now = {.thread = stall.thread,
                                    .running = stall.site,
                                    .running_task = stall.task_id,
                                    .running_for = stall.lasted},
                            .waits_in = stall.system_call});
  }
  for (const task_metrics& task : now.tasks) {
    const auto* const old = find(before == nullptr ? nullptr : &before->tasks,
                                 [&](const auto& t) { return t.id == task.id; });
    task_view row{.now = task};
    if (now.recent_interval.count() > 0) {
      row.load = meter{now.recent_interval}.of(task.recent, nanoseconds{0});
    }
    if (old != nullptr) row.polls = m.of(task.polls, old->polls);
    view.tasks.push_back(std::move(row));
  }
  const detail::site_index earlier(counted);
  for (const site_metrics& site : now.sites) {
    const site_metrics* const old = earlier.find(site);
    site_view row{.now = site};
    if (old != nullptr) {
      row.load = m.of(site.cpu, old->cpu);
      row.polls = m.of(site.polls, old->polls);
    } else if (counted != nullptr && counted->other_sites.polls == 0) {
      row.load = m.of(site.cpu, nanoseconds{0});  // all sites were listed before, so it is new
      row.polls = m.of(site.polls, 0);
    }
    row.mean = detail::mean_of(site.cpu, site.polls);
    view.sites.push_back(std::move(row));
  }
  view.groups = views_of_groups(now, before, m);
  view.totals = view_of_totals(now, before, m);
  if (before != nullptr && now.shard.shards != 0) {
    view.moves_in = m.of(now.shard.moves_in(), before->shard.moves_in());
    view.moves_out = m.of(now.shard.moves_out(), before->shard.moves_out());
  }
  view.queue_delay = view_of(now.queue_delay, counted == nullptr ? nullptr : &counted->queue_delay);
  view.poll_duration =
      view_of(now.poll_duration, counted == nullptr ? nullptr : &counted->poll_duration);
  return view;
}

}  // namespace

rate totals_view::of(std::uint64_t statistics::*member) const noexcept {
  const auto row = std::find_if(statistic_table.begin(), statistic_table.end(),
                                [member](const statistic& r) { return r.count == member; });
  return row == statistic_table.end()
             ? std::nullopt
             : counted[static_cast<std::size_t>(row - statistic_table.begin())];
}

picture make_picture(const process_metrics& now, const process_metrics* before,
                     std::optional<nanoseconds> age) {
  if (before != nullptr && (before->pid != now.pid || before->uptime >= now.uptime)) {
    before = nullptr;
  }
  picture result{
      .pid = now.pid, .program = now.program, .version = now.version, .at = now.at, .age = age};
  if (before != nullptr) result.interval = now.uptime - before->uptime;
  const meter m{result.interval};
  for (const context_metrics& context : now.contexts) {
    const auto* const old = find(before == nullptr ? nullptr : &before->contexts,
                                 [&](const auto& c) { return c.number == context.number; });
    result.contexts.push_back(view_of(context, old, m));
  }
  result.lints = lints(now, before);
  return result;
}

std::string_view mode_of(const context_metrics& context) noexcept {
  if (!context.enabled) return "off";
  return context.shadow ? "watching only (shadow)" : "enforcing";
}

}  // namespace asio_pulse::top
