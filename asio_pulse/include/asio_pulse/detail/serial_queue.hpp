// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/poll_path.hpp>

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

namespace asio_pulse::detail {

/// A handler that was submitted to a task's executor. It carries its task, as every operation does.
struct serial_node : hooks::tracked_operation {
  using run_type = void (*)(serial_node*, bool call);
  explicit serial_node(run_type r, const hooks::site& s) noexcept : run(r), what(&s) {
    announce();
    if (s.drains || s.erased) set(names);
  }

  serial_node* next = nullptr;
  /// Moves the handler out, frees the node, and calls the handler if `call`.
  const run_type run;
  const hooks::site* const what;
};

/// The handlers of one task's executor: first in, first out, one at a time.
///
/// There is at most one driver at a time: posted to the home context or the isolation pool, or
/// running there. It is handed over under the mutex, which keeps the order and excludes overlap
/// when the task moves between threads. The part that knows Asio derives from this class:
/// serial_driver.
///
/// \par Thread safety  All members may be called from any thread.
class serial_queue {
 public:
  serial_queue() = default;
  serial_queue(const serial_queue&) = delete;
  serial_queue& operator=(const serial_queue&) = delete;
  virtual ~serial_queue() { clear(); }

  /// Appends a node. Returns true if the caller must send the driver. After close() the node is
  /// destroyed instead.
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

  /// Called by the driver: takes the oldest node. Null if the queue is empty; then the driver is
  /// dismissed, and the next one may be running already.
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

  [[nodiscard]] bool empty() const noexcept {
    const std::lock_guard lock(mutex_);
    return front_ == nullptr;
  }

  /// Whether the calling thread runs the queue's driver now.
  [[nodiscard]] bool running_in_this_thread() const noexcept {
    // Relaxed: a thread can find its own id here only if it has written it itself.
    return runner_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  void entered() noexcept { runner_.store(std::this_thread::get_id(), std::memory_order_relaxed); }
  void left() noexcept { runner_.store({}, std::memory_order_relaxed); }

  void turn_begins(timing::ticks now) noexcept { turn_started_ = now; }
  /// When the driver's turn began. For the thread that runs it only.
  [[nodiscard]] timing::ticks turn_started() const noexcept { return turn_started_; }

  [[nodiscard]] bool closed() const noexcept {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

  /// Destroys all handlers. With `for_good`, handlers that are added later are destroyed as well.
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
  timing::ticks turn_started_ = 0;
};

}  // namespace asio_pulse::detail
