// SPDX-License-Identifier: BSL-1.0
//
// The threads that run a context: they join, rest and leave.
#include "context_companion.hpp"
#include "gate/parking.hpp"
#include "threads/lock_count.h"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>

#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {

// False for threads of the isolation pool, and for those that use a base-class reference.
bool context_core::runs_handlers(const hooks::thread_state& ts) const noexcept {
  return ts.wrapped && port_ != nullptr && ts.owner == port_->scheduler();
}

void context_core::attached(hooks::thread_state& ts) noexcept {
  acquire();
  if (asio_pulse_locks_are_counted != 0) {
    ready_fiber_thread();  // Asio may resume a coroutine here, which does not ask for that
    this_fiber_thread.signals_differed = true;  // the program may have blocked others since
  }
  // It may come from resting in another context, to which it does not come back.
  if (!ts.nested && pins_threads()) unpin_this_thread();
  companion_->joined(ts);
  if (ts.recorder != nullptr) {
    ts.recorder->updates_seen = updates_.load(std::memory_order_relaxed);
  }
  clock_in_use_.store(ts.clock.kind(), std::memory_order_relaxed);
  if (runs_handlers(ts)) gate_->count_worker(1);
  // A thread that runs the context through a base-class reference does not announce that it leaves.
  // From now on the number of workers is not known.
  if (!ts.wrapped) strangers_.store(true, std::memory_order_seq_cst);
  let_go_of_resting();
  // Sequentially consistent for alone_with(). It also pairs with the decrement in leave(): a worker
  // that is alone sees what the one before it has charged with plain stores.
  const std::uint32_t workers = workers_.fetch_add(1, std::memory_order_seq_cst) + 1;
  // Before the flag, for the last worker that clears it: see leave(). Release pairs with the acquire there.
  state.fetch_add(hooks::path_state::generation, std::memory_order_release);
  if (workers > 1 || strangers_.load(std::memory_order_relaxed)) {
    // Sequentially consistent, as is the exchange in let_go_of_resting(): the only worker so far
    // may be about to rest. See path_arbiter::resting.
    state.fetch_or(hooks::path_state::several_workers, std::memory_order_seq_cst);
    // The analyzer does not see that the thread acquired a reference.
    let_go_of_resting();  // NOLINT(clang-analyzer-cplusplus.NewDelete)
  }
}

void context_core::let_go_of_resting() noexcept {
  if (resting.exchange(0, std::memory_order_seq_cst) != 0) let_go();
}

void context_core::let_go() noexcept {
  // The worker that rests does not come back, so other threads resume what it has suspended. It is the
  // one that was alone before, unless that has left meanwhile: then its pin is an old one. Relaxed: a
  // thread that joins has synchronised with it through the scheduler's mutex before it finds an
  // operation that it has suspended.
  if (const std::uint64_t pin = lone_pin_.exchange(0, std::memory_order_relaxed)) {
    unpin_thread(
        {.number = static_cast<std::uint32_t>(pin >> 32), .stay = static_cast<std::uint32_t>(pin)});
  }
  gate_->count_worker(-1);
  leave();
}

void context_core::detached(hooks::thread_state& ts) noexcept {
  if (runs_handlers(ts)) gate_->count_worker(-1);
  // In a nested run function nothing was suspended that is pinned; see returns_here().
  if (!ts.nested && pins_threads()) unpin_this_thread();
  companion_->left(ts);
  leave();
}

void context_core::leave() noexcept {
  const std::uint32_t workers = workers_.fetch_sub(1, std::memory_order_release) - 1;
  if (workers == 0 && !strangers_.load(std::memory_order_relaxed)) {
    // The flag can be cleared without a race only while no worker is inside. A last worker that
    // stays alone continues as if there were others until it leaves, which is correct and costs a
    // few nanoseconds more.
    //
    // Threads may join meanwhile. Each of them changes the generation before it sets the flag. So either
    // this sees the new generation, and with it (acquire, of a chain of atomic changes) the new number of
    // workers; or the exchange fails; or the flag is set after it was cleared here.
    std::uint32_t seen = state.load(std::memory_order_acquire);
    while ((seen & hooks::path_state::several_workers) != 0 &&
           workers_.load(std::memory_order_relaxed) == 0 &&
           !state.compare_exchange_weak(seen, seen & ~hooks::path_state::several_workers,
                                        std::memory_order_acquire, std::memory_order_acquire)) {
    }
  }
  state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
  release();
}

void context_core::forked() noexcept {
  let_go_of_resting();
  const bool here = hooks::this_thread().arbiter == this;
  workers_.store(here ? 1 : 0, std::memory_order_relaxed);
  gate_->forked(here && hooks::this_thread().wrapped);
  state.fetch_and(~hooks::path_state::several_workers, std::memory_order_relaxed);
  state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
  companion_->forked();
}

bool context_core::returns_here(const hooks::thread_state& ts) const noexcept {
  // If a thread runs the context through a base-class reference, it is not known when it leaves. If it
  // is in a nested run function, it is not known which of them it has left.
  if (!ts.wrapped || ts.nested) return false;
  const thread_pin pin = pin_here();
  if ((state.load(std::memory_order_relaxed) & hooks::path_state::several_workers) == 0) {
    lone_pin_.store(std::uint64_t{pin.number} << 32 | pin.stay, std::memory_order_relaxed);
    if (options_.spare_workers == 0) return true;
  }
  return pin.number != 0;
}

bool context_core::pins_threads() const noexcept {
  return asio_pulse_locks_are_counted != 0 || uses_fibers;
}

bool context_core::belongs_elsewhere(const thread_pin& pin) const noexcept {
  return !closed() && pinned_elsewhere(pin);
}

void context_core::notify_workers() noexcept {
  hooks::service_epoch.fetch_add(1, std::memory_order_relaxed);
  state.fetch_add(hooks::path_state::generation, std::memory_order_release);
}

}  // namespace asio_pulse::detail
