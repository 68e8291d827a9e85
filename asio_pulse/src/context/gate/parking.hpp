// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "gate_rules.hpp"
#include "turn_policy.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/scoped_lock.hpp>
#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/scheduling_policy.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace asio_pulse::detail {

/// A task that waits under a policy.
struct task_turn : turn {
  task_state* task = nullptr;  ///< null for what stays in the queue
  timing::ticks ready = 0;     ///< when its oldest operation that waits was put there
  bool over_budget = false;    ///< its group is, so that it waits for the others
};

/// What options::policy and options::custom_policy ask for. Both pointers are empty for round_robin.
struct chosen_policy {
  std::unique_ptr<turn_policy> own;           ///< one of ours
  std::shared_ptr<scheduling_policy> custom;  ///< one of the program's
  bool by_group = false;                      ///< it uses turn::group

  [[nodiscard]] explicit operator bool() const noexcept {
    return own != nullptr || custom != nullptr;
  }
};

/// Makes the policy that the options ask for. Calls the program's function, so no lock may be held.
///
/// \par Errors  std::bad_alloc; std::invalid_argument if the program's function returns null; what that
///              throws.
[[nodiscard]] chosen_policy make_policy(const options& o);

/// The gate of one context: which operations are held back, where they wait, and when they run.
///
/// gate_rules decides. This class reads Asio's queue for it, through the asio_port, and keeps the
/// tasks that have parked operations.
///
/// \par Thread safety  All members may be called from any thread. Asio's scheduler mutex is taken
///                     inside `mutex_`, never outside.
class parking {
 public:
  /// While operations of tasks that only the policy may hold back need not ask, `calm_until` says so; see
  /// path_arbiter::calm_until.
  parking(const options& o, counters& counted, std::atomic<timing::ticks>& calm_until);
  ~parking();

  /// Takes over `order`, `shadow`, `quantum`, `min_slice` and `saturation`. In shadow mode nothing is parked, unless
  /// it is behind what its task has parked before; that runs at the driver's next turn.
  void configure(const options& o) noexcept;
  /// Uses another policy from now on, and returns the previous one. Parked operations stay parked.
  [[nodiscard]] chosen_policy use(chosen_policy p) noexcept;

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

  /// Whether there is a policy other than round_robin, and it may hold operations back.
  /// \par Memory order  Relaxed: it is checked again under the mutex.
  [[nodiscard]] bool by_policy() const noexcept {
    return by_policy_.load(std::memory_order_relaxed);
  }
  enum class pressure : std::uint8_t {
    none,
    saturated,  ///< the policy decides now
    unknown     ///< not known lately: a probe should be put into the queue
  };
  /// How long operations wait in the queue, if by_policy().
  [[nodiscard]] pressure pressed(timing::ticks now) noexcept;
  /// A probe is in the queue since `now`.
  void probing(timing::ticks now) noexcept;
  /// A probe has waited for `delay`, until `now`. Returns false if that says nothing about operations
  /// of tasks: the policy gave them their turns while the probe stayed in the queue.
  bool probed(timing::ticks delay, timing::ticks now) noexcept;
  /// The longest wait for a turn in the last options::admission.interval. Empty unless the policy
  /// decides now.
  [[nodiscard]] std::optional<timing::ticks> longest_wait(timing::ticks now) const noexcept;
  /// While the policy decides: how long what release() has returned had waited. Empty otherwise, and
  /// more often than once in `every`.
  [[nodiscard]] std::optional<timing::ticks> wait_to_note(timing::ticks every) noexcept;
  /// The weight of a group has changed.
  void weight_changed(group_state& g) noexcept;
  /// The task is in another group. The group before must outlast this call.
  void group_changed(task_state& t) noexcept;
  /// Whether the custom policy has failed, and that was not reported yet.
  [[nodiscard]] bool fault_to_report() noexcept {
    return fault_.load(std::memory_order_relaxed) == fault::made &&
           fault_.exchange(fault::reported, std::memory_order_relaxed) == fault::made;
  }

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
    bool by_policy;    ///< it may be held back: the context is saturated
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
    hooks::yield_reason why = hooks::yield_reason::held;
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
  class sweeper;

