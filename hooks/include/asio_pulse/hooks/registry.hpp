// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>

namespace asio_pulse::hooks {

/// A handler is about to run (the cost is 0), or has run. The views are valid only during the call.
struct poll_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  std::string_view site{};
  std::thread::id thread{};
  timing::ticks start = 0;
  timing::ticks cost = 0;
  bool exact = false;
};

/// A task was made.
struct task_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  std::uint64_t parent_id = 0;  ///< 0 if it has no parent
};

/// A task changed its tier; tiers are numbered 0 (Monitor) to 3 (Isolate).
struct tier_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  int from = 0;
  int to = 0;
};

/// A poll has been running for longer than the stall threshold, and still is.
struct stall_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  std::string_view site{};
  std::thread::id thread{};
  std::chrono::nanoseconds so_far{0};
};

/// Why work had to stop, or to wait, so that other work goes first.
enum class yield_reason : std::uint8_t {
  hint,      ///< a checkpoint was told to yield: the kernel has sent a hint that other threads wait
  quantum,   ///< a checkpoint was told to yield: the poll has lasted for options::quantum
  budget,    ///< a checkpoint was told to yield: the task's budget is used up, and the poll has
             ///< lasted for options::min_slice
  held,      ///< an operation was held back at its turn: its task is over its budget, and work that
             ///< has had less of the CPU waits; or it waits for its turn under options::policy
  queued,    ///< an operation was held back: older ones of its task are, and it stays behind them
  deferred,  ///< an operation was held back once: a hint came in an earlier poll of its task
  strand,    ///< a batch of a strand was cut short
  turn,      ///< a turn of a task's executor ended while handlers were left
  forced     ///< none of these: the build always preempts (ASIO_PULSE_ALWAYS_PREEMPT)
};

/// "hint", "quantum" and so on: the name of the enumerator.
[[nodiscard]] std::string_view to_string(yield_reason why) noexcept;

/// Work had to yield. A checkpoint is told to yield; whether it does is up to the handler. If it
/// goes on instead, its next checkpoint is told again, with an event of its own. Nothing yields in
/// shadow mode. The views are valid only during the call.
///
/// statistics counts the same events: the first three reasons are `checkpoint_yields`, the sum of
/// `operations` of the next three is `yields`, and `strand` is `strand_breaks`. A `forced` event is
/// one of the first two kinds.
struct yield_event {
  std::uint64_t task_id = 0;  ///< 0: work of no task
  std::string_view task_name{};
  /// The handler that stops or waits. For `turn`, and for a strand over a task's executor, the drain.
  std::string_view site{};
  std::thread::id thread{};
  yield_reason reason = yield_reason::hint;
  /// How many operations are held back together, if an operation is; otherwise 1.
  std::uint32_t operations = 1;
};

/// A task has ended: its last handle, executor and operation are gone. The totals are final. They
/// are what task::stats() would return. The views are valid only during the call.
struct completion_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  std::uint64_t parent_id = 0;  ///< as in task_event
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
};

/// Options of the context, the budget of a task, or the weight of a group were changed while the
/// context runs: by the program, or by pulse_top. The views are valid only during the call. A change
/// by pulse_top is announced on the library's thread that answers it, and the end of the context
/// waits for these calls. Events of updates on several threads may arrive in another order than that
/// of the updates, which are numbered from 1.
struct options_event {
  std::uint64_t number = 0;
  std::uint64_t task_id = 0;  ///< 0: options of the context
  std::string_view task_name{};
  std::string_view changed{};  ///< the names of the options: "quantum, accepted.budget"
  /// Empty: no group. Otherwise its path, "tenant/user": a "/" or "\" in a name follows a "\".
  std::string_view group{};
};

/// The hooks of a program. Empty functions are not called. Every member has an initialiser, so that
/// a braced list may name only some of them without a warning.
struct hook_set {
  std::function<void(const task_event&)> task_spawned{};
  std::function<void(const poll_event&)> before_poll{};
  std::function<void(const poll_event&)> after_poll{};
  std::function<void(const tier_event&)> tier_changed{};
  std::function<void(const stall_event&)> stall{};
  /// Called on the thread whose work yields: in the poll (at a checkpoint, on the stack of a fiber
  /// if the handler runs on one), between two polls, or in the drain.
  std::function<void(const yield_event&)> yielded{};
  /// Called exactly once for each task, on the thread that has released the last reference: a
  /// worker, another thread of the program, or the watchdog's.
  ///
  /// A worker keeps the task that it has polled last, until it polls another one or leaves its run
  /// function. The task ends no earlier.
  ///
  /// A task that the context's destructor ends is announced too, and so is one that outlives its
  /// context, when its last handle goes. The hook must not use the context then. Disconnect before
  /// the context is destroyed to get no such calls. After exit() the watchdog's thread does not call
  /// it.
  ///
  /// What the hook starts belongs to no task, unless it names one. A task that the hook makes and
  /// lets go of ends inside the call, with an event of its own.
  std::function<void(const completion_event&)> completed{};
  std::function<void(const options_event&)> options_changed{};
};

