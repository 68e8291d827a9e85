// SPDX-License-Identifier: BSL-1.0
//
// How the watchdog acts on a stall.
#if defined(__linux__)

#include "stack_copy.hpp"
#include "watchdog_thread.hpp"

#include <asio_pulse/hooks/assert.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <utility>

namespace asio_pulse::detail {
namespace {

using timing::ticks;
using timing::to_ns;

// How long to wait for the answer to the signal. The thread handles it at once unless another
// thread has its CPU. The watchdog looks at nothing else meanwhile.
constexpr std::chrono::milliseconds patience{10};

// Returns false if another thread is deciding about the task.
bool escalate(context_core& core, const stalled_poll& what, ticks now, ticks culpable) noexcept {
  const context_core::escalation made = core.escalate(what, now, culpable);
  if (made.change.changed()) {
    const user_code_scope user;
    if (user) core.announce_escalation(what, made.change);
  }
  return made.decided;
}

/// The reason why /proc does not show where a thread is blocked.
no_stack why_hidden(int fault) noexcept {
  switch (fault) {
    case EMFILE:
    case ENFILE:
      return no_stack::no_descriptor;
    case ENOMEM:
      return no_stack::no_memory;
    case EACCES:
    case EPERM:
      return no_stack::not_permitted;
    default:
      return no_stack::unsupported;
  }
}

bool blocks(std::uint64_t signals, int signal) noexcept {
  return signal <= 64 && (signals >> (signal - 1) & 1U) != 0;
}

no_stack why_not_taken(stack_capture::result::status how) noexcept {
  using status = stack_capture::result::status;
  switch (how) {
    case status::taken:
      return no_stack::none;
    case status::ended:
    case status::refused_switching:
      return no_stack::moved_on;
    case status::timed_out:
      return no_stack::no_answer;
    case status::not_ours:
      return no_stack::handler_replaced;
    case status::filtered:
      return no_stack::filtered;
    case status::unsupported:
      break;
  }
  return no_stack::unsupported;
}

}  // namespace

/// In this scope the context is kept alive, and its destructor waits. A callback that runs inside
/// may destroy it nevertheless; watches() tells.
class watchdog::at_work {
 public:
  /// \pre The context is in the registry. The mutex must not be held when the scope ends.
  at_work([[maybe_unused]] const scoped_lock& lock, watchdog& w, context_core& core) noexcept
      : watchdog_(w), core_(core) {
    ASIO_PULSE_ASSERT(holds(lock, w.mutex_) && w.busy_ == nullptr);
    core.acquire();
    w.busy_ = &core;
  }
  ~at_work() {
    {
      const scoped_lock lock(watchdog_.mutex_);
      watchdog_.busy_ = nullptr;
    }
    watchdog_.done_.notify_all();
    // With the last reference, functions of the program are destroyed, and a hook may be called.
    const user_code_scope user;
    if (task_ != nullptr) hooks::release(*task_);
    core_.release();
  }
  at_work(const at_work&) = delete;
  at_work& operator=(const at_work&) = delete;

  /// Releases the reference to the task at the end of the scope.
  void keep(task_state* t) noexcept { task_ = t; }

