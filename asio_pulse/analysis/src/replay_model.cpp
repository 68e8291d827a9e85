// SPDX-License-Identifier: BSL-1.0

#include "replay_model.hpp"

#include "slices.hpp"

#include <asio_pulse/options.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <tuple>
#include <unordered_map>

namespace asio_pulse::detail {
namespace {

using std::chrono::nanoseconds;
using namespace std::chrono_literals;

// A longer gap between two polls counts as idle time. A guess: a turn through the kernel's poll
// takes about 2 us.
constexpr nanoseconds idle_gap = 10us;

// The entry of the queue that stands for the driver.
constexpr std::uint32_t driver = no_poll;

// Each poll has two numbers, for its begin and its end.
constexpr std::size_t most_polls = (std::size_t{1} << 31) - 1;

bool by_start(const recorded_event& a, const recorded_event& b) noexcept {
  return a.start() < b.start();
}

}  // namespace

replay_model::replay_model(const recording& r) : length(r.length) {
  std::unordered_map<std::uint32_t, const recorded_task*> recorded;  // by the low bits of the id
  for (const recorded_task& t : r.tasks) recorded.try_emplace(static_cast<std::uint32_t>(t.id), &t);
  std::unordered_map<std::uint32_t, std::uint32_t> indexes;
  std::vector<recorded_event> events;
  std::vector<std::uint32_t> task_of;
  std::vector<probe> probes;
  for (const recorded_worker& w : r.workers) {
    for (const recorded_event& e : w.events) {
      if (e.kind() != event_kind::queue_delay) continue;
      probes.push_back({e.start() + e.duration(), e.duration()});
    }
  }
  std::stable_sort(probes.begin(), probes.end(),
                   [](const probe& a, const probe& b) { return a.ran < b.ran; });
  const std::vector<pending> waits = merged(probes);
  for (const recorded_worker& w : r.workers) {
    if (w.events.size() > most_polls - polls.size()) {
      throw std::length_error("asio_pulse::replay: a recording may have 2^31 - 1 events");
    }
    lost += std::min(w.lost, std::numeric_limits<std::uint64_t>::max() - lost);
    events.clear();
    task_of.clear();
    std::copy_if(w.events.begin(), w.events.end(), std::back_inserter(events),
                 [](const recorded_event& e) { return e.kind() == event_kind::poll; });
    if (!std::is_sorted(events.begin(), events.end(), by_start)) {
      std::stable_sort(events.begin(), events.end(), by_start);
    }
    for (const recorded_event& e : events) {
      const auto [at, added] =
          indexes.try_emplace(e.task(), static_cast<std::uint32_t>(tasks.size()));
      if (added) {
        const auto known = recorded.find(e.task());
        const task_options defaults;
        tasks.push_back(known != recorded.end()
                            ? *known->second
                            : recorded_task{e.task(), "", defaults.budget, defaults.per, 0ns});
        // Work of no task that has no entry gets the default of options::unnamed.
        if (known == recorded.end() && e.task() == 0) tasks.back().budget = 0ns;
      }
      task_of.push_back(at->second);
    }
    add_worker(events, task_of, waits);
  }
  for (const busy_stretch& stretch : stretches) estimate_ready(stretch, probes);
  order_steps();
}

std::vector<replay_model::pending> replay_model::merged(const std::vector<probe>& probes) {
  std::vector<pending> waits;
  for (const probe& p : probes) {
    pending next{p.ran - p.delay, p.ran};
    while (!waits.empty() && waits.back().end >= next.begin) {
      next.begin = std::min(next.begin, waits.back().begin);
      waits.pop_back();
    }
    waits.push_back(next);
  }
  return waits;
}

void replay_model::add_worker(const std::vector<recorded_event>& events,
                              const std::vector<std::uint32_t>& task_of,
                              const std::vector<pending>& waits) {
  const auto idle = [&waits](nanoseconds from, nanoseconds to) {
    if (to - from <= idle_gap) return false;
    // A handler was ready during the gap, so the worker was not idle: it was in the kernel, or did
    // something that is not a poll.
    const auto after =
        std::upper_bound(waits.begin(), waits.end(), from,
                         [](nanoseconds at, const pending& w) { return at < w.begin; });
    return after == waits.begin() || std::prev(after)->end < to;
  };
  std::vector<slice> slices;
  slices.reserve(events.size());
  for (const recorded_event& e : events) {
    slices.push_back({.start = e.start(), .end = e.start() + e.duration()});
  }
  fit(slices, true);

  const std::size_t first_of_worker = queued.size();
  for (std::size_t i = 0; i < events.size(); ++i) {
    const auto poll = static_cast<std::uint32_t>(polls.size());
    const slice& s = slices[i];
    polls.push_back({s.start, s.end, events[i].duration(), task_of[i]});
    length = std::max(length, s.end);
    if (s.inner) continue;
    if (queued.size() == first_of_worker || idle(polls[queued.back().poll].end, s.start)) {
      stretches.push_back({queued.size(), queued.size()});
    } else {
      queued.back().takes = s.start - queued.back().start;
    }
    queued.push_back({s.start, s.start, s.end - s.start, poll, task_of[i]});
    stretches.back().end = queued.size();
  }
}

void replay_model::estimate_ready(const busy_stretch& stretch, const std::vector<probe>& probes) {
  const nanoseconds begin = queued[stretch.first].start;
  auto next = std::upper_bound(probes.begin(), probes.end(), begin,
                               [](nanoseconds at, const probe& p) { return at < p.ran; });
  probe last{begin, 0ns};
  bool measured = false;
  nanoseconds ready = begin;
  const nanoseconds end = queued[stretch.end - 1].start;
  for (std::size_t i = stretch.first; i < stretch.end; ++i) {
    queued_poll& q = queued[i];
    for (; next != probes.end() && next->ran <= q.start; ++next) {
      last = *next;
      measured = true;
    }
    nanoseconds delay = measured ? last.delay : q.start - begin;
    if (next != probes.end() && next->ran <= end) {
      const auto share = static_cast<double>((q.start - last.ran).count()) /
                         static_cast<double>((next->ran - last.ran).count());
      const auto rise = static_cast<double>((next->delay - last.delay).count());
      delay = last.delay + nanoseconds{std::llround(share * rise)};
    }
    ready = std::clamp(q.start - delay, ready, std::max(ready, q.start));
    q.ready = ready;
  }
}

// Merges the workers. Of steps at the same time, ends come before begins (but not before the begin
// of the same poll), and inner ends before outer ones.
void replay_model::order_steps() {
  std::vector<std::uint32_t> begins(polls.size());
  std::iota(begins.begin(), begins.end(), 0U);
  std::vector<std::uint32_t> ends = begins;
  const auto in_order = [](std::vector<std::uint32_t>& order, auto earlier) {
    if (!std::is_sorted(order.begin(), order.end(), earlier)) {
      std::stable_sort(order.begin(), order.end(), earlier);
    }
  };
  in_order(begins,
           [this](std::uint32_t a, std::uint32_t b) { return polls[a].start < polls[b].start; });
  in_order(ends, [this](std::uint32_t a, std::uint32_t b) {
    const auto key = [this](std::uint32_t i) {
      const replay_poll& p = polls[i];
      return std::tuple(p.end, p.start == p.end, -p.start);
    };
    return key(a) < key(b);
  });
  steps.reserve(2 * polls.size());
  auto end = ends.begin();
  for (const std::uint32_t begin : begins) {
    const nanoseconds start = polls[begin].start;
    while (polls[*end].end <= start && polls[*end].start < start) steps.push_back(*end++ * 2 + 1);
    steps.push_back(begin * 2);
  }
  while (end != ends.end()) steps.push_back(*end++ * 2 + 1);
}

replay_loop::replay_loop(const replay_model& model)
    : model_(model), parked_(model.tasks.size()), behind_(model.queued.size(), no_poll) {}

void replay_loop::run(const busy_stretch& stretch, std::span<const char> put_back,
                      std::span<nanoseconds> waits) {
  queue_.clear();
  round_robin_.clear();
  queue_front_ = round_robin_front_ = 0;
  driver_posted_ = false;
  std::size_t coming = stretch.first;
  nanoseconds now = model_.queued[coming].start;
  for (;;) {
    for (; coming < stretch.end && model_.queued[coming].ready <= now; ++coming) {
      queue_.push_back(static_cast<std::uint32_t>(coming));
    }
    if (queue_front_ == queue_.size()) {
      if (coming == stretch.end) return;
      now = model_.queued[coming].ready;
      continue;
    }
    std::uint32_t next = queue_[queue_front_++];
    if (next == driver) {
      next = release();
    } else {
      const queued_poll& q = model_.queued[next];
      if (put_back[q.poll] != 0 || parked_[q.task].front != no_poll) {
        park(next);
        continue;
      }
    }
    waits[next] = now - model_.queued[next].ready;
    now += model_.queued[next].takes;
  }
}

void replay_loop::park(std::uint32_t index) {
  const std::uint32_t task = model_.queued[index].task;
  parked_list& list = parked_[task];
  behind_[index] = no_poll;
  if (list.front == no_poll) {
    list.front = index;
    round_robin_.push_back(task);
  } else {
    behind_[list.back] = index;
  }
  list.back = index;
  if (!driver_posted_) {
    driver_posted_ = true;
    queue_.push_back(driver);
  }
}

std::uint32_t replay_loop::release() {
  const std::uint32_t task = round_robin_[round_robin_front_++];
  parked_list& list = parked_[task];
  const std::uint32_t index = list.front;
  list.front = behind_[index];
  if (list.front != no_poll) round_robin_.push_back(task);
  driver_posted_ = round_robin_front_ != round_robin_.size();
  if (driver_posted_) queue_.push_back(driver);
  return index;
}

}  // namespace asio_pulse::detail