  // ---- while the context is saturated (policy_turns.cpp)

  void set_saturated() noexcept;
  void set_calm(timing::ticks since) noexcept;
  [[nodiscard]] bool start_turns(timing::ticks now, scoped_lock& held) noexcept;
  void end_turns(scoped_lock& held) noexcept;
  [[nodiscard]] static bool has_turn(task_state& t) noexcept;
  void add_turn(task_state& t, timing::ticks now) noexcept;
  void remove_turn(task_turn& w, timing::ticks now) noexcept;
  void wait_in_policy(task_turn& w, timing::ticks now) noexcept;
  void show_others(bool there, timing::ticks now) noexcept;
  void refill(timing::ticks now) noexcept;
  [[nodiscard]] task_turn* next_turn(timing::ticks now, turn_policy::mark& what,
                                     scoped_lock& held) noexcept;
  [[nodiscard]] task_turn* ask_program(timing::ticks now, scoped_lock& held) noexcept;
  [[nodiscard]] void* release_by_policy(timing::ticks now, scoped_lock& held) noexcept;
  void note_choice(turn_policy::mark what, bool others) noexcept;
  void look_ahead() noexcept;
  void note_wait(const task_turn& w, timing::ticks now) noexcept;
  void charge_choice() noexcept;
  [[nodiscard]] fair_group* shares_of(const task_state& t) const noexcept;
  void learn_posted(const void* kind) noexcept;
  [[nodiscard]] bool known_as_posted(const void* kind) const noexcept;
  /// The number of a new parked operation. Numbers grow with time, so that they say when it was parked.
  [[nodiscard]] std::uint32_t next_number(timing::ticks now) noexcept;
  [[nodiscard]] timing::ticks parked_at(const task_state& t, timing::ticks now) const noexcept;
  [[nodiscard]] std::size_t tasks_waiting() const noexcept {
    return waiting_.size() + turns_count_;
  }

  [[nodiscard]] gate_rules::waiting look(task_state& t, timing::ticks now,
                                         scoped_lock& held) noexcept;
  void put_driver(task_state& t, bool slice_over, timing::ticks now, bool at_the_end,
                  scoped_lock& held) noexcept;
  [[nodiscard]] static bool has_entry(task_state& t) noexcept;
  void bring_up_to_date(task_state& t, timing::ticks now) noexcept;
  [[nodiscard]] std::size_t park(const passing& p, scoped_lock& held) noexcept;
  void requeue(task_state& t, timing::ticks now, scoped_lock& held) noexcept;
  [[nodiscard]] void* take_next(task_state& t, timing::ticks now, scoped_lock& held) noexcept;
  [[nodiscard]] static bool older(std::uint32_t a, std::uint32_t b) noexcept {
    return static_cast<std::int32_t>(a - b) < 0;
  }
  void set_gate(task_state& t, scoped_lock& held) noexcept;
  [[nodiscard]] bool room_for_another(std::size_t besides = 0) noexcept;
  void add_waiting(task_state& t, timing::ticks now) noexcept;
  void add_to_heap(task_state& t) noexcept;
  void remove_waiting(task_state& t, timing::ticks now) noexcept;
  [[nodiscard]] timing::ticks served_since_put(timing::ticks now) const noexcept;
  [[nodiscard]] task_state* least(timing::ticks now) noexcept;
  static bool later(const task_state* a, const task_state* b) noexcept;

  const preemptible_handlers fibers_;  ///< whose handlers run on fibers
  std::atomic<handler_order> order_;   ///< written under the mutex, read relaxed
  counters& counters_;
  std::atomic<std::uint32_t> workers_{0};  ///< threads in run functions of ours; relaxed
  std::atomic<std::uint64_t> parked_{0};   ///< written under the mutex, read relaxed