/// The hooks of a program. They can be installed and removed while other threads call them.
///
/// Calling the hooks takes no lock and does not allocate. The hooks are in nodes that are reused
/// and not freed before the registry, so the list of nodes needs no protection. Each node counts
/// the calls in progress, spread over several cache lines, and a removal waits for them.
///
/// A hook that throws is counted in hook_errors() and stays installed; the exception is swallowed.
/// Hooks run in no particular order.
///
/// The library holds no lock while it calls a hook. A hook may make tasks, post, and install or
/// remove hooks. Inside a hook should_yield() returns false, so that no hook is suspended; in
/// handlers that the hook runs by polling a context it answers as elsewhere.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe, except for the destructor: no
///                     hook may be running. Connections may outlive the registry.
class registry {
  class state;
  struct node;

 public:
  /// Keeps a hook_set installed, and removes it when destroyed.
  ///
  /// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
  class [[nodiscard]] connection {
   public:
    connection() noexcept = default;
    connection(connection&& other) noexcept;
    connection& operator=(connection&& other) noexcept;
    ~connection();

    /// Removes the hooks. When the call returns, none of them runs, and none will be called again.
    /// If one of these hooks calls it, it does not wait; the hooks are not called again, and are
    /// destroyed when the last call has returned.
    ///
    /// \par Blocking  Waits for calls of these hooks in other threads. Two hooks that remove each
    ///                other on two threads at the same time deadlock.
    void disconnect() noexcept;

    [[nodiscard]] bool connected() const noexcept { return node_ != nullptr; }

   private:
    friend class registry;
    connection(std::shared_ptr<state> owner, node* where) noexcept;

    std::shared_ptr<state> state_;
    node* node_ = nullptr;
  };

  registry();
  ~registry();
  registry(const registry&) = delete;
  registry& operator=(const registry&) = delete;

  /// Installs the hooks. They may be called before install() returns.
  ///
  /// \par Cost    A mutex, and an allocation unless the node of a removed hook is free.
  /// \par Errors  std::bad_alloc; then nothing is installed.
  [[nodiscard]] connection install(hook_set hooks);

  /// Whether a before_poll or after_poll hook is installed.
  ///
  /// \par Cost          One relaxed load.
  /// \par Memory order  Relaxed: it only saves the work of making an event. Calling without hooks
  ///                    is harmless, and a new hook may miss polls that are running.
  [[nodiscard]] bool wants_polls() const noexcept {
    return wanted_->polls.load(std::memory_order_relaxed);
  }
  /// Whether a yielded hook is installed; as wants_polls().
  [[nodiscard]] bool wants_yields() const noexcept {
    return wanted_->yields.load(std::memory_order_relaxed);
  }
  /// Whether a completed hook is installed; as wants_polls().
  [[nodiscard]] bool wants_completions() const noexcept {
    return wanted_->completions.load(std::memory_order_relaxed);
  }

  /// Calls `changed` at once with the current wants_polls(), and again whenever that changes, in
  /// order and one call at a time. Null removes the listener; when the call returns, the listener
  /// is not running. The listener must not call this registry.
  void set_listener(void (*changed)(void* context, bool wants_polls), void* context) noexcept;

  /// Calls every hook of the kind.
  ///
  /// \par Cost    A load for each node; for each hook of the kind, two uncontended atomic
  ///              additions.
  /// \par Errors  None (noexcept); see hook_errors().
  void task_spawned(const task_event& event) noexcept;
  void before_poll(const poll_event& event) noexcept;
  void after_poll(const poll_event& event) noexcept;
  void tier_changed(const tier_event& event) noexcept;
  void stall(const stall_event& event) noexcept;
  void yielded(const yield_event& event) noexcept;
  void completed(const completion_event& event) noexcept;

  /// Whether the calling thread is inside a hook, of any registry, and not in a poll that the hook
  /// runs.
  [[nodiscard]] static bool calling() noexcept;
  void options_changed(const options_event& event) noexcept;

  /// How many calls of hooks have ended with an exception.
  [[nodiscard]] std::uint64_t hook_errors() const noexcept;

 private:
  /// Which kinds of hooks are installed, of those that are asked for. Relaxed; see wants_polls().
  struct wanted {
    std::atomic<bool> polls{false};
    std::atomic<bool> yields{false};
    std::atomic<bool> completions{false};
  };

  std::shared_ptr<state> state_;
  const wanted* wanted_;  // in *state_
};

}  // namespace asio_pulse::hooks
