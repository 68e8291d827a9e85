// SPDX-License-Identifier: BSL-1.0
//
// Makes metrics: adds up the workers' recorders, and reads the tasks.
#include "context_telemetry.hpp"
#include "keep_best.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using timing::to_ns;

// The least interval of recent CPU time, so that several readers do not shorten each other's
// interval.
constexpr std::chrono::milliseconds shortest_interval = 500ms;

// The symbol at the address, or the address. A lock on the heap has no symbol.
std::string text_of_address(const void* address) {
  Dl_info at{};
  if (dladdr(address, &at) != 0 && at.dli_sname != nullptr) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(
        abi::__cxa_demangle(at.dli_sname, nullptr, nullptr, &status), &std::free);
    return std::string(status == 0 ? name.get() : at.dli_sname).substr(0, told_name);
  }
  return fmt::format("{}", address);
}

std::string text_of_lock(const void* lock, const void* checked) {
  return lock == nullptr ? "one inside the C library, in " + text_of_address(checked)
                         : text_of_address(lock) + ", in " + text_of_address(checked);
}

struct site_sum {
  std::uint64_t polls = 0;
  std::uint64_t again = 0;
  timing::ticks cost = 0;
  timing::ticks longest = 0;
  std::uint64_t suspended = 0;
  std::uint64_t refused = 0;
  std::uint64_t refused_lock = 0;
  const void* lock = nullptr;
  const void* checked = nullptr;

  void add(const hooks::poll_recorder::entry& e) noexcept {
    polls += e.polls.load(std::memory_order_relaxed);
    again += e.again.load(std::memory_order_relaxed);
    cost += e.cost.load(std::memory_order_relaxed);
    longest = std::max(longest, e.longest.load(std::memory_order_relaxed));
    suspended += e.suspended.load(std::memory_order_relaxed);
    refused += e.refused.load(std::memory_order_relaxed);
    refused_lock += e.refused_lock.load(std::memory_order_relaxed);
    if (const void* const c = e.checked.load(std::memory_order_relaxed)) {
      checked = c;
      lock = e.lock.load(std::memory_order_relaxed);
    }
  }
  void add(const site_sum& s) noexcept {
    polls += s.polls;
    again += s.again;
    cost += s.cost;
    longest = std::max(longest, s.longest);
    suspended += s.suspended;
    refused += s.refused;
    refused_lock += s.refused_lock;
    if (s.checked != nullptr) {
      checked = s.checked;
      lock = s.lock;
    }
  }
  void tell(site_metrics& to) const noexcept {
    to.polls = polls;
    to.again = again;
    to.cpu = to_ns(cost);
    to.longest = to_ns(longest);
    to.suspended = suspended;
    to.refused = refused;
    to.refused_lock = refused_lock;
    if (checked != nullptr) to.lock = text_of_lock(lock, checked);
  }
};

struct histogram_sum {
  std::array<std::uint64_t, hooks::duration_scale::buckets> counts{};
  timing::ticks sum = 0;

  void add(const hooks::poll_recorder::scale& s) noexcept {
    for (std::size_t i = 0; i < counts.size(); ++i) {
      counts[i] += s[i].load(std::memory_order_relaxed);
    }
  }
  [[nodiscard]] histogram get() const {
    histogram h;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      h.buckets.push_back({to_ns(hooks::duration_scale::upper(i)), counts[i]});
      h.count += counts[i];
    }
    h.sum = to_ns(sum);
    return h;
  }
};

std::uint64_t count_of(const std::array<std::atomic<std::uint64_t>, move_reasons>& moves,
                       move_reason why) noexcept {
  return moves[static_cast<std::size_t>(why)].load(std::memory_order_relaxed);
}

