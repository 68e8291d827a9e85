// SPDX-License-Identifier: BSL-1.0
//
// Operations and references to tasks: what happens between two polls.
#include "arbiters.hpp"
#include "thread_account.hpp"

#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

namespace asio_pulse::hooks {
namespace {

// A worker that creates many operations of one task takes this many references at a time. A guess:
// with 1 there would be a locked instruction for each operation, and with a large number the count
// would say little about the references in use.
constexpr std::int64_t reference_batch = 64;

}  // namespace

void release(task_record& t, std::uint64_t n) noexcept {
  const std::uint64_t before = t.references.fetch_sub(n, std::memory_order_acq_rel);
  ASIO_PULSE_ASSERT(n != 0 && before >= n);
  if (before == n) t.home->destroy(t);
}

void tracked_operation::capture_slow(thread_state& ts, task_record& t) noexcept {
  if (&t == ts.account) {
    acquire(t, reference_batch);
    ts.cached_refs += reference_batch - 1;
  } else {
    acquire(t);
  }
}

void tracked_operation::drop() noexcept {
  if (task_record* t = task_in(take())) release(*t);
}

void tracked_operation::assign(task_record* t) noexcept {
  ASIO_PULSE_ASSERT((reinterpret_cast<std::uintptr_t>(t) & ~task_bits) == 0);
  task_record* old = task();
  word_ = (word_ & ~task_bits) | reinterpret_cast<std::uintptr_t>(t);
  if (old != nullptr) release(*old);
}

void charge_pending() noexcept {
  thread_state& ts = this_thread();
  if (ts.arbiter != nullptr && pending(ts)) settle(ts, ts.clock.last());
}

void accept_created(tracked_operation& op) noexcept {
  op.announce();
  op.set(tracked_operation::accepts);
  task_record* t = op.task();
  if (t == nullptr) return;
  // The next accept is usually started in the handler of the previous one. It belongs to the
  // listener's task and not to the connection's.
  task_record* listener = t->home->listener_of(t);
  if (listener == t) return;
  if (listener != nullptr) acquire(*listener);
  op.assign(listener);
}

gate_verdict gate(void* owner, void* operation, tracked_operation& op, completes how,
                  const site& what) noexcept {
  if (op.has(tracked_operation::inside)) return gate_verdict::runs;
  const bool released = op.has(tracked_operation::released);
  thread_state& ts = this_thread();
  if (released && (ts.arbiter == nullptr || !ts.arbiter->uses_fibers)) return gate_verdict::runs;
  if (const task_record* const t = op.task();
      t != nullptr && t->gated.load(std::memory_order_relaxed) == gate_flag::unless_calm &&
      ts.clock.last() < t->home->calm_until.load(std::memory_order_relaxed)) {
    return gate_verdict::runs;
  }
  if (ts.top.load(std::memory_order_relaxed) == nullptr) {
    if ((owner != ts.owner || !ts.wrapped) && !recognise(ts, owner)) return gate_verdict::runs;
  } else if (owner == ts.owner || ts.arbiter == nullptr) {
    // The operation completes inside another handler of the same scheduler, so it has no turn of
    // its own that it could give up.
    return gate_verdict::runs;
  }
  path_arbiter& arbiter = *ts.arbiter;
  if (!released && (op.task() != nullptr || detail::always_preempt()) &&
      arbiter.hold_back(ts, op, operation, owner, how, what)) {
    return gate_verdict::held;
  }
  return arbiter.uses_fibers && arbiter.wants_fiber(ts, op, operation, owner, what)
             ? gate_verdict::on_fiber
             : gate_verdict::runs;
}

task_record* connecting(void* scheduler, task_record* t) noexcept {
  thread_state& ts = this_thread();
  if (ts.arbiter != nullptr && ts.owner == scheduler) return ts.arbiter->connecting(t);
  // The caller starts an operation on the context, so the context and its arbiter are alive.
  path_arbiter* const found = find_arbiter(scheduler);
  return found != nullptr ? found->connecting(t) : nullptr;
}

}  // namespace asio_pulse::hooks
