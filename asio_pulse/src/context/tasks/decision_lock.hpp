// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/task_state.hpp>

#include <atomic>
#include <utility>

namespace asio_pulse::detail {

/// Tries to acquire the right to decide about a task's tier.
class decision_lock {
 public:
  /// A caller that finds the flag taken leaves the decision to the holder, which sees the same task
  /// a little later.
  explicit decision_lock(task_state& t) noexcept
      : flag_(t.deciding), owned_(!flag_.test_and_set(std::memory_order_acquire)) {}
  ~decision_lock() { unlock(); }
  decision_lock(const decision_lock&) = delete;
  decision_lock& operator=(const decision_lock&) = delete;
  explicit operator bool() const noexcept { return owned_; }
  void unlock() noexcept {
    if (std::exchange(owned_, false))
      flag_.clear(std::memory_order_release);  // pairs with the acquire above
  }

 private:
  std::atomic_flag& flag_;
  bool owned_;
};

}  // namespace asio_pulse::detail
