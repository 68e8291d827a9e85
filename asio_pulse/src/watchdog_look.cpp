// SPDX-License-Identifier: BSL-1.0
//
// The watchdog's looks: what each worker is doing, and since when.
#if defined(__linux__)

#include <sched.h>

#include <algorithm>
#include <new>
#include <utility>

#include "watchdog_thread.hpp"

namespace asio_pulse::detail {
namespace {

using timing::ticks;

// Looks in a row that have to find everybody idle. With the first the flag is set: two more see
// whoever was about to begin a poll, and spare a server that pauses now and then the waking.
constexpr int quiet_looks = 3;
// CPU time that no thread needs to get from the comparison of its observer's word to its poll.
constexpr std::int64_t more_than_a_poll_start_ns = 50'000;
// A timer that is late by less is a timer.
constexpr std::chrono::microseconds punctual{300};
// Whoever decides about a task has done so by then.
constexpr std::chrono::microseconds soon{500};
// A sample takes some microseconds, five times as many on a machine that does much else.
constexpr std::chrono::microseconds prompt{200};
// A look costs a wake-up, and most polls have ended by the next one: where none is old yet it comes
// later by a quarter of the threshold, and by no more than this. So much later is a stall told of
// at the worst.
constexpr std::chrono::milliseconds longest_delay{1};
// With no context left to look after.
constexpr std::chrono::milliseconds tick_of_nobody{10};

/// What a worker shows of itself, of one and the same poll.
struct reading {
  bool polling = false;
  ticks start = 0;
  hooks::path_observer* observer = nullptr;
  hooks::task_record* account = nullptr;
  const hooks::site* site = nullptr;
  ticks critical_since = 0;
  bool compensable = false;
};

reading read(const hooks::thread_state& ts) noexcept {
  reading r;
  // A worker whose polls follow each other so fast that none is the same twice is not stuck.
  for (int attempt = 0; attempt < 3; ++attempt) {
    r.start = ts.clock.last();
    // The last stamp is stored before `top` when a poll begins and after it when one ends: who saw
    // `top` and then the same stamp saw one poll. Acquire orders the loads.
    r.polling = ts.top.load(std::memory_order_acquire) != nullptr;
    r.observer = ts.watched.load(std::memory_order_relaxed);
    r.account = ts.watched_account.load(std::memory_order_relaxed);
    r.site = ts.poll_site.load(std::memory_order_relaxed);
    r.critical_since = ts.critical.load(std::memory_order_relaxed) != 0
                           ? ts.critical_since.load(std::memory_order_relaxed)
                           : 0;
    r.compensable = ts.compensable.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    const ticks again = ts.clock.last();
    if (again == r.start) break;
    r.start = again;
  }
  return r;
}

// Whether the worker is in the poll that was read.
bool still(const hooks::thread_state& ts, ticks start) noexcept {
  return ts.top.load(std::memory_order_acquire) != nullptr && ts.clock.last() == start;
}

stall_evidence between(const usage_sample& before, const usage_sample& now) noexcept {
  return {
      .before = before.usage,
      .now = now.usage,
      .wall_ns = timing::timebase::get().to_ns(stall_watch::between(before.at, now.at)).count()};
}

// False: the watchdog lost its CPU in the middle of it, and the time and the figures do not belong
// together.
bool take(thread_probe& probe, bool full, usage_sample& to) noexcept {
  const auto& base = timing::timebase::get();
  for (int attempt = 0; attempt < 3; ++attempt) {
    to.at = base.now();
    to.usage = full ? probe.full() : probe.quick();
    if (stall_watch::between(to.at, base.now()) < base.from_ns(prompt)) return true;
  }
  return false;
}

// CPU time between two samples.
ticks ran(const usage_sample& before, const usage_sample& now) noexcept {
  if (!before.usage.valid || !now.usage.valid) return 0;
  return timing::timebase::get().from_ns(
      std::chrono::nanoseconds{now.usage.cpu_ns - before.usage.cpu_ns});
}

// Of the part that is blamed: who waited for a CPU for long, and worked when it had one, spins.
stall_cause cause_of(const usage_sample& before, const usage_sample& now) noexcept {
  const stall_evidence e = between(before, now);
  const stall_cause cause = classify(e);
  const std::int64_t own = e.wall_ns - excused_ns(e);
  const std::int64_t cpu = e.now.cpu_ns - e.before.cpu_ns;
  const bool worked = e.before.valid && e.now.valid && cpu > 0 && cpu >= own - own / 3;
  return cause != stall_cause::stopped && worked ? stall_cause::spinning : cause;
}

// Of the time between two samples, what is not the thread's doing. With doubts: the watchdog's own
// late look, as the machine may have stood still for as long; and, within one poll, what a thread
// that runs was off its CPU for, where nothing tells whether it ever slept (the hypervisor takes
// the CPU, and says so nowhere).
ticks excused(const usage_sample& before, const usage_sample& now, ticks overslept,
              bool one_poll) noexcept {
  if (before.at == 0) return 0;
  const auto& base = timing::timebase::get();
  const stall_evidence e = between(before, now);
  std::int64_t ns = excused_ns(e);
  if (e.before.valid && e.now.valid) {
    const std::int64_t off =
        std::max<std::int64_t>(e.wall_ns - (e.now.cpu_ns - e.before.cpu_ns), 0);
    const std::int64_t away = base.to_ns(overslept).count();
    // Where the watchdog was away for most of the time, so was everybody, and from before it should
    // have looked again.
    const bool unknown =
        e.now.state == 'R' && ((one_poll && !e.before.have_switches) || away > e.wall_ns / 2);
    ns = std::max(ns, unknown ? off : std::min(away, off));
  }
  return base.from_ns(std::chrono::nanoseconds{ns});
}

}  // namespace

// Returns when to look again. The mutex is held.
ticks watchdog::look_at(watched_worker& w, ticks now, ticks overslept, impression& seen) noexcept {
  if (w.state == nullptr) {
    events_.push_back({.serial = w.serial, .outcome = {.ended = true}, .now = now});
    return now;
  }
  const reading r = read(*w.state);
  const watched_context* const c = find(r.observer);
  const bool polling = r.polling && c != nullptr;
  if (polling || r.start != w.seen) seen.active = true;
  w.seen = r.start;
  if (!std::exchange(w.probed, true)) w.probe = thread_probe(w.number);

  static constexpr stall_watch::limits nobody;
  const stall_watch::limits& limits = c != nullptr ? c->limits : nobody;
  poll_evidence& e = w.evidence;
  const bool same = polling && w.watch.watches(r.start);
  bool due = w.watch.due(now, polling, r.start, limits);
  ticks age = polling ? stall_watch::between(r.start, now) : 0;
  if (polling && (w.watch.stalled() || age >= limits.threshold / 2 || r.critical_since != 0)) {
    seen.suspicious = true;
  }
  stall_watch::sight s{
      .polling = polling, .start = r.start, .critical_since = polling ? r.critical_since : 0};
  stall_cause cause = stall_cause::unknown;
  if (same && !due) {
    e.overslept += overslept;
  } else {
    // The price of the whole truth is paid where it matters: for a poll that is old when it is seen
    // first, too, because a wait for the CPU that goes on shows nowhere else.
    const bool full =
        due || (polling && age >= limits.threshold / 8) || (!polling && quiet_ + 1 >= quiet_looks);
    ticks away = same ? e.overslept + overslept : overslept;
    if (same) e.overslept = away;
    usage_sample sample;
    if (!take(w.probe, full, sample)) return now + timing::timebase::get().from_ns(soon);
    if (sample.usage.state == 'R' && sample.usage.cpu == ::sched_getcpu()) in_the_way_ = true;
    // Stopped, or without a CPU, in the middle of this look.
    if (const ticks late = stall_watch::between(now, sample.at);
        late > timing::timebase::get().from_ns(prompt)) {
      away += late;
    }
    // The figures are to be of the poll that was seen. Where it has ended meanwhile, the next is
    // looked at in its turn; the last sample is still the one from before it.
    if (full && polling && !still(*w.state, r.start))
      return now + timing::timebase::get().from_ns(soon);
    // The sample's time is what its figures are of.
    now = sample.at;
    age = polling ? stall_watch::between(r.start, now) : 0;
    if (!due && w.watch.due(now, polling, r.start, limits)) {
      if (!full) return now;  // once more, and the whole truth
      due = true;
    }
    if (!polling) {
      const std::int64_t used = sample.usage.cpu_ns - e.latest.usage.cpu_ns;
      w.settled = full && (!sample.usage.valid || sample.usage.state != 'R' ||
                           used > more_than_a_poll_start_ns);
    } else if (!same) {
      e.before = e.latest;
      e.first = e.since = sample;
      e.overslept = 0;
      // Of what came before the very first sample nothing is known.
      e.head = e.before.at == 0 ? age : std::min(age, excused(e.before, sample, away, false));
      s.excused = e.head;
      s.evidence = true;
    } else {
      e.head += excused(e.first, sample, away, true);
      e.first = sample;
      e.overslept = 0;
      s.excused = e.head;
      s.evidence = true;
    }
    if (due) {
      // Long enough to say something about this poll, and else a little of what was before it.
      const bool enough = same && stall_watch::between(e.since.at, now) >= age / 8;
      const usage_sample& from = enough ? e.since : e.before;
      cause = cause_of(from, sample);
      s.culpable = cause == stall_cause::blocked
                       ? stall_watch::off
                       : ran(w.watch.stalled() ? e.since : e.before, sample);
      e.since = sample;
    }
    e.latest = sample;
  }
  s.now = now;
  stall_watch::outcome o = w.watch.look(s, limits);
  if (w.stall.to_climb && !o.ended) {
    o.escalate = true;
    o.next =
        now + std::min(stall_watch::between(now, o.next), timing::timebase::get().from_ns(soon));
  }
  if (o.ended || o.crossed || o.repeat || o.escalate || o.overstay) {
    events_.push_back(
        {.serial = w.serial,
         .core = c != nullptr ? c->core : nullptr,
         .outcome = o,
         .now = now,
         .start = r.start,
         .stayed = r.critical_since != 0 ? stall_watch::between(r.critical_since, now) : 0,
         .cause = cause,
         .account = r.account,
         .site = r.site,
         .critical = r.critical_since != 0,
         .compensable = r.compensable});
  }
  if (c != nullptr) return o.next;
  // Whose worker it will be next is not known: anybody's.
  ticks soonest = stall_watch::off / 2;
  for (const watched_context& any : contexts_) soonest = std::min(soonest, any.limits.threshold);
  return now + soonest;
}

watchdog::verdict watchdog::look(ticks now, ticks overslept, bool rung) noexcept {
  const auto& base = timing::timebase::get();
  if (overslept <= base.from_ns(punctual)) overslept = 0;
  events_.clear();
  verdict next{.for_good = false, .at = 0};
  {
    const std::lock_guard lock(mutex_);
    try {
      events_.reserve(workers_.size());
    } catch (const std::bad_alloc&) {  // there may be memory later
      return {.for_good = false, .at = now + base.from_ns(tick_of_nobody)};
    }
    if (rung) {
      arm_all(false);
      quiet_ = 0;
    }
    impression seen;
    bool settled = true;
    ticks soonest = base.from_ns(tick_of_nobody);
    for (const auto& w : workers_) {
      const ticks at = look_at(*w, now, overslept, seen);
      soonest = std::min(soonest, stall_watch::between(now, at));
      settled = settled && w->settled;
    }
    if (!seen.suspicious) soonest += std::min(soonest / 4, base.from_ns(longest_delay));
    next.at = now + soonest;
    if (seen.active || !events_.empty()) {
      quiet_ = 0;
      arm_all(false);
    } else if (++quiet_ >= quiet_looks && settled) {
      // No poll can begin now without finding the flag. A thread that compared its word before the
      // flag was set, and had not begun its poll when it was last looked at, would have to be on
      // its way between the two. It has no system call to make there: it would be runnable, and
      // have used next to no CPU time since. Who has gone to sleep, or has run on, is past that;
      // whoever is not keeps the watchdog looking.
      next.for_good = true;
    } else if (quiet_ == 1) {
      arm_all(true);
    }
  }
  for (const event& e : events_) act(e);
  compensate_all();
  // Now that there is time: what the first stall would have to wait for.
  if (next.for_good && symbolizer_ == nullptr) {
    symbolizer_.reset(new (std::nothrow) symbolizer);
  }
  return next;
}

}  // namespace asio_pulse::detail

#endif
