// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/detail/walked_list.hpp>

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

  /// Adds the task. `prepare()` is called first, with the list locked.
  template <class Function>
  void add(task_state& t, Function prepare) noexcept {
    const auto lock = all_.lock_in_turn();
    prepare();
    all_.link(t, lock);
    ++totals_.alive;
  }
  /// Called when the task has no references any more.
  void remove(task_state& t) noexcept;

  /// The task at this address, with one more reference, or null if there is none.
  [[nodiscard]] task_state* find(const hooks::task_record* address) const noexcept;

  /// Calls `f(task_state&)` for every task, with the list locked.
  template <class Function>
  void for_each(Function&& f) {
    const auto lock = all_.lock_in_turn();
    for (task_state* t = all_.first(lock); t != nullptr; t = t->next) f(*t);
  }
  /// Calls `look` for each task, including the unnamed one, with the list locked. The lock is
  /// released now and then in between, and a thread that waits for it then gets it first. Tasks that
  /// are added meanwhile are not seen. The walk holds no reference in between, so that it is never
  /// the one that ends a task.
  void walk(const std::function<void(task_state&)>& look);

  struct figures {
    std::uint64_t alive = 0;
    std::uint64_t ended_polls = 0;  ///< of tasks that no longer exist
    std::uint64_t ended_cost = 0;
  };
  [[nodiscard]] figures totals() const noexcept;

 private:
  task_state& unnamed_;
  walked_list<task_state> all_;
  figures totals_;  ///< guarded by the lock of `all_`
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