void tell(const shard_figures& from, shard_metrics& to) {
  const shard_report now = from.load.read();
  to.set = from.set();
  to.index = from.index();
  to.shards = from.shards();
  to.cpu_permille = now.load.cpu_permille;
  to.delay = now.load.delay;
  to.movable = now.movable;
  to.draining = now.draining;
  to.keeps = static_cast<stay_reason>(from.stays.load(std::memory_order_relaxed));
  to.in_imbalance = count_of(from.moves_in, move_reason::imbalance);
  to.in_stuck = count_of(from.moves_in, move_reason::stuck);
  to.in_drain = count_of(from.moves_in, move_reason::drain);
  to.in_ordered = count_of(from.moves_in, move_reason::ordered);
  to.out_imbalance = count_of(from.moves_out, move_reason::imbalance);
  to.out_stuck = count_of(from.moves_out, move_reason::stuck);
  to.out_drain = count_of(from.moves_out, move_reason::drain);
  to.out_ordered = count_of(from.moves_out, move_reason::ordered);
  to.received = from.received.load(std::memory_order_relaxed);
  to.wakes = from.wakes.load(std::memory_order_relaxed);
  const int cpu = from.cpu.load(std::memory_order_relaxed);
  to.pinned = cpu >= 0;
  to.cpu = static_cast<std::uint64_t>(std::max(cpu, 0));
  std::array<noted_move, shard_figures::remembered> moves;
  const nanoseconds at = std::chrono::steady_clock::now().time_since_epoch();
  for (std::size_t i = from.last_moves(moves); i-- != 0;) {
    const noted_move& m = moves[i];
    to.moves.push_back(
        {m.who.data(), m.from, m.to, m.why, std::max(at - m.at, nanoseconds{0}), m.took});
  }
}

// Whether `a` comes before `b`.
bool before(const task_metrics& a, const task_metrics& b) noexcept {
  if (a.recent != b.recent) return a.recent > b.recent;
  if (a.cpu != b.cpu) return a.cpu > b.cpu;
  return a.id < b.id;
}

}  // namespace

context_metrics context_telemetry::snapshot(const metrics_request& what,
                                            std::chrono::milliseconds lease) {
  context_metrics m;
  const std::lock_guard one_at_a_time(tools_.snapshot_mutex());
  m.collecting = tools_.collecting();
  want_metrics(lease);
  const options& o = core_.opts();
  m.number = core_.number();
  m.name = std::string_view(o.name).substr(0, told_name);
  m.enabled = o.enabled;
  m.shadow = core_.shadow();
  m.totals = core_.stats();
  std::vector<const hooks::task_record*> at_work;
  collect_workers(what, m, at_work);
  const bool rolls = roll(m);
  collect_tasks(what, rolls, at_work, m);
  collect_groups(what, rolls, m);
  if (const shard_figures* const shard = core_.shard()) tell(*shard, m.shard);
  m.stalls = tools_.stalls();
  m.instrument_bytes = tools_.bytes();
  m.uncollected_workers = tools_.refused();
  return m;
}

void context_telemetry::collect_workers(const metrics_request& what, context_metrics& to,
                                        std::vector<const hooks::task_record*>& at_work) {
  std::unordered_map<std::uint64_t, site_sum> sites;
  site_sum rest;
  histogram_sum durations;
  histogram_sum delays;
  const timing::ticks now = timing::timebase::get().now();
  tools_.for_each([&](const hooks::poll_recorder& r) {
    site_sum all;
    for (std::size_t i = 0; i <= hooks::poll_recorder::sites; ++i) {
      const hooks::poll_recorder::entry& e = r.at(i);
      const std::uint64_t key = e.key.load(std::memory_order_relaxed);
      site_sum one;
      one.add(e);
      all.add(one);
      if (i == hooks::poll_recorder::other_sites) {
        rest.add(one);
      } else if (key != 0) {
        sites[key].add(one);
      }
    }
    durations.add(r.durations());
    durations.sum += all.cost;
    delays.add(r.delays());
    delays.sum += r.delays_sum();
    worker_metrics w;
    w.polls = all.polls;
    w.cpu = to_ns(all.cost);
    w.longest_batch = to_ns(r.longest_batch());
    if (r.batch_key() != 0) w.batch_site = type_of(r.batch_key());
    at_work.push_back(nullptr);
    if (r.owner != nullptr) {
      w.thread = r.thread;
      const hooks::thread_state& ts = *r.owner;
      // Not while it runs another context inside a handler of this one.
      if (ts.watched.load(std::memory_order_relaxed) == &core_ &&
          ts.top.load(std::memory_order_relaxed) != nullptr) {
        const timing::ticks start = ts.clock.last();
        if (const hooks::site* s = ts.poll_site.load(std::memory_order_relaxed)) {
          w.running = short_type(s->type_name);
          w.running_for = to_ns(now - std::min(start, now));
          at_work.back() = ts.watched_account.load(std::memory_order_relaxed);
        }
      }
    }
    to.workers.push_back(std::move(w));
  });
  to.poll_duration = durations.get();
  to.queue_delay = delays.get();

  std::vector<std::pair<std::uint64_t, site_sum>> order(sites.begin(), sites.end());
  const std::size_t shown = std::min(what.top_sites, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                    [](const auto& a, const auto& b) {
                      return a.second.cost != b.second.cost ? a.second.cost > b.second.cost
                                                            : a.first < b.first;
                    });
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i >= shown) {
      rest.add(order[i].second);
      continue;
    }
    site_metrics& s = to.sites.emplace_back();
    s.type = type_of(order[i].first);
    s.place = place_of(order[i].first);
    order[i].second.tell(s);
  }
  rest.tell(to.other_sites);
}

