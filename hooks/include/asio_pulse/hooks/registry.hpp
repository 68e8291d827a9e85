// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>

namespace asio_pulse::hooks {

/// A handler is about to run (cost 0), or has run. The views live as long as the call.
struct poll_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  std::string_view site{};
  std::thread::id thread{};
  timing::ticks start = 0;
  timing::ticks cost = 0;
  bool exact = false;
};

/// A task came into being.
struct task_event {
  std::uint64_t task_id = 0;
  std::string_view task_name{};
  std::uint64_t parent_id = 0;  ///< 0: none
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

/// What a user wants to be called for; empty functions are not called. Every member has an
/// initialiser, so that naming only some of them in braces is complete.
struct hook_set {
  std::function<void(const task_event&)> task_spawned{};
  std::function<void(const poll_event&)> before_poll{};
  std::function<void(const poll_event&)> after_poll{};
  std::function<void(const tier_event&)> tier_changed{};
  std::function<void(const stall_event&)> stall{};
};

/// User hooks, installed and removed at run time while other threads fire them.
///
/// Firing takes no lock and allocates nothing. The hooks lie in nodes that are reused, never
/// freed before the registry, so walking them needs no protection; a count of the calls in
/// progress, kept per node and spread over cache lines, is what a removal waits for.
///
/// A hook that throws is counted in hook_errors() and stays installed; the exception goes no
/// further. Hooks run in no particular order.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe, but for the destructor: no
///                     call of fire functions may be in progress. Connections may outlive it.
class registry {
  class state;
  struct node;

 public:
  /// Keeps a hook_set installed; removes it when destroyed.
  ///
  /// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
  class [[nodiscard]] connection {
   public:
    connection() noexcept = default;
    connection(connection&& other) noexcept;
    connection& operator=(connection&& other) noexcept;
    ~connection();

    /// Removes the hooks: afterwards none of them runs or will run. From inside one of these very
    /// hooks: it is not called again, nothing is waited for, and the functions are destroyed after
    /// the last call has returned.
    ///
    /// \par Blocking  Waits for calls of these hooks in other threads. Two hooks that remove each
    ///                other from two threads at once wait for ever.
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

  /// Installs the hooks: they may be called before install() returns.
  ///
  /// \par Cost    A mutex; an allocation unless a removed hook's node is free.
  /// \par Errors  Throws std::bad_alloc; then nothing is installed.
  [[nodiscard]] connection install(hook_set hooks);

  /// Whether a before_poll or after_poll hook is installed.
  ///
  /// \par Cost          One relaxed load.
  /// \par Memory order  Relaxed: a hint to skip the work of making an event. Firing without
  ///                    hooks is harmless, and a new hook misses the polls of the moment.
  [[nodiscard]] bool wants_polls() const noexcept {
    return wants_polls_->load(std::memory_order_relaxed);
  }

  /// Calls `changed` at once with the present wants_polls(), and again whenever that changes, in
  /// order and one call at a time; null stops it, and no call is in progress then. The listener
  /// must not call this registry.
  void set_listener(void (*changed)(void* context, bool wants_polls), void* context) noexcept;

  /// Calls every hook of the kind.
  ///
  /// \par Cost    No hook of the kind: a load a node. Else two uncontended atomic increments a
  /// hook. \par Errors  None (noexcept): see hook_errors().
  void task_spawned(const task_event& event) noexcept;
  void before_poll(const poll_event& event) noexcept;
  void after_poll(const poll_event& event) noexcept;
  void tier_changed(const tier_event& event) noexcept;
  void stall(const stall_event& event) noexcept;

  /// How many calls of a hook have ended in an exception.
  [[nodiscard]] std::uint64_t hook_errors() const noexcept;

 private:
  std::shared_ptr<state> state_;
  const std::atomic<bool>* wants_polls_;  // in *state_
};

}  // namespace asio_pulse::hooks
