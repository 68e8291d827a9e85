// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/task_budget.hpp>
#include <asio_pulse/timing/poll_clock.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

/// \file
/// The cache line of a task that each of its polls uses, and what threads that share it add up.

namespace asio_pulse::hooks {

class path_arbiter;

/// How a task is charged; task_record::charging and thread_state::charging.
namespace charging_mode {
/// Several threads charge it, so charges are atomic. The same bit as path_state::several_workers.
inline constexpr std::uint8_t shared = 1;
/// What the task is charged with is passed on to path_arbiter::charged().
inline constexpr std::uint8_t grouped = 2;
}  // namespace charging_mode

/// task_record::gated: an operation of the task asks the arbiter before it runs.
namespace gate_flag {
inline constexpr std::uint8_t always = 1;
/// Only from path_arbiter::calm_until on.
inline constexpr std::uint8_t unless_calm = 2;
}  // namespace gate_flag

/// The number of polls, and their cost in ticks. Relaxed: it publishes nothing.
struct charge_sum {
  std::atomic<std::uint64_t> polls{0};
  std::atomic<std::uint64_t> cost{0};
};

/// What the poll path knows about a task. Everything else (name, tier state, parked work) is in a
/// type of the arbiter that derives from this one.
///
/// The lifetime is managed by counted references. Handles, executors and operations hold one each.
/// A worker caches references of the task that it polled last in its thread_state, so that a chain
/// of operations of one task costs no locked instruction.
struct alignas(64) task_record {
  explicit task_record(path_arbiter& arbiter) noexcept : home(&arbiter) {}
  task_record(const task_record&) = delete;
  task_record& operator=(const task_record&) = delete;

  /// The budget, which is charged with the cost of each poll.
  task_budget budget;
  /// What was charged with plain stores, by the thread that is alone with the task: the only worker of
  /// `home`, until it sees that another thread has come. A worker is alone only if it came in while
  /// there was none, and sees what the one before it has stored. So it is the only one that writes this.
  charge_sum alone;
  /// The arbiter is called for polls that cost this many ticks or more; 0 for all polls (in any
  /// tier above Monitor). Written by the arbiter, and read relaxed at the end of each poll: with
  /// an old value the arbiter is called for one poll more or less.
  std::atomic<timing::ticks> attention{~timing::ticks{0}};
  /// The arbiter that decides about this task's work. It outlives the task.
  path_arbiter* const home;
  /// The number of references. It has 64 bits, because a worker that polls only this task caches
  /// the reference of each operation that another thread made (thread_state::cached_refs). At a
  /// million a second, 32 bits would be full after 72 minutes. Increments are relaxed, since the
  /// caller holds a reference already. The decrement that may reach zero is acq_rel, so that the
  /// thread that destroys the task sees every write that a holder made before.
  std::atomic<std::uint64_t> references{1};
  /// See gate_flag. If it is not zero, the arbiter must be asked before an operation of this task
  /// runs. Set and cleared by the arbiter. Relaxed: with an old value an operation runs one turn early, but
  /// never twice and never out of order, since the arbiter checks again under its lock.
  std::atomic<std::uint8_t> gated{0};
  /// Flags of charging_mode, which are never cleared. `shared` is set when a thread that does not work
  /// for `home` polls the task. `grouped` is set by the arbiter with release, which pairs with the
  /// acquire of is_grouped(): a thread that sees it sees what the arbiter has prepared for charged().
  std::atomic<std::uint8_t> charging{0};
  /// Guards the tier state. It is only tried, never waited for: a thread that finds it taken leaves
  /// the decision to the holder.
  std::atomic_flag deciding = ATOMIC_FLAG_INIT;
  /// How many of its polls have stuck a shard, as its arbiter counts them. It wraps around: readers
  /// compare it with an earlier value. Relaxed: it publishes nothing.
  std::atomic<std::uint8_t> long_polls{0};
  /// For recordings: the low bits of its id in the context; 0 for the unnamed task. Constant once
  /// the task has been published.
  std::uint32_t number = 0;
  /// What was charged with atomic additions, by all others. A sum of its own, so that no charge is lost
  /// while the thread that was alone has not seen yet that it is not. Only they use its cache line.
  charge_sum shared;

  /// The number of polls so far. It never shrinks for one reader.
  [[nodiscard]] std::uint64_t polls() const noexcept {
    return alone.polls.load(std::memory_order_relaxed) +
           shared.polls.load(std::memory_order_relaxed);
  }
  /// Their cost in ticks.
  [[nodiscard]] timing::ticks cost() const noexcept {
    return alone.cost.load(std::memory_order_relaxed) + shared.cost.load(std::memory_order_relaxed);
  }
  /// Charges as the thread that is alone with the task.
  void count_alone(std::uint64_t polls, timing::ticks cost) noexcept {
    alone.polls.store(alone.polls.load(std::memory_order_relaxed) + polls,
                      std::memory_order_relaxed);
    alone.cost.store(alone.cost.load(std::memory_order_relaxed) + cost, std::memory_order_relaxed);
  }
  /// Charges as any other thread.
  void count_shared(std::uint64_t polls, timing::ticks cost) noexcept {
    shared.polls.fetch_add(polls, std::memory_order_relaxed);
    shared.cost.fetch_add(cost, std::memory_order_relaxed);
  }
  [[nodiscard]] bool is_shared() const noexcept {
    return (charging.load(std::memory_order_relaxed) & charging_mode::shared) != 0;
  }
  [[nodiscard]] bool is_grouped() const noexcept {
    return (charging.load(std::memory_order_acquire) & charging_mode::grouped) != 0;
  }
};
static_assert(offsetof(task_record, shared) == 64,
              "what the thread that is alone uses is one cache line");

/// Takes `n` more references. The caller holds one.
inline void acquire(task_record& t, std::uint64_t n = 1) noexcept {
  ASIO_PULSE_ASSERT(t.references.load(std::memory_order_relaxed) != 0);
  t.references.fetch_add(n, std::memory_order_relaxed);
}

/// Takes a reference although the caller holds none. Returns false if the last one was released and
/// the task is about to be destroyed. The caller must hold a lock that path_arbiter::destroy() of
/// this arbiter takes as well.
inline bool try_acquire(task_record& t) noexcept {
  std::uint64_t n = t.references.load(std::memory_order_relaxed);
  while (n != 0) {
    if (t.references.compare_exchange_weak(n, n + 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

/// Releases `n` references. With the last one the arbiter destroys the task.
void release(task_record& t, std::uint64_t n = 1) noexcept;

}  // namespace asio_pulse::hooks
