// SPDX-License-Identifier: BSL-1.0
#include "trace_taker.hpp"

#include "groups/task_groups.hpp"
#include "instruments.hpp"
#include "process/process_name.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace asio_pulse::detail {
namespace {

using timing::to_ns;

// Events that are older than this cannot be dated, because their 48 bits of ticks wrap within a day
// or two.
constexpr std::chrono::hours farthest_back{12};
constexpr std::size_t recorded_tasks = 4096;

// hooks/ does not know recordings, but must use the same numbers for events.
constexpr bool same(hooks::poll_recorder::kind a, event_kind b) {
  return static_cast<int>(a) == static_cast<int>(b);
}
using recorder_kind = hooks::poll_recorder::kind;
static_assert(same(recorder_kind::poll, event_kind::poll) &&
              same(recorder_kind::tier, event_kind::tier) &&
              same(recorder_kind::parked, event_kind::parked) &&
              same(recorder_kind::yielded, event_kind::yielded) &&
              same(recorder_kind::isolated, event_kind::isolated) &&
              same(recorder_kind::hint, event_kind::hint) &&
              same(recorder_kind::stall, event_kind::stall) &&
              same(recorder_kind::queue_delay, event_kind::queue_delay) &&
              same(recorder_kind::updated, event_kind::updated) &&
              same(recorder_kind::refused, event_kind::refused) &&
              hooks::poll_recorder::no_site == recorded_event::no_site);

}  // namespace

trace_taker::trace_taker(context_telemetry& context, from where, std::size_t limit)
    : context_(context),
      where_(where),
      limit_(limit),
      base_([] {
        const timing::ticks now = timing::timebase::get().now();
        return now - std::min(now, timing::timebase::get().from_ns(farthest_back));
      }()),
      began_(timing::timebase::get().now()) {}

std::uint32_t trace_taker::site_of(const hooks::poll_recorder& r, std::uint32_t entry) {
  if (entry > hooks::poll_recorder::sites) return recorded_event::no_site;
  const std::uint64_t key = r.at(entry).key.load(std::memory_order_relaxed);
  if (key == 0) return recorded_event::no_site;
  const auto known = sites_.find(key);
  if (known != sites_.end()) return known->second;
  if (made_.sites.size() >= recorded_event::no_site) return recorded_event::no_site;
  const auto number = static_cast<std::uint32_t>(made_.sites.size());
  made_.sites.push_back({.type = type_of(key), .place = place_of(key)});
  sites_.emplace(key, number);
  return number;
}

void trace_taker::convert(const hooks::poll_recorder& r, timing::ticks last, track& to) {
  for (const hooks::poll_recorder::event& e : raw_) {
    if (kept_ == limit_) {
      ++to.worker.lost;
      continue;
    }
    // The layout is the same, but times are in ticks. The start has the low 48 bits of a time near
    // `last`.
    const recorded_event raw{.first = e.first, .second = e.second};
    const auto near =
        static_cast<std::int64_t>(static_cast<timing::ticks>(raw.start().count()) - last) << 16 >>
        16;
    const timing::ticks start = last + static_cast<std::uint64_t>(near);
    if (start < base_ || (where_ == from::now && start < began_)) continue;
    const std::uint32_t site = site_of(r, raw.site());
    const std::chrono::nanoseconds at = to_ns(start - base_);
    if (raw.kind() == event_kind::poll || raw.kind() == event_kind::queue_delay) {
      const auto cost = static_cast<timing::ticks>(raw.duration().count());
      to.worker.events.push_back(
          recorded_event::make(raw.kind(), at, site, raw.task(), to_ns(cost)));
    } else {
      to.worker.events.push_back(
          recorded_event::make(raw.kind(), at, site, raw.task(), raw.value()));
    }
    ++kept_;
  }
}

