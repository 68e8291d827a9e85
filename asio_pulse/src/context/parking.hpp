// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "gate_rules.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/scoped_lock.hpp>
#include <asio_pulse/detail/task_state.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace asio_pulse::detail {

/// The gate of one context: which operations are held back, where they wait, and when they run.
///
/// gate_rules decides. This class reads Asio's queue for it, through the asio_port, and keeps the
/// tasks that have parked operations.
///
/// \par Thread safety  All members may be called from any thread. Asio's scheduler mutex is taken
///                     inside `mutex_`, never outside.
class parking {
 public:
  parking(const options& o, counters& counted);

  /// Connects the gate with Asio's queue or, with null, disconnects it for good.
  void connect(asio_port* port) noexcept;
  [[nodiscard]] asio_port* port() const noexcept { return port_; }

  /// A thread entered (1) or left (-1) a run function of this context.
  void count_worker(int change) noexcept {
    workers_.fetch_add(static_cast<std::uint32_t>(change), std::memory_order_relaxed);
  }
  void forked(bool here) noexcept { workers_.store(here ? 1 : 0, std::memory_order_relaxed); }

  /// Whether options::order permits to hold back operations of the task.
  [[nodiscard]] bool may_hold(const task_state& t, const hooks::thread_state& ts) const noexcept;

  /// Whether an operation of the task was held back since the last call.
  [[nodiscard]] bool held_since_asked(task_state& t) noexcept;

  /// Sets the task's gate from its tier, its parked operations and its deferral.
  void set_gate(task_state& t) noexcept;
  /// Makes the task's next operation go behind all others, once.
  void defer(task_state& t) noexcept;

  /// An operation at the front of the queue, about which the gate decides.
  struct passing {
    task_state& task;
    hooks::tracked_operation& op;
    void* operation;   ///< the operation of Asio of which `op` is the base
    bool over_budget;  ///< it may be held back: its task is in Yield or above, and over budget
    hooks::completes how;
    timing::ticks now;
  };
  enum class verdict : std::uint8_t {
    run,
    held,     ///< parked
    requeued  ///< back at the front of the queue, with what was parked before it
  };
  struct outcome {
    verdict what = verdict::run;
    std::uint32_t held = 0;  ///< how many operations were parked: this one and those behind it
  };
  /// Decides about an operation of a gated task, and parks it if necessary.
  [[nodiscard]] outcome pass(const passing& p, const hooks::thread_state& ts) noexcept;

  /// Whether the rest of a batch of `t`, which is over its budget, should wait, because work that
  /// had less CPU time waits, or the reactor was not polled for a slice.
  [[nodiscard]] bool gives_way(task_state& t, timing::ticks now,
                               const hooks::thread_state& ts) noexcept;

  /// Called in the driver's turn. Returns an operation to run, or null, and queues the driver again
  /// if necessary.
  [[nodiscard]] void* release() noexcept;

  // The following is for a stop() that is called in a handler which has overtaken operations that
  // are held back. Asio would have run those first, so a single thread that runs the context still
  // runs them. Parked operations have numbers: a handler that was not parked has overtaken all of
  // them, a handler that was parked those with lower numbers.

  /// An operation has run that release() returned or requeue_overtaken() requeued. `stopped`:
  /// whether the context is stopped now.
  void released_ended(bool stopped) noexcept;
  /// A run function begins, and the context is not stopped. Only needed if stop_noted().
  void run_begins() noexcept;
  /// Whether a stop() was noted that run_begins() has to forget.
  [[nodiscard]] bool stop_noted() const noexcept {
    return stopped_by_.load(std::memory_order_relaxed) != 0;
  }
  /// Moves the oldest operation that stop() has overtaken back to the front of the queue. Returns
  /// false if there is none, or several threads run the context, where there is no order.
  [[nodiscard]] bool requeue_overtaken() noexcept;

  /// Takes a parked operation, to be destroyed with the context; null if there is none.
  [[nodiscard]] void* take_any() noexcept;

  [[nodiscard]] std::uint64_t parked() const noexcept {
    return parked_.load(std::memory_order_relaxed);
  }

 private:
  class reader;

  [[nodiscard]] gate_rules::waiting look(task_state& t, timing::ticks now,
                                         scoped_lock& held) noexcept;
  void put_driver(task_state& t, bool slice_over, timing::ticks now, bool at_the_end,
                  scoped_lock& held) noexcept;
  [[nodiscard]] static bool has_entry(task_state& t) noexcept;
  void bring_up_to_date(task_state& t, timing::ticks now) noexcept;
  [[nodiscard]] std::size_t park(const passing& p, scoped_lock& held) noexcept;
  void requeue(task_state& t, scoped_lock& held) noexcept;
  [[nodiscard]] void* take_next(task_state& t, scoped_lock& held) noexcept;
  [[nodiscard]] static bool older(std::uint32_t a, std::uint32_t b) noexcept {
    return static_cast<std::int32_t>(a - b) < 0;
  }
  void set_gate(task_state& t, scoped_lock& held) noexcept;
  void add_waiting(task_state& t) noexcept;
  void remove_waiting(task_state& t) noexcept;
  [[nodiscard]] timing::ticks served_since_put(timing::ticks now) const noexcept;
  [[nodiscard]] task_state* least(timing::ticks now) noexcept;
  static bool later(const task_state* a, const task_state* b) noexcept;

  const handler_order order_;
  const bool shadow_;
  const timing::ticks quantum_;
  counters& counters_;
  std::atomic<std::uint32_t> workers_{0};  ///< threads in run functions of ours; relaxed
  std::atomic<std::uint64_t> parked_{0};   ///< written under the mutex, read relaxed

  std::mutex mutex_;  ///< guards the rest
  asio_port* port_ = nullptr;
  gate_rules rules_;
  std::vector<task_state*> waiting_;  ///< tasks with parked operations; a heap, least CPU first
  std::uint64_t arrivals_ = 0;
  std::uint32_t looks_ = 0;
  std::uint32_t numbers_ = 0;  ///< the last number of a parked operation; never 0 while in use
  std::uint32_t running_ = 0;  ///< number of the operation that release() returned last, or 0
  /// Number of the operation that called stop(); 0 if it was not parked.
  std::atomic<std::uint32_t> stopped_by_{0};
  bool driver_queued_ = false;
  const hooks::thread_state* put_by_ = nullptr;  ///< the thread that queued the driver last
  timing::ticks charged_then_ = 0;               ///< thread_state::charged of it at that time
};

}  // namespace asio_pulse::detail