 private:
  watchdog& watchdog_;
  context_core& core_;
  task_state* task_ = nullptr;
};

bool watchdog::watches(const context_core& core) noexcept {
  const scoped_lock lock(mutex_);
  return find(lock, &core) != nullptr;
}

std::size_t watchdog::stuck_in([[maybe_unused]] const scoped_lock& lock,
                               const context_core& core) noexcept {
  ASIO_PULSE_ASSERT(holds(lock, mutex_));
  return static_cast<std::size_t>(std::count_if(
      workers_.begin(), workers_.end(),
      [&core](const auto& w) { return w->stall.core == &core && w->stall.compensable; }));
}

void watchdog::act(const event& e) noexcept {
  if (e.outcome.ended) finish(e);
  if (e.outcome.crossed || e.outcome.repeat || e.outcome.escalate) begin_or_repeat(e);
  if (e.outcome.overstay) overstay(e);
}

// ---- a stall begins or continues

// The worker of the event, or null if it is no longer in the poll of the event.
watched_worker* watchdog::stalled_worker(const scoped_lock& lock, const event& e) noexcept {
  watched_worker* const w = find(lock, e.serial);
  if (w == nullptr || find(lock, e.core) == nullptr) return nullptr;
  if (!w->watch.stalled() || w->watch.start() != e.start) return nullptr;
  if (w->state == nullptr) return nullptr;  // its thread has ended; the next look reports that
  if (!e.outcome.crossed && w->stall.core == nullptr) return nullptr;
  return w;
}

// Called without the mutex. The worker is pinned, so that its thread does not end meanwhile.
void watchdog::examine(const event& e, watched_worker& w, int signal, examination& to) noexcept {
  ASIO_PULSE_ASSERT(w.pinned && w.state != nullptr);
  hooks::thread_state& ts = *w.state;
  const bool first = e.outcome.crossed;
  if (first) {
    ts.stall_end.store(0, std::memory_order_relaxed);
    // From here on the end is reported by the thread that clears this; see thread_state::stall.
    ts.stall.store(e.start, std::memory_order_release);
  }
  // Before the signal, which would interrupt the call.
  if (e.cause == stall_cause::blocked) to.call = w.probe.system_call(to.call_text);
  if (first || e.outcome.repeat) take_stack(e, w, signal, to);
  to.over = to.shot.how == stack_capture::result::status::ended;
  if (to.over && first) {
    // The poll ended before its stack was taken. If it has seen the mark, it is reported here.
    ticks start = e.start;
    to.over = ts.stall.compare_exchange_strong(start, 0, std::memory_order_acq_rel);
  }
  if (!first || to.over) return;
  const context_core& core = *e.core;
  const options& opts = core.opts();
  to.task = to.taken() ? static_cast<task_state*>(std::exchange(to.shot.task, nullptr))
                       : e.core->tasks().find(e.account);
  if (e.compensable && !e.critical && opts.spare_workers != 0 && !core.one_thread() &&
      !core.shadow()) {
    to.demoted = demote(w.number, opts.isolation_priority, opts.isolation_nice);
  }
}

void watchdog::take_stack(const event& e, watched_worker& w, int signal, examination& to) noexcept {
  using status = stack_capture::result::status;
  if (signal < 0) {
    to.why_no_stack = no_stack::switched_off;
    return;
  }
  if (capture_ == nullptr) capture_.reset(new (std::nothrow) stack_capture);
  if (capture_ == nullptr) {
    to.why_no_stack = no_stack::no_memory;
    return;
  }
  const std::size_t bytes = e.core->opts().stack_bytes;
  // The program may have installed a filter since the last look. If that cannot be found out now,
  // the last answer is used.
  filters_ = read_own_seccomp_filters().value_or(filters_);
  const bool filtered = filters_ != 0 || e.filters != 0;
  choose_memory_reader(filtered);
  const auto read_at = [&](const thread_probe::position& place) {
    const bool read = capture_->read_blocked(place.stack_pointer, place.program_counter, bytes);
    // The stack belongs to this poll only if the poll still runs afterwards.
    to.read = read && w.state->clock.last() == e.start && w.probe.where() == place;
    to.why_no_stack = to.read ? no_stack::none : read ? no_stack::moved_on : no_stack::unreadable;
  };
  const thread_probe::position place = w.probe.where();
  if (place.blocked) {
    read_at(place);
  } else if (!place.known && e.cause != stall_cause::spinning) {
    to.why_no_stack = why_hidden(place.fault);
  } else if (signal == 0) {
    to.why_no_stack = no_stack::unsupported;
  } else if (blocks(e.blocked_signals, signal)) {
    to.why_no_stack = no_stack::signal_blocked;
  } else if (w.small_stack) {
    to.why_no_stack = no_stack::small_stack;
  } else if (filtered && (e.filters != filters_ || !capture_->rehearse(signal, filters_))) {
    to.why_no_stack = no_stack::filtered;
  } else {
    to.shot = capture_->take(w.number, signal, *w.state, e.start, patience, bytes, filtered);
    to.why_no_stack = why_not_taken(to.shot.how);
    if (to.shot.how != status::timed_out) return;
    // It got no CPU, or was blocked before the signal came. The stack of a blocked thread can be
    // read.
    if (const thread_probe::position stands = w.probe.where(); stands.blocked) read_at(stands);
  }
}

// Creates the worker's record of the stall, or updates it.
const open_stall& watchdog::note(const scoped_lock& lock, const event& e, watched_worker& w,
                                 const examination& seen) noexcept {
  ASIO_PULSE_ASSERT(holds(lock, mutex_));
  open_stall& stall = w.stall;
  if (e.outcome.crossed) {
    ASIO_PULSE_ASSERT(stall.core == nullptr);
    if (seen.task != nullptr) hooks::acquire(*seen.task);  // the reference of the record
    e.core->acquire();
    stall = {.core = e.core,
             .what = {.task = seen.task,
                      .site = seen.taken() && seen.shot.site != nullptr ? seen.shot.site : e.site,
                      .where = seen.shot.where,
                      .thread_number = static_cast<std::uint64_t>(w.number),
                      .thread = w.id},
             .start = e.start,
             .compensable = e.compensable,
             .demoted = seen.demoted};
  }
  stall.what.lasted = to_ns(stall_watch::between(e.start, e.now));
  stall.what.blamed = to_ns(e.outcome.blamed);
  stall.what.cause = e.cause;
  stall.what.fault = e.fault;
  stall.what.why_no_stack = seen.why_no_stack;
  stall.what.critical = e.critical;
  stall.excused = stall_watch::between(e.start, e.now) - e.outcome.blamed;
  stall.culpable = e.outcome.culpable;
  return stall;
}

void watchdog::begin_or_repeat(const event& e) noexcept {
  scoped_lock lock(mutex_);
  watched_worker* const w = stalled_worker(lock, e);
  if (w == nullptr) return;
  const int signal = find(lock, e.core)->signal;
  context_core& core = *e.core;
  at_work work(lock, *this, core);
  w->pinned = w->kept = true;
  lock.unlock();

  examination seen;
  examine(e, *w, signal, seen);

  lock.lock();
  w->pinned = false;
  done_.notify_all();
  if (seen.over) {
    if (e.outcome.crossed) w->watch.dismiss();
    lock.unlock();
    return;
  }
  const open_stall& stall = note(lock, e, *w, seen);
  const stalled_poll what = stall.what;
  const bool shown = stall.shown;
  const std::size_t stuck = stuck_in(lock, core);
  if (!e.outcome.crossed && what.task != nullptr) hooks::acquire(*what.task);
  lock.unlock();
  work.keep(what.task);
  if (seen.shot.task != nullptr) {
    const user_code_scope user;  // as at the end of at_work
    hooks::release(*seen.shot.task);
  }

  // The worker may no longer exist.
  if (e.outcome.crossed) announce(core, what, stuck);
  if (e.outcome.escalate && watches(core)) climb(e, what);
  if ((e.outcome.crossed || e.outcome.repeat) && watches(core)) report(e, what, shown, seen);
}

void watchdog::announce(context_core& core, const stalled_poll& what, std::size_t stuck) noexcept {
  core.stalled(what);
  {
    const user_code_scope user;
    if (user) core.announce_stall(what);
  }
  if (stuck != 0 && core.opts().spare_workers != 0 && watches(core)) core.port()->compensate(stuck);
}

void watchdog::climb(const event& e, const stalled_poll& what) noexcept {
  const bool climbed = escalate(*e.core, what, e.now, e.outcome.culpable);
  const scoped_lock lock(mutex_);
  if (open_stall* const stall = same_stall(lock, e)) stall->to_climb = !climbed;
}

void watchdog::report(const event& e, stalled_poll what, bool shown,
                      const examination& seen) noexcept {
  context_core& core = *e.core;
  const report_limiter::verdict admitted =
      core.silences(report_kind::stall) ? report_limiter::verdict{} : core.admit_stall(what, shown);
  // What readers of the metrics see does not depend on the limits of reports.
  const bool observed = e.outcome.crossed && core.observed();
  if (!admitted.send && !observed) return;
  stack_trace trace;
  if (seen.taken() || seen.read) {
    if (symbolizer_ == nullptr) symbolizer_.reset(new (std::nothrow) symbolizer);
    if (symbolizer_ != nullptr) trace = symbolizer_->trace(capture_->stack());
    if (trace.empty()) {
      what.why_no_stack = symbolizer_ != nullptr ? no_stack::unreadable : no_stack::no_memory;
    }
  }
  core.describe_stall(what, seen.call, trace);
  if (!admitted.send) return;
  {
    const scoped_lock lock(mutex_);
    if (open_stall* const stall = same_stall(lock, e)) stall->shown = true;
  }
  const user_code_scope user;
  if (user) core.report_stall(report_kind::stall, what, admitted.suppressed, seen.call, trace);
}

// The record of the event's stall, if it has not ended.
open_stall* watchdog::same_stall(const scoped_lock& lock, const event& e) noexcept {
  watched_worker* const w = find(lock, e.serial);
  const bool same = w != nullptr && w->stall.core == e.core && w->stall.start == e.start;
  return same ? &w->stall : nullptr;
}

// ---- it is over

void watchdog::finish(const event& e) noexcept {
  scoped_lock lock(mutex_);
  watched_worker* const w = find(lock, e.serial);
  if (w == nullptr) return;
  open_stall stall = std::exchange(w->stall, {});
  ticks end = w->end;
  if (w->state == nullptr) {
    std::erase_if(workers_, [w](const auto& other) { return other.get() == w; });
  } else if (stall.core != nullptr) {
    ticks start = stall.start;
    end = w->seen;  // it ended before this, if it did not announce its end
    if (!w->state->stall.compare_exchange_strong(start, 0, std::memory_order_acquire)) {
      end = w->state->stall_end.load(std::memory_order_relaxed);
    }
    if (stall.demoted.changed) restore(w->number, stall.demoted);
  }
  if (stall.core == nullptr) return;
  context_core& core = *stall.core;
  at_work work(lock, *this, core);
  const std::size_t stuck = stuck_in(lock, core);
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
    // A poll that used no CPU time is not judged at its end, so the limits that it has crossed
    // since the last look are handled here.
    for (int tries = 0; tries < 100 && !escalate(core, stall.what, end, blamed); ++tries) {
      std::this_thread::yield();
    }
  }
  if (!stall.shown && !core.live().silenced().contains(report_kind::stall)) {
    core.hold_back_stall(stall.what);
  } else if (watches(core) && !core.silences(report_kind::stall_ended)) {
    const report_limiter::verdict admitted = core.admit_stall(stall.what, stall.shown);
    if (admitted.send) {
      const user_code_scope user;
      if (user) {
        core.report_stall(report_kind::stall_ended, stall.what, admitted.suppressed, {}, {});
      }
    } else if (!stall.shown) {
      core.hold_back_stall(stall.what);
    }
  }
  stall.core->release();  // the record's reference; `work` holds another one
}

