// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/task_record.hpp>
#include <asio_pulse/report.hpp>
#include <asio_pulse/tier_manager.hpp>
#include <atomic>
#include <cstdint>
#include <memory>

namespace asio_pulse::detail {

class context_core;
class serial_queue;

/// Operations of one task that were put back, oldest first, and the task's place among those that
/// wait. Made at the first operation put back. Guarded by the mutex of the context's core; the list
/// is Asio's, so it is untyped here.
struct parked_work {
  void* front = nullptr;
  void* back = nullptr;
  struct task_state* next = nullptr;  ///< in the ring of tasks with parked work
};

/// A task: the poll path's cache line and what lies beside it.
struct task_state final : hooks::task_record {
  task_state(context_core& core, std::uint64_t its_id, std::unique_ptr<char[]> text) noexcept;
  ~task_state();

  [[nodiscard]] context_core& core() const noexcept;

  const std::uint64_t id;
  const std::unique_ptr<char[]> name;  ///< null-terminated
  /// Decides under `deciding` only.
  tier_state tiers;
  report_slot reports;
  /// Of reports about its stalls. Made by the watchdog with the first one, which alone uses it.
  std::unique_ptr<report_slot> stall_reports;
  /// In the core's list of tasks, guarded by its mutex.
  task_state* previous = nullptr;
  task_state* next = nullptr;
  /// Written under the core's mutex.
  std::unique_ptr<parked_work> parked;
  /// The task that accepted the connection that this one stands for; one reference. Constant.
  task_state* listener = nullptr;
  /// What the task's executor runs, in order. Made by the first get_executor(); never replaced.
  std::atomic<serial_queue*> serial{nullptr};
  /// A copy of tiers.level for readers on any thread; relaxed, it publishes nothing else.
  std::atomic<tier> level{tier::monitor};
  /// A hint came while it ran: its next operation goes behind everybody else's, once. Relaxed: it
  /// publishes nothing; set under the core's mutex, with the gate.
  std::atomic<bool> deferred{false};
  bool isolatable = false;  ///< constant
  bool accepted = false;    ///< constant: born of an accept
  /// What it used between the last two snapshots, as task_record::seen_cost; relaxed, as that.
  std::atomic<std::uint32_t> recent_cost{0};
};
static_assert(sizeof(task_state) <= 192, "tasks are many");

}  // namespace asio_pulse::detail
