// SPDX-License-Identifier: BSL-1.0
//
// What the watchdog does about a stall.
#if defined(__linux__)

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "instruments.hpp"
#include "watchdog_thread.hpp"

namespace asio_pulse::detail {
namespace {

using timing::ticks;

// For the answer to the signal: the thread runs, or is woken, at once, unless somebody else has its
// CPU. Nobody's stall is looked at meanwhile.
constexpr std::chrono::milliseconds patience{10};

std::chrono::nanoseconds to_ns(ticks t) noexcept { return timing::timebase::get().to_ns(t); }

}  // namespace

/// A context is kept alive, and its destructor waiting, in this scope. The context may have been
/// destroyed by what ran inside nevertheless: ask watches().
class watchdog::at_work {
 public:
  /// The mutex is held; the context is in the registry. It must not be held at the end.
  at_work(watchdog& w, context_core& core) noexcept : watchdog_(w), core_(core) {
    core.acquire();
    w.busy_ = &core;
  }
  ~at_work() {
    {
      const std::lock_guard lock(watchdog_.mutex_);
      watchdog_.busy_ = nullptr;
    }
    watchdog_.done_.notify_all();
    // The last reference ends what the user gave the context.
    const user_code_scope user;
    if (task_ != nullptr) hooks::release(*task_);
    core_.release();
  }
  at_work(const at_work&) = delete;
  at_work& operator=(const at_work&) = delete;

  /// Gives the reference back in the end.
  void keep(task_state* t) noexcept { task_ = t; }

