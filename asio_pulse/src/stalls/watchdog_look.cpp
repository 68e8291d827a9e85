// SPDX-License-Identifier: BSL-1.0
//
// How the watchdog looks at the workers: what each of them is doing, and since when.
#if defined(__linux__)

#include "stall_evidence.hpp"
#include "watchdog_thread.hpp"

#include <sched.h>

#include <algorithm>
#include <new>
#include <utility>

namespace asio_pulse::detail {
namespace {

using timing::ticks;

// How many looks in a row must find all workers idle before the watchdog sleeps. With the first one
// the flag is set. The other two find a worker that was about to begin a poll, and avoid that a
// server with short pauses has to wake the watchdog again and again.
constexpr int quiet_looks = 3;
// More CPU time than a thread needs from the comparison of its arbiter's word to its poll.
constexpr std::int64_t more_than_a_poll_start_ns = 50'000;
// Timers are usually late by less than this, so only more counts as overslept.
constexpr std::chrono::microseconds punctual{300};
// How many times a poll whose cause is not known is looked at again before it is reported anyway:
// for as long as the threshold, in eighths of it. A guess: a thread that shares its CPU with a few
// others runs within that time.
constexpr int most_doubts = 8;
// By then another thread that decides about a task has finished.
constexpr std::chrono::microseconds soon{500};
// If a sample took longer, the watchdog was interrupted. A sample takes some microseconds, and five
// times as many on a busy machine.
constexpr std::chrono::microseconds prompt{200};
// Each look costs a wake-up, and most polls have ended by then. So if no poll is old yet, the next
// look is delayed by a quarter of the threshold, but at most by this. A stall is reported late by
// at most this.
constexpr std::chrono::milliseconds longest_delay{1};
// The interval of looks if there is no context.
constexpr std::chrono::milliseconds tick_of_nobody{10};

/// A consistent reading of a worker, of one poll.
struct reading {
  bool polling = false;
  ticks start = 0;
  hooks::path_arbiter* arbiter = nullptr;
  hooks::task_record* account = nullptr;
  const hooks::site* site = nullptr;
  ticks critical_since = 0;
  bool compensable = false;
};

reading read(const hooks::thread_state& ts) noexcept {
  reading r;
  // If the polls follow each other so fast that each attempt finds another one, the worker is not
  // stuck.
  for (int attempt = 0; attempt < 3; ++attempt) {
    r.start = ts.clock.last();
    // The stamp is stored before `top` when a poll begins, and after it when a poll ends. So if the
    // stamp is the same before and after the load of `top`, all belong to one poll. Acquire orders
    // the loads.
    r.polling = ts.top.load(std::memory_order_acquire) != nullptr;
    r.arbiter = ts.watched.load(std::memory_order_relaxed);
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

// Whether the worker is still in the poll that was read.
bool still(const hooks::thread_state& ts, ticks start) noexcept {
  return ts.top.load(std::memory_order_acquire) != nullptr && ts.clock.last() == start;
}

stall_evidence between(const usage_sample& before, const usage_sample& now) noexcept {
  return {
      .before = before.usage,
      .now = now.usage,
      .wall_ns = timing::timebase::get().to_ns(stall_watch::between(before.at, now.at)).count()};
}

// Takes a sample. Returns false if the watchdog lost its CPU meanwhile, so that the time and the
// figures do not belong together.
bool take(thread_probe& probe, bool full, usage_sample& to) noexcept {
  const auto& base = timing::timebase::get();
  for (int attempt = 0; attempt < 3; ++attempt) {
    to.at = base.now();
    to.usage = full ? probe.full() : probe.quick();
    if (stall_watch::between(to.at, base.now()) < base.from_ns(prompt)) return true;
  }
  return false;
}

// Whether the worker sleeps, or has run since the last look, so that it cannot be between the
// comparison of its arbiter's word and its poll.
bool rests(watched_worker& w) noexcept {
  const thread_usage now = w.probe.state();
  const std::int64_t used = now.cpu_ns - w.evidence.latest.usage.cpu_ns;
  return !now.valid || now.state != 'R' || used > more_than_a_poll_start_ns;
}

// The CPU time between two samples.
ticks ran(const usage_sample& before, const usage_sample& now) noexcept {
  if (!before.usage.valid || !now.usage.valid) return 0;
  return timing::timebase::get().from_ns(
      std::chrono::nanoseconds{now.usage.cpu_ns - before.usage.cpu_ns});
}

// What the thread itself did between two full samples; unknown if it had no CPU time.
stall_cause doing(const usage_sample& before, const usage_sample& now) noexcept {
  const stall_evidence e = between(before, now);
  const std::int64_t own = e.wall_ns - excused_ns(e);
  return own > 0 ? classify(own, e.now.cpu_ns - e.before.cpu_ns, e) : stall_cause::unknown;
}

// The part of the time between two samples that is excused. In doubt, two more are excused: the
// time by which the watchdog's own look was late, because the machine may have been stopped for as
// long; and, within one poll, the time in which a running thread had no CPU, if it is not known
// whether it slept (a hypervisor may have taken the CPU, which shows nowhere).
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
    // If the watchdog was late by most of the time, all threads were stopped, and since before the
    // look was due.
    const bool unknown =
        e.now.state == 'R' && ((one_poll && !e.before.have_switches) || away > e.wall_ns / 2);
    ns = std::max(ns, unknown ? off : std::min(away, off));
  }
  return base.from_ns(std::chrono::nanoseconds{ns});
}

}  // namespace

// Looks at a worker, and returns when to look again.
ticks watchdog::look_at(const scoped_lock& lock, watched_worker& w, ticks now, ticks overslept,
                        impression& seen) noexcept {
  if (w.state == nullptr) {
    events_.push_back({.serial = w.serial, .outcome = {.ended = true}, .now = now});
    return now;
  }
  const reading r = read(*w.state);
  const watched_context* const c = find(lock, r.arbiter);
  const bool polling = r.polling && c != nullptr;
  if (polling || r.start != w.seen) seen.active = true;
  w.seen = r.start;

  static constexpr stall_watch::limits no_limits;
  const stall_watch::limits& limits = c != nullptr ? c->limits : no_limits;
  poll_evidence& e = w.evidence;
  const bool doubted = polling && e.doubted == r.start;
  const bool same = doubted || (polling && w.watch.watches(r.start));
  bool due = w.watch.due(now, polling, r.start, limits);
  ticks age = polling ? stall_watch::between(r.start, now) : 0;
  if (polling && (w.watch.stalled() || age >= limits.threshold / 2 || r.critical_since != 0)) {
    seen.suspicious = true;
  }
  stall_watch::sight s{
      .polling = polling, .start = r.start, .critical_since = polling ? r.critical_since : 0};
  stall_cause cause = stall_cause::unknown;
  int fault = 0;
  std::uint64_t blocked_signals = 0;
  int filters = 0;
  if (same && !due) {
    e.overslept += overslept;
  } else {
    // A full sample is expensive, and taken only if it matters. It also is for a poll that is
    // already old when it is first seen, because only a full sample shows a wait for the CPU that
    // goes on.
    const bool full = due || (polling && age >= limits.threshold / 8);
    ticks away = same ? e.overslept + overslept : overslept;
    if (same) e.overslept = away;
    usage_sample sample;
    if (!take(w.probe, full, sample)) return now + timing::timebase::get().from_ns(soon);
    if (sample.usage.state == 'R' && sample.usage.cpu == ::sched_getcpu()) in_the_way_ = true;
    // The watchdog was stopped, or had no CPU, during this look.
    if (const ticks late = stall_watch::between(now, sample.at);
        late > timing::timebase::get().from_ns(prompt)) {
      away += late;
    }
    // The figures must belong to the poll that was seen. If it has ended meanwhile, the next poll
    // is looked at later; the last sample is still the one from before it.
    if (full && polling && !still(*w.state, r.start))
      return now + timing::timebase::get().from_ns(soon);
    // The figures are those at the time of the sample.
    now = sample.at;
    age = polling ? stall_watch::between(r.start, now) : 0;
    if (!due && w.watch.due(now, polling, r.start, limits)) {
      if (!full) return now;  // look again at once, with a full sample
      due = true;
    }
    if (!polling) {
      // This is needed only once after the flag was set.
      if (armed_ && !w.at_rest && quiet_ + 1 >= quiet_looks) w.at_rest = rests(w);
    } else if (!same) {
      e.before = e.latest;
      e.first = e.since = sample;
      e.overslept = 0;
      // Nothing is known about the time before the first sample.
      e.head = e.before.at == 0 ? age : std::min(age, excused(e.before, sample, away, false));
      e.told = 0;
      e.worked = std::min(age - e.head, ran(e.before, sample));
      s.excused = e.head;
      s.evidence = true;
    } else {
      const ticks more = excused(e.first, sample, away, true);
      const ticks passed = stall_watch::between(e.first.at, now);
      e.worked += std::min(passed - std::min(passed, more), ran(e.first, sample));
      e.head += more;
      e.first = sample;
      e.overslept = 0;
      s.excused = e.head;
      s.evidence = true;
    }
    if (due) {
      // Use the interval within this poll if it is long enough, otherwise a longer one that begins
      // before it.
      const bool enough = same && stall_watch::between(e.since.at, now) >= age / 8;
      const ticks own = age - std::min(age, e.head);
      cause =
          classify(timing::to_ns(own - std::min(own, e.told)).count(),
                   timing::to_ns(e.worked).count(), between(enough ? e.since : e.before, sample));
      fault = sample.usage.fault;
      blocked_signals = sample.usage.blocked_signals;
      filters = sample.usage.filters;
      if (cause == stall_cause::unknown && doubted) cause = doing(e.since, sample);
      if (cause == stall_cause::unknown && fault == 0 && !w.watch.stalled() &&
          own >= limits.threshold && (!doubted || e.doubts != most_doubts)) {
        // The poll was old when it was first seen, and too little is known about the time before.
        // What it does from now on will show the cause.
        if (!doubted) {
          e.doubted = r.start;
          e.doubts = 0;
          e.since = sample;
        }
        ++e.doubts;
        e.latest = sample;
        return now + std::max(limits.threshold / 8, timing::timebase::get().from_ns(soon));
      }
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
  if (o.crossed || o.repeat) {
    e.told = o.blamed;
    e.worked = 0;
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
         .fault = fault,
         .blocked_signals = blocked_signals,
         .filters = filters,
         .account = r.account,
         .site = r.site,
         .critical = r.critical_since != 0,
         .compensable = r.compensable});
  }
  if (c != nullptr) return o.next;
  // It is not known which context the worker will work for next, so the least threshold counts.
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
    const scoped_lock lock(mutex_);
    try {
      events_.reserve(workers_.size());
    } catch (const std::bad_alloc&) {  // try again later
      return {.for_good = false, .at = now + base.from_ns(tick_of_nobody)};
    }
    if (rung) {
      arm_all(lock, false);
      quiet_ = 0;
    }
    if (first_.syscall >= 0) files_.keep_open(first_.number, std::exchange(first_.syscall, -1));
    if (std::exchange(first_.gone, false)) {
      files_.let_go();
      first_.number = 0;
    }
    files_.close_unless([this](pid_t tid) {
      return std::any_of(workers_.begin(), workers_.end(),
                         [tid](const auto& w) { return w->number == tid; });
    });
    impression seen;
    bool at_rest = true;
    ticks soonest = base.from_ns(tick_of_nobody);
    for (const auto& w : workers_) {
      const ticks at = look_at(lock, *w, now, overslept, seen);
      soonest = std::min(soonest, stall_watch::between(now, at));
      at_rest = at_rest && w->at_rest;
    }
    for (const auto& w : workers_) w->kept = files_.any_of(w->number);
    if (!seen.suspicious) soonest += std::min(soonest / 4, base.from_ns(longest_delay));
    next.at = now + soonest;
    if (seen.active || !events_.empty()) {
      quiet_ = 0;
      arm_all(lock, false);
    } else if (++quiet_ >= quiet_looks && at_rest) {
      // From now on no poll can begin without seeing the flag. A thread that has compared its word
      // before the flag was set, and had not begun its poll at the last look, would still have to
      // be between the two. It makes no system call there, so it would be runnable and have used
      // almost no CPU time since. A thread that sleeps, or has used CPU time, is past that point;
      // as long as there is another one, the watchdog continues to look.
      next.for_good = true;
    } else if (quiet_ == 1) {
      arm_all(lock, true);
    }
  }
  for (const event& e : events_) act(e);
  compensate_all();
  return next;
}

}  // namespace asio_pulse::detail

#endif
