// SPDX-License-Identifier: BSL-1.0
//
// What a run function changes in the thread's state.
#include "arbiters.hpp"
#include "thread_account.hpp"

#include <asio_pulse/bpf/control_block.h>
#include <asio_pulse/bpf/words.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <atomic>
#include <new>

namespace asio_pulse::hooks {

constinit const std::atomic<std::uint32_t> run_state::no_state{~std::uint32_t{0}};
constinit const std::atomic<std::uint64_t> thread_state::no_hint{0};
constinit thread_local thread_state this_thread_state ASIO_PULSE_DETAIL_TLS_MODEL;

void show_critical(thread_state& ts, bool inside) noexcept {
  if (ts.block == nullptr) return;
  asio_pulse::detail::write_word(ts.block->critical, inside ? 1 : 0);
}

namespace {

// The poll in which a run function is called. It is charged, so that it can be left alone while the
// run function runs.
poll_frame* interrupted_poll(thread_state& ts) noexcept {
  poll_frame* const outer = ts.top.load(std::memory_order_relaxed);
  if (!ts.wrapped && ts.arbiter != nullptr && outer == nullptr) {
    detach(ts);  // left over from a run through a base-class reference
  }
  if (outer != nullptr) outer->split();
  if (ts.arbiter != nullptr && pending(ts)) settle(ts, ts.clock.last());
  return outer;
}

// Whether no run function is active on this thread, and none would have to restore anything.
bool outside_of_all(const thread_state& ts) noexcept {
  return ts.arbiter == nullptr && !ts.wrapped && ts.label == run_state::label_closed &&
         ts.recorder == nullptr && ts.no_yield == 0 &&
         ts.critical.load(std::memory_order_relaxed) == 0 &&
         ts.top.load(std::memory_order_relaxed) == nullptr;
}

// Restores the state outside of all run functions, except for what is known about plain schedulers.
void go_outside(thread_state& ts) noexcept {
  run_state outside;
  outside.plain_owner = ts.plain_owner;
  outside.plain_epoch = ts.plain_epoch;
  set_run_state(ts, outside);
}

// Relaxed: the numbers only have to be different.
std::atomic<std::uint64_t> last_rest_id{0};

}  // namespace

worker_scope::worker_scope(void* scheduler, path_arbiter& arbiter, bool enabled,
                           bool compensable) noexcept
    : ts_(this_thread()),
      outer_poll_(interrupted_poll(ts_)),
      outermost_(enabled && outside_of_all(ts_)) {
  if (outermost_ && come_back(scheduler, arbiter, compensable)) return;
  const run_state& outer =
      outermost_ ? ts_ : *new (&outer_) run_state(static_cast<const run_state&>(ts_));
  run_state inner;
  inner.wrapped = true;
  inner.compensable = compensable;
  inner.base = outer.base;
  inner.nested = outer_poll_ != nullptr;
  if (enabled) {
    // These remain valid: what is known about other schedulers, and a recorder of this arbiter.
    inner.plain_owner = outer.plain_owner;
    inner.plain_epoch = outer.plain_epoch;
    inner.recorder = outer.recorder;
  } else {
    inner.plain_owner = scheduler;
    inner.plain_epoch = arbiter_epoch.load(std::memory_order_relaxed);
    inner.label = run_state::label_none;
  }
  const bool again = outer.arbiter == &arbiter && outer.wrapped;
  // Before `watched`, so that the watchdog does not take the outer poll for one of the new arbiter.
  ts_.top.store(nullptr, std::memory_order_relaxed);
  set_run_state(ts_, inner);
  show_critical(ts_, false);
  if (!enabled) return;
  attach(ts_, scheduler, arbiter);
  if (!again) arbiter.attached(ts_);
}

worker_scope::~worker_scope() {
  ASIO_PULSE_ASSERT(&ts_ == &this_thread());
  ASIO_PULSE_ASSERT(ts_.top.load(std::memory_order_relaxed) == nullptr);  // all polls have ended
  close_current_account(ts_);
  if (outermost_) {
    if (!rest()) {
      ts_.arbiter->detached(ts_);
      show_critical(ts_, false);
    }
    go_outside(ts_);
    return;
  }
  const bool again = outer_.arbiter == ts_.arbiter && outer_.wrapped;
  if (ts_.arbiter != nullptr && !again) ts_.arbiter->detached(ts_);
  // `watched` before `top`: the outer poll does not belong to this arbiter.
  set_run_state(ts_, outer_);
  show_critical(ts_, ts_.critical.load(std::memory_order_relaxed) != 0);
  if (ts_.arbiter != nullptr) {
    attach_clock(ts_);
    ts_.clock.stamp();  // what ran inside was charged to its own tasks
    // The inner run function may have looked for services of its own.
    ts_.service_epoch = service_epoch.load(std::memory_order_relaxed) - 1;
    watch_account(ts_);
  }
  // Last: before the stamp, the outer poll would look as if it had run since the last inner one.
  ts_.top.store(outer_poll_, std::memory_order_relaxed);
}

/// Returns true if this thread rests in `arbiter`. It is then its worker again, as before.
bool worker_scope::come_back(void* scheduler, path_arbiter& arbiter, bool compensable) noexcept {
  std::uint64_t id = ts_.rest_id;
  // Relaxed: this thread has stored the value itself. If another thread has called let_go(), that
  // has changed only counts.
  if (id == 0 || arbiter.resting.load(std::memory_order_relaxed) != id ||
      !arbiter.resting.compare_exchange_strong(id, 0, std::memory_order_relaxed)) {
    return false;
  }
  ts_.wrapped = true;
  ts_.compensable = compensable;
  attach(ts_, scheduler, arbiter);
  const std::uint32_t state = arbiter.state.load(std::memory_order_relaxed);
  const bool calm = (state & (path_state::generation - 1)) == 0 && ts_.clock.chains() &&
                    ts_.service_epoch == service_epoch.load(std::memory_order_relaxed);
  if (calm) ts_.token = state;  // the clock was stamped just now
  return true;
}

/// Lets the arbiter's only worker rest. Returns false if it has to leave instead.
bool worker_scope::rest() noexcept {
  path_arbiter& arbiter = *ts_.arbiter;
  if (arbiter.rests_on != ts_.owner || ts_.owner == nullptr || ts_.recorder != nullptr ||
      (arbiter.state.load(std::memory_order_relaxed) & path_state::several_workers) != 0) {
    return false;
  }
  if (ts_.rest_id == 0) ts_.rest_id = last_rest_id.fetch_add(1, std::memory_order_relaxed) + 1;
  std::uint64_t id = ts_.rest_id;
  // Both are sequentially consistent; see path_arbiter::resting.
  arbiter.resting.store(id, std::memory_order_seq_cst);
  if ((arbiter.state.load(std::memory_order_seq_cst) & path_state::several_workers) == 0) {
    return true;
  }
  // Another thread has joined meanwhile. If the value is gone, that thread has called let_go().
  return !arbiter.resting.compare_exchange_strong(id, 0, std::memory_order_relaxed);
}

}  // namespace asio_pulse::hooks
