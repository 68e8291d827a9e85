// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/timing/poll_clock.hpp>
#include <atomic>
#include <cstddef>
#include <cstdint>

/// \file
/// The cache line of a task that every one of its polls touches.

namespace asio_pulse::hooks {

class path_observer;

/// What the poll path knows of a task. Everything else about it (name, tier state, parked work)
/// lives beside it, in the observer's own type, which derives from this one.
///
/// Lifetime: counted references. Handles, executors and operations hold one each; a worker keeps
/// the references of the task it polled last in its thread_state, so that a chain of operations of
/// one task costs no locked instruction.
struct alignas(64) task_record {
  explicit task_record(path_observer& observer) noexcept : home(&observer) {}
  task_record(const task_record&) = delete;
  task_record& operator=(const task_record&) = delete;

  /// CPU time allowed, charged at the end of every poll.
  task_budget budget;
  /// Polls so far, and their cost in ticks. Written like the budget: by plain store while one
  /// thread polls the task, by atomic addition otherwise.
  std::atomic<std::uint64_t> polls{0};
  std::atomic<std::uint64_t> cost{0};
  /// A poll that costs this many ticks or more is shown to the observer; 0 shows it every poll (any
  /// tier above Monitor). Written by the observer, read relaxed at the end of each poll: a late
  /// value shows one poll more or less.
  std::atomic<timing::ticks> attention{~timing::ticks{0}};
  /// Whoever decides about this task's work; outlives the task.
  path_observer* const home;
  /// Counted references. Increments are relaxed (the caller holds one already); the decrement that
  /// may reach zero is acq_rel, so that whoever destroys the task sees every write that a holder
  /// made before it let go.
  std::atomic<std::uint32_t> references{1};
  /// Not zero: the gate must ask the observer before it lets an operation of this task run. Set and
  /// cleared by the observer; relaxed: an operation that slips through runs one turn early, never
  /// twice and never out of order (the observer checks again under its lock).
  std::atomic<std::uint8_t> gated{0};
  /// A thread that does not work for `home` has polled this task: everybody charges by atomic
  /// addition from then on.
  std::atomic<bool> shared{false};
  /// Guards the tier state, by test-and-set only: whoever finds it taken leaves the decision to the
  /// holder.
  std::atomic_flag deciding = ATOMIC_FLAG_INIT;
  /// For recordings: the low bits of its number in the context; 0: work of no task. Constant once
  /// the task has been handed out.
  std::uint32_t number = 0;
  /// For the observer: CPU time when it last looked, in units of 256 ticks, so that differences of
  /// less than some minutes can be told. Relaxed: one looks at a time.
  std::atomic<std::uint32_t> seen_cost{0};
};
static_assert(sizeof(task_record) == 64, "one cache line");

/// Takes `n` more references. The caller holds one.
inline void acquire(task_record& t, std::uint32_t n = 1) noexcept {
  t.references.fetch_add(n, std::memory_order_relaxed);
}

/// Takes one more reference, though the caller holds none: false where the last one is gone, and
/// the task on its way to path_observer::destroy(), which the caller holds up by a lock of the
/// observer's.
inline bool try_acquire(task_record& t) noexcept {
  std::uint32_t n = t.references.load(std::memory_order_relaxed);
  while (n != 0) {
    if (t.references.compare_exchange_weak(n, n + 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

/// Gives `n` references back; the last one destroys the task through its observer.
void release(task_record& t, std::uint32_t n = 1) noexcept;

}  // namespace asio_pulse::hooks
