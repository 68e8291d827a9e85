// SPDX-License-Identifier: BSL-1.0
//
// What a context tells of itself: metrics and traces.
#include <algorithm>
#include <array>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/inspect_server.hpp>
#include <asio_pulse/recording.hpp>
#include <functional>
#include <string_view>
#include <unordered_map>

#include "instruments.hpp"
#include "trace_taker.hpp"

namespace asio_pulse {

std::chrono::nanoseconds histogram::quantile(double q) const noexcept {
  if (buckets.empty() || count == 0) return {};
  const double wanted = std::clamp(q, 0.0, 1.0) * static_cast<double>(count);
  std::uint64_t below = 0;
  for (const bucket& b : buckets) {
    below += b.count;
    if (static_cast<double>(below) >= wanted) return b.upper;
  }
  return buckets.back().upper;
}

std::uint64_t histogram::at_most(std::chrono::nanoseconds limit) const noexcept {
  std::uint64_t below = 0;
  for (const bucket& b : buckets) {
    // A bucket is an eighth wide at the most: what it may begin with.
    if (b.upper > limit && b.upper - b.upper / 8 >= limit) break;
    below += b.count;
  }
  return below;
}

histogram difference(const histogram& later, const histogram& earlier) {
  histogram d;
  auto before = earlier.buckets.begin();
  for (const histogram::bucket& b : later.buckets) {
    while (before != earlier.buckets.end() && before->upper < b.upper) ++before;
    const bool there = before != earlier.buckets.end() && before->upper == b.upper;
    const std::uint64_t had = there && before->count <= b.count ? before->count : 0;
    if (b.count == had) continue;
    d.buckets.push_back({b.upper, b.count - had});
    d.count += b.count - had;
  }
  d.sum = later.sum >= earlier.sum ? later.sum - earlier.sum : later.sum;
  return d;
}

namespace detail {
namespace {

using namespace std::chrono_literals;

// Tasks that are looked at with the mutex held: between how long a new task waits for it (about 10
// us), and how often it is taken. A guess.
constexpr std::size_t chunk = 128;
// Recent CPU time is of an interval at least so long: several who look do not shorten each other's.
constexpr std::chrono::milliseconds shortest_interval = 500ms;
constexpr std::chrono::milliseconds probe_interval = 10ms;

std::chrono::nanoseconds to_ns(timing::ticks t) noexcept {
  return timing::timebase::get().to_ns(t);
}

struct site_sum {
  std::uint64_t polls = 0;
  std::uint64_t again = 0;
  timing::ticks cost = 0;
  timing::ticks longest = 0;

