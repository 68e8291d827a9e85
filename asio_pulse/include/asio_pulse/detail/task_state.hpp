// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/share.hpp>
#include <asio_pulse/hooks/task_record.hpp>
#include <asio_pulse/report.hpp>
#include <asio_pulse/tier_manager.hpp>

#include <atomic>
#include <cstdint>
#include <memory>

namespace asio_pulse::detail {

class context_core;
class serial_queue;

/// Operations of a task that are held back, the oldest first. It is a list of Asio's, so it is
/// untyped here.
struct parked_work {
  void* front = nullptr;
  void* back = nullptr;
};

/// What the gate keeps for a task from the first time that it compares the task with others.
/// Guarded by the gate's mutex.
struct gate_entry {
  share used;
  parked_work parked;
  timing::ticks tag = 0;      ///< share::tag when the task was added to the waiting ones
  std::uint64_t arrival = 0;  ///< the order of tasks with the same tag
  bool held_lately = false;   ///< an operation was held back since this was last asked
};

/// A task: the cache line of the poll path, and everything else.
struct task_state final : hooks::task_record {
  task_state(context_core& core, std::uint64_t its_id, std::unique_ptr<char[]> text) noexcept;
  ~task_state();

  [[nodiscard]] context_core& core() const noexcept;
  /// Whether it is a connection's own task, which the program did not declare.
  [[nodiscard]] bool of_connection() const noexcept { return accepted || connected; }
  /// Whether the program declared it.
  [[nodiscard]] bool declared() const noexcept { return !of_connection() && id() != 0; }
  /// Unique within the context; 0 only for the unnamed task. The low bits are task_record::number.
  [[nodiscard]] std::uint64_t id() const noexcept { return std::uint64_t{id_high} << 32 | number; }

  const std::unique_ptr<char[]> name;  ///< null-terminated
  /// Used under `deciding` only.
  tier_state tiers;
  report_slot reports;
  /// The slot for reports about its stalls. The watchdog makes it with the first stall, and only
  /// the watchdog uses it.
  std::unique_ptr<report_slot> stall_reports;
  /// The links of the core's list of tasks, guarded by the core's mutex.
  task_state* previous = nullptr;
  task_state* next = nullptr;
  /// Set once, under the gate's mutex.
  std::unique_ptr<gate_entry> gate;
  /// The task that accepted the connection to which this one belongs; one reference. Constant.
  task_state* listener = nullptr;
  /// The handlers of the task's executor, in order. Made by the first get_executor(); never
  /// replaced.
  std::atomic<serial_queue*> serial{nullptr};
  /// A copy of tiers.level for readers on any thread. Relaxed: it publishes nothing else.
  std::atomic<tier> level{tier::monitor};
  /// A hint came while the task ran, so its next operation goes behind all others, once. Relaxed:
  /// it publishes nothing. Set under the gate's mutex, together with `gated`.
  std::atomic<bool> deferred{false};
  /// Its connection's socket was closed, so what it has left behind becomes unnamed work. Relaxed:
  /// it publishes nothing. Set before `gated`.
  std::atomic<bool> ended{false};
  /// It has parked operations. Written under the gate's mutex; relaxed for other readers.
  std::atomic<bool> held{false};
  // Constant.
  std::uint32_t id_high : 29;
  bool isolatable : 1 = false;
  bool accepted : 1 = false;   ///< the task of an accepted connection
  bool connected : 1 = false;  ///< the task of an outgoing connection
  /// Its CPU time at the last snapshot, in units of 256 ticks: 32 bits wrap only after some
  /// minutes. Relaxed: there is one snapshot at a time.
  std::atomic<std::uint32_t> seen_cost{0};
  /// What it used between the last two snapshots, in the same units. Relaxed, for the same reason.
  std::atomic<std::uint32_t> recent_cost{0};
};
static_assert(sizeof(task_state) <= 192, "tasks are many");

}  // namespace asio_pulse::detail