void trace_taker::take() {
  context_.tools().for_each([this](const hooks::poll_recorder& r) {
    if (r.ring_size() == 0) return;
    const auto [at, fresh] = tracks_.try_emplace(&r);
    track& t = at->second;
    if (fresh && where_ == from::now) t.next = r.pushed();
    if (r.pushed() < t.next) t.next = 0;  // it is another ring
    t.worker.thread = r.thread;
    raw_.clear();
    timing::ticks last = 0;
    // Events that the ring had dropped before the first look do not count as lost.
    std::uint64_t lost = 0;
    t.next = r.copy(t.next, raw_, lost, last);
    if (!fresh || where_ == from::now) t.worker.lost += lost;
    convert(r, last, t);
  });
}

// Adds the stalls to the tracks of their threads, at the time at which they were found.
void trace_taker::add_stalls() {
  for (std::size_t i = 0; i < made_.stalls.size(); ++i) {
    const stall_metrics& s = made_.stalls[i];
    const auto at = std::chrono::duration_cast<std::chrono::nanoseconds>(s.at - made_.begin);
    if (at < std::chrono::nanoseconds{0} || at > made_.length) continue;
    const auto worker = std::find_if(made_.workers.begin(), made_.workers.end(),
                                     [&s](const auto& w) { return w.thread == s.thread; });
    if (worker == made_.workers.end()) continue;
    const auto later = std::find_if(worker->events.begin(), worker->events.end(),
                                    [at](const auto& e) { return e.start() > at; });
    worker->events.insert(
        later,
        recorded_event::make(event_kind::stall, at, recorded_event::no_site,
                             static_cast<std::uint32_t>(s.task_id), static_cast<std::uint32_t>(i)));
  }
}

recording trace_taker::finish() {
  const timing::ticks now = timing::timebase::get().now();
  const auto wall = std::chrono::system_clock::now();
  std::chrono::nanoseconds first = to_ns(now - base_);
  for (auto& [r, t] : tracks_) {
    std::stable_sort(t.worker.events.begin(), t.worker.events.end(),
                     [](const auto& a, const auto& b) { return a.start() < b.start(); });
    if (!t.worker.events.empty()) first = std::min(first, t.worker.events.front().start());
  }
  if (where_ == from::now) first = std::min(first, to_ns(began_ - base_));
  const auto shift = static_cast<std::uint64_t>(first.count()) << 16;
  for (auto& [r, t] : tracks_) {
    for (recorded_event& e : t.worker.events) e.first -= shift;
    made_.workers.push_back(std::move(t.worker));
  }
  std::sort(made_.workers.begin(), made_.workers.end(),
            [](const auto& a, const auto& b) { return a.thread < b.thread; });
  made_.length = to_ns(now - base_) - first;
  made_.begin =
      std::chrono::time_point_cast<std::chrono::system_clock::duration>(wall - made_.length);
  made_.pid = this_process_number();
  made_.program = this_program();
  const options o = context_.core().current();
  made_.context = std::string_view(o.name).substr(0, told_name);
  made_.clock = context_.core().stats().clock;
  made_.settings = {.stall_threshold = o.stall_threshold,
                    .yield_threshold = o.yield_threshold,
                    .isolate_threshold = o.isolate_threshold,
                    .tiers = o.tiers,
                    .shadow = o.shadow};
  context_.core().tasks().walk([this](task_state& t) {
    if (made_.tasks.size() == recorded_tasks) return;
    recorded_task& to = made_.tasks.emplace_back();
    to.id = t.id();
    to.name = std::string_view(t.name.get()).substr(0, told_name);
    t.with_group([&to](const group_state* g) {
      if (g != nullptr) to.name += " (in " + path_of(*g, told_name) + ")";
    });
    if (t.budget.unlimited()) return;
    to.budget = to.burst = to_ns(t.budget.burst());
    to.per = to_ns(t.budget.refill_time());
  });
  made_.stalls = context_.tools().stalls();
  add_stalls();
  return std::move(made_);
}

}  // namespace asio_pulse::detail
