// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/detail/task_state.hpp>

#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>

namespace asio_pulse::detail {

/// The living tasks of a context, and the totals of those that have ended.
///
/// \par Thread safety  Any thread.
class task_list {
 public:
  explicit task_list(task_state& unnamed) noexcept : unnamed_(unnamed) {}

  void add(task_state& t) noexcept;
  /// Called when the task has no references any more.
  void remove(task_state& t) noexcept;

  /// The task at this address, with one more reference, or null if there is none.
  [[nodiscard]] task_state* find(const hooks::task_record* address) const noexcept;

  /// Calls `f(task_state&)` for every task, with the list locked.
  template <class Function>
  void for_each(Function&& f) {
    const auto lock = lock_in_turn();
    for (task_state* t = first_; t != nullptr; t = t->next) f(*t);
  }
  /// Calls `look` for each task, including the unnamed one, with the list locked. The lock is
  /// released now and then in between, and a thread that waits for it then gets it first. Tasks that
  /// are added meanwhile are not seen.
  void walk(const std::function<void(task_state&)>& look);

  struct figures {
    std::uint64_t alive = 0;
    std::uint64_t ended_polls = 0;  ///< of tasks that no longer exist
    std::uint64_t ended_cost = 0;
  };
  [[nodiscard]] figures totals() const noexcept;

 private:
  [[nodiscard]] std::unique_lock<std::mutex> lock_in_turn() const;

  task_state& unnamed_;

  mutable std::mutex turn_;   ///< held by the one thread that waits for mutex_
  mutable std::mutex mutex_;  ///< guards the members below
  task_state* first_ = nullptr;
  figures totals_;
};

/// The tasks of annotated places in the source. These tasks and the core hold references to each
/// other. close(), at the end of the context, breaks the cycle.
///
/// \par Thread safety  Any thread.
class place_tasks {
 public:
  /// The place's task, or null if it has none yet or close() was called.
  [[nodiscard]] task_state* find(const void* place) const noexcept;
  /// Makes `made` the place's task, unless another thread was first. Returns the place's task, or
  /// null if close() was called.
  /// \par Errors  std::bad_alloc.
  task_state* add(const void* place, task_ref made);
  /// Releases all references. No task can be added afterwards.
  void close() noexcept;

 private:
  mutable std::mutex mutex_;  ///< guards the members below
  bool closed_ = false;
  std::unordered_map<const void*, task_state*> tasks_;  ///< holds one reference to each
};

}  // namespace asio_pulse::detail