  std::mutex mutex_;  ///< guards the rest
  asio_port* port_ = nullptr;
  bool shadow_;
  timing::ticks quantum_;
  gate_rules rules_;
  std::vector<task_state*> waiting_;  ///< tasks with parked operations; a heap, least CPU first
  std::uint64_t arrivals_ = 0;
  std::uint32_t looks_ = 0;
  std::uint32_t numbers_ = 0;      ///< the last number of a parked operation; never 0 while in use
  timing::ticks numbered_at_ = 0;  ///< when that was given
  std::uint32_t running_ = 0;      ///< number of the operation that release() returned last, or 0
  /// Number of the operation that called stop(); 0 if it was not parked.
  std::atomic<std::uint32_t> stopped_by_{0};
  bool driver_queued_ = false;

  // The policy. Also guarded by the mutex, except for what is atomic.
  enum class fault : std::uint8_t { none, made, reported };
  struct choice_of_thread {
    const hooks::thread_state* thread = nullptr;
    timing::ticks charged = 0;  ///< thread_state::charged when it was made
    turn_policy::mark what = 0;
    bool others = false;  ///< it was what stays in the queue
    bool open = false;
  };
  // Relaxed, all four: they publish nothing, and a decision is made under the mutex.
  std::atomic<bool> by_policy_{false};
  std::atomic<bool> saturated_{false};
  std::atomic<timing::ticks>& calm_until_;
  std::atomic<timing::ticks> saturation_;
  std::atomic<fault> fault_{fault::none};
  std::atomic<timing::ticks> probe_posted_{0};  ///< 0: no probe is queued
  std::atomic<timing::ticks> probed_at_{0};
  // Relaxed, as the figures that they are. Written under the mutex.
  std::atomic<bool> by_turns_{false};           ///< a copy of `turns_taken_`
  std::atomic<timing::ticks> turns_ended_{0};   ///< when the policy ceased to decide
  std::atomic<timing::ticks> longest_wait_{0};  ///< see longest_wait()
  std::atomic<timing::ticks> longest_at_{0};    ///< until when that lasted
  std::atomic<timing::ticks> interval_;         ///< options::admission.interval
  timing::ticks wait_ = 0;                      ///< of what release() returned last
  timing::ticks waited_until_ = 0;              ///< 0: it is noted, or there was none
  timing::ticks noted_at_ = 0;
  timing::ticks slice_;
  const hooks::path_arbiter* home_ = nullptr;  ///< of the tasks; set before the first one waits
  chosen_policy policy_;
  bool turns_taken_ = false;  ///< the policy decides: what waits is in `turns_`, not in `waiting_`
  turn_list<in_turn> turns_;  ///< in the order in which they began to wait for their turn
  std::size_t turns_count_ = 0;  ///< of tasks
  turn_list<in_class> over_;  ///< those that wait for the others, as their groups are over budget
  task_turn others_;          ///< what stays in the queue
  bool others_wait_ = false;
  std::uint64_t changes_ =
      0;  ///< grows when a turn ends, so that its address is not valid any more
  timing::ticks reactor_at_ = 0;  ///< when the reactor was next
  timing::ticks went_behind_ =
      0;  ///< when the driver went behind entries that had to be seen; or 0
  timing::ticks chooses_until_ = 0;             ///< until then the driver looks for no new entries
  timing::ticks crowded_at_ = 0;                ///< when two or more operations waited
  std::vector<choice_of_thread> choices_;       ///< one for each thread, as far as there is memory
  std::array<const void*, 64> posted_kinds_{};  ///< types of operations that are not waits
  std::vector<scheduling_policy::work> shown_;  ///< to the program's policy
  std::vector<task_turn*> shown_turns_;
  const hooks::thread_state* put_by_ = nullptr;  ///< the thread that queued the driver last
  timing::ticks charged_then_ = 0;               ///< thread_state::charged of it at that time
};

}  // namespace asio_pulse::detail
