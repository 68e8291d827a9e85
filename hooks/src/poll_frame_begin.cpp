// SPDX-License-Identifier: BSL-1.0
//
// How a poll begins if it is not on the fast path: in which mode, and for which task.
#include "arbiters.hpp"
#include "thread_account.hpp"

#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/sockets.hpp>

#include <utility>

namespace asio_pulse::hooks {

void poll_frame::begin_slow(void* owner, const site& what) noexcept {
  thread_state& ts = this_thread();
  task_ = tracked_operation::task_in(word_);
  if ((word_ & tracked_operation::inside) != 0) {
    mode_ = mode::unobserved;
    return;
  }
  if ((task_ == nullptr || what.drains) && ts.wrapped && ts.arbiter == nullptr &&
      owner == ts.plain_owner) {
    // In a context that is switched off. The drain's own work belongs to no task, as elsewhere (see
    // begin_measured()).
    if (task_ != nullptr) release(*task_);
    mode_ = mode::taskless;
    renamed().before = ts.current;
    ts.current = nullptr;
    return;
  }
  accrued_ = 0;
  inner_polls_ = 0;
  poll_frame* const outer = ts.top.load(std::memory_order_relaxed);
  const bool plain = (word_ & tracked_operation::flag_bits) == 0;
  if (plain && outer != nullptr && outer->mode_ == mode::drain && task_ == ts.account &&
      owner != nullptr && owner != &no_scheduler) {
    // A handler of a strand. The drain takes only a few instructions, so the handler's time starts
    // where that of the drain started.
    mode_ = mode::drained;
    nested() = {.outer = outer, .outer_site = ts.poll_site.load(std::memory_order_relaxed)};
    ++ts.cached_refs;
    ++outer->inner_polls_;
    start(ts, what, task_);
    return;
  }
  if (plain && outer == nullptr && owner == ts.owner && !what.drains) {
    const std::uint32_t state = ts.state->load(std::memory_order_relaxed);
    std::uint8_t charging = 0;
    if (state == ts.token && ts.clock.undisturbed() &&
        (task_ == nullptr || (task_->home == ts.arbiter &&
                              ((charging = task_->charging.load(std::memory_order_relaxed)) &
                               charging_mode::shared) == 0))) {
      // As the fast path, but another task was polled before, so the account changes.
      mode_ = mode::outermost;
      close_current_account(ts);
      ts.account = task_;
      ts.charging = charging | static_cast<std::uint8_t>(state & path_state::several_workers);
      watch_account(ts);
      start(ts, what, task_);
      return;
    }
  }
  if (plain && task_ != nullptr && ts.label != thread_state::label_closed && owner != nullptr) {
    // As the short path of a context that is switched off, but the account changes.
    close_current_account(ts);
    ts.account = task_;
    name(ts, task_);
    return;
  }
  if (owner == nullptr) {
    mode_ = mode::destroyed;
    labelled() = {.before = {}, .held = task_};
    return;
  }
  if (owner != &no_scheduler) {
    const bool ours = ts.arbiter != nullptr &&
                      (owner == ts.owner ? (ts.wrapped || recognise(ts, owner))
                                         : ts.top.load(std::memory_order_relaxed) != nullptr);
    if (ours || recognise(ts, owner)) {
      return begin_measured(ts, owner, what, outer, ts.poll_site.load(std::memory_order_relaxed));
    }
  }
  mode_ = mode::labelled;
  labelled() = {.before = {ts, task_}, .held = task_};
}

// Sets only the members that are needed to undo it.
poll_frame::measuring& poll_frame::measure(thread_state& ts, task_record* before, poll_frame* outer,
                                           const site* outer_site) noexcept {
  mode_ = mode::measured;
  measuring& m = measured();
  m.before = before;
  m.outer = outer;
  m.outer_site = outer_site;
  m.held = m.assigned = m.born = nullptr;
  m.judged = 0;
  m.hooked = m.account_saved = false;
  m.outer_charging = ts.charging;
  return m;
}

void poll_frame::begin_measured(thread_state& ts, void* owner, const site& what, poll_frame* outer,
                                const site* outer_site) noexcept {
  measuring& m = measure(ts, ts.current, outer, outer_site);
  if ((word_ & tracked_operation::resumes) != 0) ++ts.extra_turns;
  // Acquire: a poll that sees the new generation of an update sees what was updated.
  std::uint32_t state = ts.state->load(std::memory_order_acquire);
  if ((state & path_state::wake_watchdog) != 0) [[unlikely]] {
    // acq_rel pairs with the watchdog's setting of the flag before it sleeps. If several polls see
    // the flag, one of them wakes it.
    path_arbiter& arbiter = *ts.arbiter;
    if ((arbiter.state.fetch_and(~path_state::wake_watchdog, std::memory_order_acq_rel) &
         path_state::wake_watchdog) != 0) {
      arbiter.woken();
    }
    state = ts.state->load(std::memory_order_relaxed);
  }
  m.hooked = (state & path_state::poll_hooks) != 0;
  auto charging = static_cast<std::uint8_t>(state & path_state::several_workers);
  if (outer != nullptr) {
    ++outer->inner_polls_;
    outer->inner_owner_ = owner;
    if (outer->names() && outer->task_ != nullptr &&
        (outer_site->drains || ts.arbiter->drains_strand(owner))) {
      // A strand over a task's executor: the executor's task takes precedence over that of the
      // scope in which the handler was created.
      if (task_ != outer->task_) {
        if (task_ != nullptr) release(*task_);
        task_ = outer->task_;
        acquire(*task_);
      }
      // A strand over a strand over the executor.
      if (what.drains || what.erased) word_ |= tracked_operation::names;
      ts.arbiter->next_in_batch(ts, *task_, owner);
    }
    if (outer_site->drains) {
      // The drain's time is charged to its first handler. What it creates after its handlers (its
      // own next turn) belongs to no task, because the next handler may be of another task.
      m.before = nullptr;
    } else {
      outer->split();  // the outer poll has run user code, which is charged to its own task
    }
  } else {
    if (ts.service_epoch != service_epoch.load(std::memory_order_relaxed)) [[unlikely]] {
      ts.arbiter->renew(ts);
    }
    const bool chains = ts.clock.chains();
    if (state != ts.token || !chains || !ts.clock.undisturbed()) ts.clock.waited();
    // With a clock that shows every loss of the CPU, stamps can be chained even if other threads
    // poll: if this thread waited for one of them, the clock shows it.
    ts.token = chains && ts.wrapped && (state & path_state::poll_hooks) == 0 ? state : never(state);
  }
  if (task_ != nullptr && task_->home != ts.arbiter &&
      (task_->charging.fetch_or(charging_mode::shared, std::memory_order_relaxed) &
       charging_mode::shared) == 0) {
    // Its own workers may still charge it with plain stores. The new generation sends them through
    // the slow path.
    task_->home->state.fetch_add(path_state::generation, std::memory_order_relaxed);
  }
  if (task_ != nullptr) charging |= task_->charging.load(std::memory_order_relaxed);
  if (what.drains) {
    m.held = task_;
  } else {
    open_account(ts, m);
    if (charging != ts.charging && ts.pending_polls != 0) settle(ts, ts.clock.last());
    ts.charging = charging;
    watch_account(ts);
  }
  if ((word_ & tracked_operation::accepts) != 0) m.born = ts.arbiter->accepted(task_);
  start(ts, what, m.born != nullptr ? m.born : task_);
  if (m.hooked && !what.drains) ts.arbiter->before_poll(*this);
}

void poll_frame::accepted_on(std::intptr_t socket) noexcept {
  if (mode_ != mode::measured || measured().born == nullptr) return;
  task_record& born = *measured().born;
  own_socket(socket, born, true);
  if (born.home->classifies.load(std::memory_order_relaxed)) [[unlikely]] {
    born.home->classify(born, socket);
  }
}

void poll_frame::start(thread_state& ts, const site& what, task_record* current) noexcept {
  ts.current = current;
  ts.top.store(this, std::memory_order_relaxed);
  ts.fuel = 0;
  ts.poll_site.store(&what, std::memory_order_relaxed);
}

// Makes the task the thread's account, which takes over its reference. An outer poll gets its own
// account back afterwards.
void poll_frame::open_account(thread_state& ts, measuring& m) noexcept {
  if (task_ == ts.account) {
    ++ts.cached_refs;
    return;
  }
  // A drain has no account to return to, unless it runs inside another poll itself.
  const bool in_outermost_drain =
      m.outer != nullptr && m.outer_site->drains && m.outer->outer() == nullptr;
  if (m.outer != nullptr && !in_outermost_drain) {
    if (pending(ts)) settle(ts, ts.clock.last());
    m.outer_account = ts.account;
    m.outer_cached_refs = ts.cached_refs;
    m.account_saved = true;
  } else {
    close_current_account(ts);
  }
  ts.account = task_;
  ts.cached_refs = 0;
  watch_account(ts);
}

// Leaves the fast path: the end of the poll has more to undo from now on.
void poll_frame::slow_down(thread_state& ts) noexcept {
  if (mode_ == mode::outermost) {
    (void)measure(ts, ts.base, nullptr, nullptr);
  } else if (mode_ == mode::drained) {
    const nesting n = nested();
    (void)measure(ts, nullptr, n.outer, n.outer_site);
  }
}

void poll_frame::split() noexcept {
  thread_state& ts = this_thread();
  if (!is_measured() || ts.arbiter == nullptr) return;
  const timing::lap last = ts.clock.take();
  if (accrued_ == 0) started_ = last.start;
  accrued_ += last.cost;
  ts.pending += last.cost;
}

void poll_frame::critical_entered(timing::ticks now) noexcept {
  thread_state& ts = this_thread();
  slow_down(ts);
  if (ts.critical.load(std::memory_order_relaxed) == 0) {
    ts.critical_since.store(now, std::memory_order_relaxed);
  }
}

void poll_frame::reassign(task_record* t) noexcept {
  thread_state& ts = this_thread();
  slow_down(ts);
  if (mode_ != mode::measured) return;
  measuring& m = measured();
  // The part until now is charged and judged as a poll of its own.
  ts.settle_at = 0;
  end_poll(ts, ts.clock.take(), false, true);
  m.judged = accrued_;
  if (t != nullptr) acquire(*t, 2);  // one for the frame, and one for the account
  if (!m.account_saved && m.outer != nullptr) {
    m.outer_account = ts.account;
    m.outer_cached_refs = ts.cached_refs;
    m.account_saved = true;
  } else {
    task_ = t;  // before the account's reference, which may be the last one, is released
    close_current_account(ts);
  }
  ts.account = t;
  ts.cached_refs = 0;
  ts.charging &= charging_mode::shared;
  if (t != nullptr) {
    ts.charging |= t->charging.load(std::memory_order_relaxed);
    if (t->home != ts.arbiter) ts.charging |= charging_mode::shared;
  }
  watch_account(ts);
  task_ = t;
  if (task_record* before = std::exchange(m.assigned, t)) release(*before);
}

}  // namespace asio_pulse::hooks