  void add(const hooks::poll_recorder::entry& e) noexcept {
    polls += e.polls.load(std::memory_order_relaxed);
    again += e.again.load(std::memory_order_relaxed);
    cost += e.cost.load(std::memory_order_relaxed);
    longest = std::max(longest, e.longest.load(std::memory_order_relaxed));
  }
  void add(const site_sum& s) noexcept {
    polls += s.polls;
    again += s.again;
    cost += s.cost;
    longest = std::max(longest, s.longest);
  }
  void tell(site_metrics& to) const noexcept {
    to.polls = polls;
    to.again = again;
    to.cpu = to_ns(cost);
    to.longest = to_ns(longest);
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

// The better of two goes first.
bool before(const task_metrics& a, const task_metrics& b) noexcept {
  if (a.recent != b.recent) return a.recent > b.recent;
  if (a.cpu != b.cpu) return a.cpu > b.cpu;
  return a.id < b.id;
}

}  // namespace

// ---- who looks

void context_core::tell_workers() noexcept {
  hooks::service_epoch.fetch_add(1, std::memory_order_relaxed);
  state.fetch_add(hooks::path_state::generation, std::memory_order_release);
}

void context_core::want_metrics(std::chrono::milliseconds how_long) noexcept {
  if (instruments_->want_metrics(instruments::clock::now() + how_long)) tell_workers();
}

void context_core::want_trace(std::chrono::milliseconds how_long) noexcept {
  if (instruments_->want_trace(instruments::clock::now() + how_long)) tell_workers();
}

void context_core::probe() noexcept {
  asio_port* const port = port_;
  // A thread that runs us through a base-class reference would count it.
  if (port == nullptr || closed() || strangers_.load(std::memory_order_relaxed)) return;
  if (instruments_->busy()) port->post_probe();
}

void context_core::probed(timing::ticks ready) noexcept {
  hooks::poll_recorder* const recorder = hooks::this_thread().recorder;
  if (recorder == nullptr) return;
  const timing::ticks now = timing::timebase::get().now();
  recorder->note_delay(now, now - std::min(ready, now),
                       timing::timebase::get().from_ns(probe_interval));
}

// ---- metrics

context_metrics context_core::metrics(const metrics_request& what) {
  context_metrics m = snapshot(what, looks_again);
  if (instruments_->collecting()) inspect_collecting();
  return m;
}

context_metrics context_core::snapshot(const metrics_request& what,
                                       std::chrono::milliseconds lease) {
  context_metrics m;
  const std::lock_guard one_at_a_time(instruments_->snapshot_mutex());
  m.collecting = instruments_->collecting();
  want_metrics(lease);
  m.number = number_;
  m.name = std::string_view(options_.name).substr(0, told_name);
  m.enabled = options_.enabled;
  m.shadow = options_.shadow;
  m.totals = stats();
  std::vector<const hooks::task_record*> at_work;
  collect_workers(what, m, at_work);
  collect_tasks(what, at_work, m);
  m.stalls = instruments_->stalls();
  m.instrument_bytes = instruments_->bytes();
  m.uncollected_workers = instruments_->refused();
  return m;
}

void context_core::collect_workers(const metrics_request& what, context_metrics& to,
                                   std::vector<const hooks::task_record*>& at_work) {
  std::unordered_map<std::uint64_t, site_sum> sites;
  site_sum rest;
  histogram_sum durations;
  histogram_sum delays;
  const timing::ticks now = timing::timebase::get().now();
  instruments_->for_each([&](const hooks::poll_recorder& r) {
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
      // Not while it runs another context inside a handler of ours.
      if (ts.watched.load(std::memory_order_relaxed) == this &&
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

// A piece of the list at a time. A reference keeps the task that a piece ends with in the list
// until the next one begins; tasks that come meanwhile go to its front and are not seen.
void context_core::walk_tasks(const std::function<void(task_state&)>& look) {
  task_state* held = nullptr;
  struct letting_go {
    task_state*& held;
    ~letting_go() {
      if (held != nullptr) hooks::release(*held);
    }
  } const at_end{held};
  for (bool begin = true; begin || held != nullptr; begin = false) {
    task_state* last = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (begin) look(*unnamed_);
      std::size_t n = 0;
      for (task_state* t = begin ? tasks_ : held->next; t != nullptr; t = t->next) {
        look(*t);
        if (++n >= chunk && t->next != nullptr && hooks::try_acquire(*t)) {
          last = t;
          break;
        }
      }
    }
    if (held != nullptr) hooks::release(*held);
    held = last;
  }
}

void context_core::collect_tasks(const metrics_request& what,
                                 const std::vector<const hooks::task_record*>& at_work,
                                 context_metrics& to) {
  const auto now = instruments::clock::now();
  const bool roll = now - instruments_->rolled >= shortest_interval;
  if (roll) {
    const bool first = instruments_->rolled == instruments::clock::time_point{};
    instruments_->recent_interval =
        first ? instruments::clock::duration{} : now - instruments_->rolled;
    instruments_->rolled = now;
  }
  to.recent_interval = instruments_->recent_interval;

  std::vector<task_metrics>& best = to.tasks;
  std::uint64_t polls = 0;
  std::uint64_t cost = 0;
  std::uint64_t recent = 0;
  const auto look = [&](task_state& t) {
    const std::uint64_t spent = t.cost.load(std::memory_order_relaxed);
    constexpr unsigned unit_bits = 8;
    if (roll) {
      const auto units = static_cast<std::uint32_t>(spent >> unit_bits);
      const std::uint32_t used = units - t.seen_cost.load(std::memory_order_relaxed);
      t.recent_cost.store(to.recent_interval.count() == 0 ? 0 : used, std::memory_order_relaxed);
      t.seen_cost.store(units, std::memory_order_relaxed);
    }
    const std::uint64_t lately = std::uint64_t{t.recent_cost.load(std::memory_order_relaxed)}
                                 << unit_bits;
    const std::uint64_t polled = t.polls.load(std::memory_order_relaxed);
    polls += polled;
    cost += spent;
    recent += lately;
    for (std::size_t i = 0; i < at_work.size(); ++i) {
      if (at_work[i] == &t) to.workers[i].running_task = t.id;
    }
    if (what.top_tasks == 0) return;
    task_metrics m;
    m.id = t.id;
    m.polls = polled;
    m.cpu = to_ns(spent);
    m.recent = to_ns(lately);
    if (best.size() == what.top_tasks && !before(m, best.front())) return;
    m.name = std::string_view(t.name.get()).substr(0, told_name);
    m.level = t.level.load(std::memory_order_relaxed);
    m.waiting = t.parked != nullptr && t.parked->front != nullptr;
    if (best.size() == what.top_tasks) {
      std::pop_heap(best.begin(), best.end(), before);
      best.back() = std::move(m);
    } else {
      best.push_back(std::move(m));
    }
    std::push_heap(best.begin(), best.end(), before);
  };

  {
    const std::lock_guard lock(mutex_);
    polls += ended_polls_;
    cost += ended_cost_;
    to.task_count = task_count_;
  }
  walk_tasks(look);
  std::sort_heap(best.begin(), best.end(), before);
  // A task that ended while the list was walked is in neither sum: counts only grow all the same.
  instruments_->most_polls = polls = std::max(polls, instruments_->most_polls);
  instruments_->most_cost = cost = std::max(cost, instruments_->most_cost);
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

// ---- traces

recording context_core::trace() {
  recording r = recorded();
  if (instruments_->collecting()) inspect_collecting();
  return r;
}

recording context_core::recorded() {
  want_trace(looks_again);
  trace_taker taker(*this);
  taker.take();
  return taker.finish();
}

}  // namespace detail
}  // namespace asio_pulse
