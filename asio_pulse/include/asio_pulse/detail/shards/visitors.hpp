// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>

/// \file
/// Handles of sessions outlive the shards. A thread uses the shards through a handle only as a visitor.

namespace asio_pulse::detail {

/// Lets threads in until it is closed, and waits for those that are inside.
///
/// \par Thread safety  Any thread.
class visitors {
 public:
  /// \par Cost  Two locked instructions.
  class visit {
   public:
    explicit visit(visitors& of) noexcept : of_(of) {
      // These two, and the two in close(), are sequentially consistent: either this sees that it is
      // closed, or close() sees the visitor.
      of_.inside_.fetch_add(1, std::memory_order_seq_cst);
      admitted_ = !of_.closed_.load(std::memory_order_seq_cst);
    }
    // Release: pairs with the load in close(), so that all that was done inside comes before its end.
    ~visit() { of_.inside_.fetch_sub(1, std::memory_order_release); }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    [[nodiscard]] explicit operator bool() const noexcept { return admitted_; }

   private:
    visitors& of_;
    bool admitted_;
  };

  /// Lets no more threads in, and returns when none is left inside.
  void close() noexcept {
    closed_.store(true, std::memory_order_seq_cst);  // pairs with the load in visit
    // Acquire pairs with ~visit(). A thread inside moves one session, which takes microseconds.
    while (inside_.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
  }

 private:
  std::atomic<std::size_t> inside_{0};
  std::atomic<bool> closed_{false};
};

}  // namespace asio_pulse::detail
