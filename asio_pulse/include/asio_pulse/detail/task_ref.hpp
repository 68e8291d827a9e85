// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <utility>

namespace asio_pulse::detail {

/// A counted reference to a task.
class task_ref {
 public:
  task_ref() noexcept = default;
  /// Takes over the caller's reference.
  explicit task_ref(task_state* adopted) noexcept : t_(adopted) {}
  /// Adds a reference.
  explicit task_ref(task_state& t) noexcept : t_(&t) { hooks::acquire(t); }
  task_ref(const task_ref& other) noexcept : t_(other.t_) {
    if (t_ != nullptr) hooks::acquire(*t_);
  }
  task_ref(task_ref&& other) noexcept : t_(std::exchange(other.t_, nullptr)) {}
  task_ref& operator=(task_ref other) noexcept {
    std::swap(t_, other.t_);
    return *this;
  }
  ~task_ref() {
    if (t_ != nullptr) hooks::release(*t_);
  }

  [[nodiscard]] task_state* get() const noexcept { return t_; }
  /// Hands the reference to the caller.
  [[nodiscard]] task_state* release() noexcept { return std::exchange(t_, nullptr); }
  task_state& operator*() const noexcept { return *t_; }
  task_state* operator->() const noexcept { return t_; }

 private:
  task_state* t_ = nullptr;
};

/// Operations that are created in this scope belong to the task, which must outlive the scope. Code of
/// the program in it may be suspended by its checks, so its end looks up the thread again.
class label_scope {
 public:
  explicit label_scope(hooks::task_record* t) noexcept : before_(hooks::this_thread(), t) {}
  ~label_scope() { before_.restore(hooks::this_thread_by_now()); }
  label_scope(const label_scope&) = delete;
  label_scope& operator=(const label_scope&) = delete;

 private:
  hooks::label_before before_;
};

}  // namespace asio_pulse::detail