bool context_telemetry::roll(context_metrics& to) noexcept {
  const auto now = instruments::clock::now();
  const bool rolls = now - tools_.rolled >= shortest_interval;
  if (rolls) {
    const bool first = tools_.rolled == instruments::clock::time_point{};
    tools_.recent_interval = first ? instruments::clock::duration{} : now - tools_.rolled;
    tools_.rolled = now;
  }
  to.recent_interval = tools_.recent_interval;
  return rolls;
}

void context_telemetry::collect_tasks(const metrics_request& what, bool roll,
                                      const std::vector<const hooks::task_record*>& at_work,
                                      context_metrics& to) {
  std::vector<task_metrics>& best = to.tasks;
  std::uint64_t polls = 0;
  std::uint64_t cost = 0;
  std::uint64_t recent = 0;
  const auto look = [&](task_state& t) {
    const std::uint64_t spent = t.cost();
    if (roll) t.recent.roll(spent, to.recent_interval.count() == 0);
    const std::uint64_t lately = t.recent.get();
    const std::uint64_t polled = t.polls();
    polls += polled;
    cost += spent;
    recent += lately;
    for (std::size_t i = 0; i < at_work.size(); ++i) {
      if (at_work[i] == &t) to.workers[i].running_task = t.id();
    }
    if (what.top_tasks == 0) return;
    task_metrics m;
    m.id = t.id();
    m.polls = polled;
    m.cpu = to_ns(spent);
    m.recent = to_ns(lately);
    if (best.size() == what.top_tasks && !before(m, best.front())) return;
    m.name = std::string_view(t.name.get()).substr(0, told_name);
    m.level = t.level.load(std::memory_order_relaxed);
    m.waiting = t.held.load(std::memory_order_relaxed);
    keep_best(best, std::move(m), what.top_tasks, before);
  };

  const task_list::figures totals = core_.tasks().totals();
  polls += totals.ended_polls;
  cost += totals.ended_cost;
  to.task_count = totals.alive;
  core_.tasks().walk(look);
  std::sort_heap(best.begin(), best.end(), before);
  // A task that ended while the list was read may be in neither sum, but counters must only grow.
  tools_.most_polls = polls = std::max(polls, tools_.most_polls);
  tools_.most_cost = cost = std::max(cost, tools_.most_cost);
  to.polls = polls;
  to.cpu = to_ns(cost);
  to.other_tasks.polls = polls;
  to.other_tasks.cpu = to.cpu;
  to.other_tasks.recent = to_ns(recent);
  for (const task_metrics& m : best) {
    to.other_tasks.polls -= std::min(to.other_tasks.polls, m.polls);
    to.other_tasks.cpu -= std::min(to.other_tasks.cpu, m.cpu);
    to.other_tasks.recent -= std::min(to.other_tasks.recent, m.recent);
  }
}

}  // namespace asio_pulse::detail
