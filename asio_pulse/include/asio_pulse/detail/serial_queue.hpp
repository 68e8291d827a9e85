// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/poll_path.hpp>
#include <mutex>
#include <thread>
#include <utility>

namespace asio_pulse::detail {

/// A handler given to a task's executor. It carries its task like every operation does.
struct serial_node : hooks::tracked_operation {
  using run_type = void (*)(serial_node*, bool call);
  explicit serial_node(run_type r, const hooks::site& s) noexcept : run(r), what(&s) {
    if (s.drains) set(names);
  }

  serial_node* next = nullptr;
  /// Moves the handler out, frees the node, and calls the handler if `call`.
  const run_type run;
  const hooks::site* const what;
};

/// The handlers of one task's executor: first in, first out, one at a time.
///
/// At most one driver is under way: posted to the home context or to the isolation pool, or running
/// there. It is the driver's hand-over under the mutex that keeps order and excludes overlap when
/// the task moves between threads.
///
/// \par Thread safety  All members, from any thread.
class serial_queue {
 public:
  serial_queue() = default;
  serial_queue(const serial_queue&) = delete;
  serial_queue& operator=(const serial_queue&) = delete;
  ~serial_queue() { clear(); }

  /// Appends; true: the caller must send a driver. After close() the node is destroyed instead.
  [[nodiscard]] bool push(serial_node* node) noexcept {
    {
      const std::lock_guard lock(mutex_);
      if (!closed_) {
        (front_ == nullptr ? front_ : back_->next) = node;
        back_ = node;
        return !std::exchange(driven_, true);
      }
    }
    node->run(node, false);
    return false;
  }

  /// The driver takes the oldest node. Null: the queue is empty and the driver is dismissed; the
  /// next one may be running already.
  [[nodiscard]] serial_node* pop() noexcept {
    const std::lock_guard lock(mutex_);
    serial_node* node = front_;
    if (node == nullptr) {
      left();
      driven_ = false;
      return nullptr;
    }
    front_ = node->next;
    return node;
  }

  /// The calling thread runs the queue's driver now.
  [[nodiscard]] bool running_in_this_thread() const noexcept {
    // Relaxed: a thread can only find its own id here if it wrote it itself.
    return runner_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  void entered() noexcept { runner_.store(std::this_thread::get_id(), std::memory_order_relaxed); }
  void left() noexcept { runner_.store({}, std::memory_order_relaxed); }

  [[nodiscard]] bool closed() const noexcept {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

  /// Destroys every handler; those that come later too, once `for_good`.
  void clear(bool for_good = false) noexcept {
    for (;;) {
      serial_node* node;
      {
        const std::lock_guard lock(mutex_);
        closed_ = closed_ || for_good;
        node = front_;
        if (node == nullptr) return;
        front_ = node->next;
      }
      node->run(node, false);
    }
  }

 private:
  mutable std::mutex mutex_;
  serial_node* front_ = nullptr;
  serial_node* back_ = nullptr;
  bool driven_ = false;
  bool closed_ = false;
  std::atomic<std::thread::id> runner_{};
};

}  // namespace asio_pulse::detail
