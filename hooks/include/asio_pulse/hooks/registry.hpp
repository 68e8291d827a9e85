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

/// The hooks of a program. Empty functions are not called. Every member has an initialiser, so that
/// a braced list may name only some of them without a warning.
struct hook_set {
  std::function<void(const task_event&)> task_spawned{};
  std::function<void(const poll_event&)> before_poll{};
  std::function<void(const poll_event&)> after_poll{};
  std::function<void(const tier_event&)> tier_changed{};
  std::function<void(const stall_event&)> stall{};
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
    return wants_polls_->load(std::memory_order_relaxed);
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

  /// How many calls of hooks have ended with an exception.
  [[nodiscard]] std::uint64_t hook_errors() const noexcept;

 private:
  std::shared_ptr<state> state_;
  const std::atomic<bool>* wants_polls_;  // in *state_
};

}  // namespace asio_pulse::hooks
