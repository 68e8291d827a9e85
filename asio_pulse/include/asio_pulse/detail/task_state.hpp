// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/group_slot.hpp>
#include <asio_pulse/detail/recent_cost.hpp>
#include <asio_pulse/detail/share.hpp>
#include <asio_pulse/hooks/task_record.hpp>
#include <asio_pulse/options.hpp>
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

struct task_turn;

/// What the gate keeps for a task from the first time that it compares the task with others.
/// Guarded by the gate's mutex.
struct gate_entry {
  gate_entry() noexcept;
  gate_entry(const gate_entry&) = delete;
  gate_entry& operator=(const gate_entry&) = delete;
  ~gate_entry();

  share used;
  parked_work parked;
  timing::ticks tag = 0;            ///< share::tag when the task was added to the waiting ones
  std::uint64_t arrival = 0;        ///< the order of tasks with the same tag
  bool held_lately = false;         ///< an operation was held back since this was last asked
  std::unique_ptr<task_turn> turn;  ///< made when it first waits under a policy
};

/// What few tasks have.
struct task_extras {
  report_slot reports;        ///< for reports about it, except those about its stalls
  report_slot stall_reports;  ///< for reports about its stalls; only the watchdog uses it
  group_slot group;
  // Constant once the task has been published.
  unsigned priority = task_options{}.priority;
  /// When its work should be started, for scheduling::deadline; zero for no deadline. Relative to when
  /// the work is ready or, if `due`, a point in time.
  timing::ticks deadline = 0;
  bool due = false;
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
  /// The group that it is in, or none.
  [[nodiscard]] group_ref group() const noexcept {
    const task_extras* const e = extras.load(std::memory_order_acquire);
    return e != nullptr ? e->group.now() : group_ref();
  }
  /// Under the gate's mutex.
  [[nodiscard]] bool has_parked() const noexcept {
    return gate != nullptr && gate->parked.front != nullptr;
  }
  /// Calls `f(group_state*)` with the group, or null, unless the task has never been in one. The group
  /// lasts as long as the call.
  template <class F>
  void with_group(F f) const {
    if (is_grouped()) extras.load(std::memory_order_acquire)->group.with(f);
  }
  /// The same, but takes no reference, and does not wait: does nothing while the task is being moved.
  template <class F>
  void with_group_at_once(F f) const {
    if (is_grouped()) extras.load(std::memory_order_acquire)->group.with_at_once(f);
  }
  /// The same as with_group() for the thread that charges the task alone; see group_slot::with_alone().
  template <class F>
  void with_group_alone(F f) const {
    if (const task_extras* const e = extras.load(std::memory_order_acquire)) e->group.with_alone(f);
  }
  /// Makes `extras` if there are none. Null if there is no memory.
  [[nodiscard]] task_extras* make_extras() noexcept;
  /// Unique within the context; 0 only for the unnamed task. The low bits are task_record::number.
  [[nodiscard]] std::uint64_t id() const noexcept { return std::uint64_t{id_high} << 32 | number; }
  /// The id of the task whose work accepted or opened the connection; 0 for none.
  [[nodiscard]] std::uint64_t parent_id() const noexcept {
    if (!accepted) return opener;
    return listener != nullptr ? listener->id() : 0;
  }

  const std::unique_ptr<char[]> name;  ///< null-terminated
  /// Used under `deciding` only.
  tier_state tiers;
  /// Made with the task if it is in a group or `ranked`, otherwise when it joins a group, or with the
  /// first report about it. Never replaced. Release publishes it, and pairs with
  /// acquire.
  std::atomic<task_extras*> extras{nullptr};
  /// The links of the core's list of tasks, guarded by the core's mutex.
  task_state* previous = nullptr;
  task_state* next = nullptr;
  /// Set once, under the gate's mutex.
  std::unique_ptr<gate_entry> gate;
  /// Whose work accepted or opened the connection to which this task belongs. Constant.
  union {
    std::uint64_t opener = 0;  ///< the id of that task, or 0 for none
    task_state* listener;      ///< if `accepted`: the task, with one reference, or null
  };
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
  std::uint32_t id_high : 28;
  bool isolatable : 1 = false;
  bool accepted : 1 = false;   ///< the task of an accepted connection
  bool connected : 1 = false;  ///< the task of an outgoing connection
  bool ranked : 1 = false;     ///< it has a priority or a deadline of its own; see `extras`
  recent_cost recent;
};
static_assert(sizeof(task_state) <= 192, "tasks are many");

}  // namespace asio_pulse::detail