 private:
  watchdog& watchdog_;
  context_core& core_;
  task_state* task_ = nullptr;
};

bool watchdog::watches(const context_core& core) noexcept {
  const std::lock_guard lock(mutex_);
  return find(&core) != nullptr;
}

// The mutex is held.
std::size_t watchdog::stuck_in(const context_core& core) noexcept {
  return static_cast<std::size_t>(std::count_if(
      workers_.begin(), workers_.end(),
      [&core](const auto& w) { return w->stall.core == &core && w->stall.compensable; }));
}

void watchdog::act(const event& e) noexcept {
  if (e.outcome.ended) finish(e);
  if (e.outcome.crossed || e.outcome.repeat || e.outcome.escalate) begin_or_repeat(e);
  if (e.outcome.overstay) overstay(e);
}

void watchdog::begin_or_repeat(const event& e) noexcept {
  std::unique_lock lock(mutex_);
  watched_worker* w = find(e.serial);
  const watched_context* const c = find(e.core);
  if (w == nullptr || c == nullptr || !w->watch.stalled() || w->watch.start() != e.start) return;
  context_core& core = *e.core;
  const options& opts = core.opts();
  const int signal = c->signal;
  hooks::thread_state& ts = *w->state;
  const bool first = e.outcome.crossed;
  if (!first && w->stall.core == nullptr) return;
  at_work work(*this, core);
  w->pinned = true;
  lock.unlock();

  // ---- what it is
  if (first) {
    ts.stall_end.store(0, std::memory_order_relaxed);
    // From here on its end is told of by whoever takes this back; see thread_state::stall.
    ts.stall.store(e.start, std::memory_order_release);
  }
  // Before the signal, which interrupts what it waits in.
  std::array<char, 64> call_text{};
  std::string_view call;
  if (e.cause == stall_cause::blocked) call = w->probe.system_call(call_text);
  stack_capture::result shot;
  bool read = false;
  if (signal > 0 && (first || e.outcome.repeat)) {
    if (capture_ == nullptr) capture_.reset(new (std::nothrow) stack_capture);
    const thread_probe::position place = w->probe.where();
    if (capture_ != nullptr && place.blocked) {
      // Of this poll only if it is still there afterwards.
      read = capture_->read_blocked(place.stack_pointer, place.program_counter, opts.stack_bytes) &&
             ts.clock.last() == e.start && w->probe.where() == place;
    } else if (capture_ != nullptr && (place.known || e.cause == stall_cause::spinning)) {
      shot = capture_->take(w->number, signal, ts, e.start, patience, opts.stack_bytes);
    }
  }
  const bool taken = shot.how == stack_capture::result::status::taken;
  bool over = shot.how == stack_capture::result::status::ended;
  if (over && first) {
    // The poll ended before it was asked. If it has seen the mark, it relies on being reported
    // here.
    ticks start = e.start;
    over = ts.stall.compare_exchange_strong(start, 0, std::memory_order_acq_rel);
  }
  context_core::stall what;
  task_state* task = nullptr;
  if (first && !over) {
    task = taken ? static_cast<task_state*>(shot.task) : core.find_task(e.account);
  }
  scheduling demoted{};
  if (first && !over && e.compensable && !e.critical && opts.spare_workers != 0 &&
      !core.one_thread() && !opts.shadow) {
    demoted = demote(w->number, opts.isolation_priority, opts.isolation_nice);
  }

  lock.lock();
  w->pinned = false;
  done_.notify_all();
  if (over) {
    if (first) w->watch.dismiss();
    lock.unlock();
    return;
  }
  open_stall& stall = w->stall;
  if (first) {
    if (task != nullptr) hooks::acquire(*task);  // the record's, and this scope's
    core.acquire();
    stall = {.core = &core,
             .what = {.task = task,
                      .site = taken && shot.site != nullptr ? shot.site : e.site,
                      .where = shot.where,
                      .thread_number = static_cast<std::uint64_t>(w->number),
                      .thread = w->id},
             .start = e.start,
             .compensable = e.compensable,
             .demoted = demoted};
  } else {
    task = stall.what.task;
    if (task != nullptr) hooks::acquire(*task);
  }
  stall.what.lasted = to_ns(stall_watch::between(e.start, e.now));
  stall.what.blamed = to_ns(e.outcome.blamed);
  stall.what.cause = e.cause;
  stall.what.critical = e.critical;
  stall.excused = stall_watch::between(e.start, e.now) - e.outcome.blamed;
  stall.culpable = e.outcome.culpable;
  what = stall.what;
  const bool shown = stall.shown;
  const std::size_t stuck = stuck_in(core);
  lock.unlock();
  work.keep(task);
  if (!first && shot.task != nullptr) hooks::release(*shot.task);

  // ---- what follows; the worker may be gone by now
  if (first) core.stalled(what);
  if (first && stuck != 0 && opts.spare_workers != 0 && watches(core)) {
    core.port()->compensate(stuck);
  }
  if (e.outcome.escalate && watches(core)) {
    const bool climbed = core.escalate(what, e.now, e.outcome.culpable);
    lock.lock();
    w = find(e.serial);
    if (w != nullptr && w->stall.core == &core && w->stall.start == e.start) {
      w->stall.to_climb = !climbed;
    }
    lock.unlock();
  }
  if (!(first || e.outcome.repeat) || !watches(core)) return;
  const report_limiter::verdict admitted = core.admit_stall(what, shown);
  // Somebody looks: what he is shown does not depend on the reports' limits.
  const bool looked_at = first && core.tools().collecting();
  if (!admitted.send && !looked_at) return;
  stack_trace trace;
  if (taken || read) {
    if (symbolizer_ == nullptr) symbolizer_.reset(new (std::nothrow) symbolizer);
    if (symbolizer_ != nullptr) trace = symbolizer_->trace(capture_->stack());
  }
  core.describe_stall(what, call, trace);
  if (!admitted.send) return;
  lock.lock();
  w = find(e.serial);
  if (w != nullptr && w->stall.core == &core && w->stall.start == e.start) w->stall.shown = true;
  lock.unlock();
  core.tell_stall(report_kind::stall, what, admitted.suppressed, call, trace);
}

void watchdog::finish(const event& e) noexcept {
  std::unique_lock lock(mutex_);
  watched_worker* const w = find(e.serial);
  if (w == nullptr) return;
  open_stall stall = std::exchange(w->stall, {});
  ticks end = w->end;
  if (w->state == nullptr) {
    std::erase_if(workers_, [w](const auto& other) { return other.get() == w; });
  } else if (stall.core != nullptr) {
    ticks start = stall.start;
    end = w->seen;  // at least what came after, should its end not have told
    if (!w->state->stall.compare_exchange_strong(start, 0, std::memory_order_acquire)) {
      end = w->state->stall_end.load(std::memory_order_relaxed);
    }
    if (stall.demoted.changed) restore(w->number, stall.demoted);
  }
  if (stall.core == nullptr) return;
  context_core& core = *stall.core;
  at_work work(*this, core);
  const std::size_t stuck = stuck_in(core);
  lock.unlock();

  work.keep(stall.what.task);
  const ticks age =
      std::min(stall_watch::between(stall.start, end), stall_watch::between(stall.start, e.now));
  const ticks blamed = age - std::min(age, stall.excused);
  stall.what.lasted = to_ns(age);
  stall.what.blamed = to_ns(blamed);
  core.stall_over(stall.what);
  if (core.opts().spare_workers != 0 && stall.compensable) core.port()->relieved(stuck);
  if (stall.what.cause == stall_cause::blocked) {
    // A poll that used no CPU time is not judged at its end: what it passed since the last look.
    for (int tries = 0; tries < 100 && !core.escalate(stall.what, end, blamed); ++tries) {
      std::this_thread::yield();
    }
  }
  if (!stall.shown) {
    core.hold_back_stall(stall.what);
  } else if (watches(core)) {
    const report_limiter::verdict admitted = core.admit_stall(stall.what, true);
    if (admitted.send) {
      core.tell_stall(report_kind::stall_ended, stall.what, admitted.suppressed, {}, {});
    }
  }
  stall.core->release();  // the record's; another is held by `work`
}

void watchdog::overstay(const event& e) noexcept {
  std::unique_lock lock(mutex_);
  const watched_worker* const w = find(e.serial);
  if (w == nullptr || find(e.core) == nullptr) return;
  context_core::stall what;
  what.thread_number = static_cast<std::uint64_t>(w->number);
  what.thread = w->id;
  what.site = e.site;
  if (w->stall.core == e.core) what = w->stall.what;
  at_work work(*this, *e.core);
  if (what.task != nullptr) hooks::acquire(*what.task);
  lock.unlock();
  if (what.task == nullptr) what.task = e.core->find_task(e.account);
  work.keep(what.task);
  e.core->tell_overstay(what, to_ns(e.stayed));
}

void watchdog::compensate_all() noexcept {
  for (std::size_t n = 0;; ++n) {
    std::unique_lock lock(mutex_);
    if (n >= contexts_.size()) return;
    context_core& core = *contexts_[n].core;
    if (core.opts().spare_workers == 0) continue;
    const std::size_t stuck = stuck_in(core);
    if (stuck == 0) continue;
    const at_work work(*this, core);
    lock.unlock();
    core.port()->compensate(stuck);
  }
}

}  // namespace asio_pulse::detail

#endif