void watchdog::overstay(const event& e) noexcept {
  scoped_lock lock(mutex_);
  const watched_worker* const w = find(lock, e.serial);
  if (w == nullptr || find(lock, e.core) == nullptr) return;
  stalled_poll what;
  what.thread_number = static_cast<std::uint64_t>(w->number);
  what.thread = w->id;
  what.site = e.site;
  if (w->stall.core == e.core) what = w->stall.what;
  at_work work(lock, *this, *e.core);
  if (what.task != nullptr) hooks::acquire(*what.task);
  lock.unlock();
  if (what.task == nullptr) what.task = e.core->tasks().find(e.account);
  work.keep(what.task);
  const user_code_scope user;
  if (user) e.core->report_overstay(what, to_ns(e.stayed));
}

void watchdog::compensate_all() noexcept {
  for (std::size_t n = 0;; ++n) {
    scoped_lock lock(mutex_);
    if (n >= contexts_.size()) return;
    context_core& core = *contexts_[n].core;
    if (core.opts().spare_workers == 0) continue;
    const std::size_t stuck = stuck_in(lock, core);
    if (stuck == 0) continue;
    const at_work work(lock, *this, core);
    lock.unlock();
    core.port()->compensate(stuck);
  }
}

}  // namespace asio_pulse::detail

#endif
