// SPDX-License-Identifier: BSL-1.0
//
// How a poll ends if it is not on the fast path: what it cost, which parts have to see it, and what
// is undone.
#include "thread_account.hpp"

#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>

namespace asio_pulse::hooks {

timing::ticks poll_frame::judged() const noexcept {
  return mode_ == mode::measured ? measured().judged : 0;
}

/// Adds the last segment to the account, and judges the poll if there may be a reason to.
void poll_frame::end_poll(thread_state& ts, const timing::lap& last, bool look,
                          bool part) noexcept {
  ts.pending += last.cost;
  ++ts.pending_polls;
  const bool stalled =
      ts.stall.load(std::memory_order_relaxed) == last.start && stall_ended(ts, last);
  if (ts.recorder != nullptr) {
    record(ts, started(last.start), accrued_ + last.cost - judged());
  }
  if (!look && ts.pending < ts.settle_at) {
    accrued_ += last.cost;
    return;
  }
  task_record& t = task_ != nullptr ? *task_ : *ts.unnamed;
  const bool over = settle(ts, last.now);
  const timing::ticks start = started(last.start);
  accrued_ += last.cost;
  started_ = start;
  const timing::ticks total = accrued_ - judged();
  if (over || look || total >= t.attention.load(std::memory_order_relaxed)) {
    ts.arbiter->after_poll(
        *this, t, last,
        {.total = total, .started = start, .over_budget = over, .part = part, .stalled = stalled});
  }
  if (!part && (ts.pressured || ts.hint->load(std::memory_order_relaxed) != ts.hint_seen))
      [[unlikely]] {
    ts.arbiter->hinted(ts, t, last.now);
  }
  watch_account(ts);
}

// Tells the watchdog, which has found the poll stalled, that it has ended.
bool poll_frame::stall_ended(thread_state& ts, const timing::lap& last) noexcept {
  timing::ticks start = last.start;
  if (start == 0) return false;
  // Either this thread clears the mark or the watchdog does. The one that clears it reports the
  // poll, so that it is reported exactly once.
  ts.stall_end.store(last.now, std::memory_order_relaxed);
  if (!ts.stall.compare_exchange_strong(start, 0, std::memory_order_release,
                                        std::memory_order_relaxed)) {
    return false;
  }
  if (ts.arbiter != nullptr) ts.arbiter->woken();
  return true;
}

void poll_frame::record(thread_state& ts, timing::ticks start, timing::ticks cost) const noexcept {
  const site& what = *ts.poll_site.load(std::memory_order_relaxed);
  ts.recorder->note(start, cost, poll_recorder::key_of(what, word_), task_);
}

void poll_frame::record_batch(thread_state& ts, timing::ticks cost) const noexcept {
  if (mode_ != mode::drained) return;
  const nesting& n = nested();
  if (n.outer_site->drains) ts.recorder->note_batch(n.outer->inner_polls_ == 1, cost);
}

void poll_frame::end_noticed(bool known, timing::ticks cost) noexcept {
  thread_state& ts = this_thread();
  const timing::ticks pending = ts.pending + cost;
  if (!known || pending >= ts.settle_at || mode_ != mode::outermost) [[unlikely]] {
    return end_looked_at(known, cost);
  }
  // Only the recorder has to see the poll. Without one, flush_at equals settle_at and this is not
  // reached.
  ts.pending = pending;
  ++ts.pending_polls;
  const site& what = *ts.poll_site.load(std::memory_order_relaxed);
  ts.recorder->note_short(ts.clock.last() - cost, cost, poll_recorder::key_of(what, word_), task_);
}

void poll_frame::end_looked_at(bool known, timing::ticks cost) noexcept {
  thread_state& ts = this_thread();
  if (known && ts.pending + cost < ts.settle_at) {
    ts.pending += cost;
    ++ts.pending_polls;
    if (ts.recorder == nullptr) return;
    record(ts, ts.clock.last() - cost, cost);
    record_batch(ts, cost);
    return;
  }
  end_poll(ts, known ? ts.clock.confirm(ts.pending + cost, cost) : ts.clock.take(), false, false);
}

void poll_frame::end_slow() noexcept {
  thread_state& ts = this_thread();
  switch (mode_) {
    case mode::taskless:
      ts.current = renamed().before;
      return;
    case mode::drained:
      return end_drained(ts, nested());
    case mode::measured:
      return end_measured(ts, measured());
    case mode::labelled:
      labelled().before.restore(ts);
      [[fallthrough]];
    case mode::destroyed:
      if (labelled().held != nullptr) release(*labelled().held);
      return;
    case mode::outermost:
    case mode::drain:
    case mode::unobserved:
    case mode::named:
      break;  // inline
  }
  ASIO_PULSE_ASSERT(false && "a mode that ends inline");
}

void poll_frame::end_drained(thread_state& ts, const nesting& n) noexcept {
  ASIO_PULSE_ASSERT(ts.top.load(std::memory_order_relaxed) == this);
  timing::ticks cost;
  const bool known = ts.clock.try_take(cost);
  if (known && ts.pending + cost < ts.flush_at) {
    ts.pending += cost;
    ++ts.pending_polls;
  } else {
    end_noticed(known, cost);
  }
  ts.poll_site.store(n.outer_site, std::memory_order_relaxed);
  ts.top.store(n.outer, std::memory_order_relaxed);
  ts.current = nullptr;  // a drain's own work belongs to no task; see begin_measured()
}

void poll_frame::end_measured(thread_state& ts, measuring& m) noexcept {
  ASIO_PULSE_ASSERT(ts.top.load(std::memory_order_relaxed) == this);
  // A critical section, or a lock, that outlives its poll must not affect the next one.
  if (m.outer == nullptr) {
    ts.critical.store(0, std::memory_order_relaxed);
    show_critical(ts, false);
    ts.no_yield = 0;
  }
  if (!ts.poll_site.load(std::memory_order_relaxed)->drains) {
    end_poll(ts, ts.clock.take(), m.hooked, false);
    task_ = nullptr;  // close_account() may release the last reference to it
    close_account(ts, m);
  }
  ts.poll_site.store(m.outer_site, std::memory_order_relaxed);
  ts.top.store(m.outer, std::memory_order_relaxed);
  ts.current = m.before;
  if (m.born != nullptr) release(*m.born);
  if (m.assigned != nullptr) release(*m.assigned);
  if (m.held != nullptr) release(*m.held);
}

void poll_frame::close_account(thread_state& ts, measuring& m) noexcept {
  if (m.account_saved) {
    close_current_account(ts);
    ts.account = m.outer_account;
    ts.cached_refs = m.outer_cached_refs;
    watch_account(ts);
  }
  // The account may be that of a task that joined a group meanwhile, or of the next handler in a
  // strand's batch, which does not look whether its task is shared.
  if (m.outer != nullptr) {
    ts.charging = m.outer_charging;
    if (ts.account != nullptr) ts.charging |= ts.account->charging.load(std::memory_order_relaxed);
  }
}

}  // namespace asio_pulse::hooks
