// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace asio_pulse::hooks {

/// A word of which one bit is a lock. The other bits are a pointer to an aligned object, or flags.
///
/// \par Thread safety  Any thread.
class locked_word {
 public:
  static constexpr std::uintptr_t locked = 1;

  /// Waits for the lock. Returns the word without it.
  ///
  /// \par Memory order  Acquire. Pairs with unlock(), for what the previous holder did, such as
  ///                    taking or releasing a reference. Sequentially consistent for
  ///                    asio_pulse::detail::group_slot.
  [[nodiscard]] std::uintptr_t lock() noexcept {
    for (int tries = 0;; ++tries) {
      std::uintptr_t word = word_.load(std::memory_order_relaxed);
      if ((word & locked) == 0 &&
          word_.compare_exchange_weak(word, word | locked, std::memory_order_seq_cst,
                                      std::memory_order_relaxed)) {
        return word;
      }
      // The holder is a few instructions away from releasing it, or has lost the CPU.
      constexpr int spins = 64;
      if (tries >= spins) std::this_thread::yield();
    }
  }
  /// The same without waiting. Returns false, and leaves `word` as it is, if somebody has the lock.
  [[nodiscard]] bool try_lock(std::uintptr_t& word) noexcept {
    std::uintptr_t now = word_.load(std::memory_order_relaxed);
    if ((now & locked) != 0 ||
        !word_.compare_exchange_strong(now, now | locked, std::memory_order_seq_cst,
                                       std::memory_order_relaxed)) {
      return false;
    }
    word = now;
    return true;
  }
  /// Sets the word, and releases the lock.
  void unlock(std::uintptr_t word) noexcept { word_.store(word, std::memory_order_release); }

  /// The word as it is now, perhaps locked.
  [[nodiscard]] std::uintptr_t peek(std::memory_order order) const noexcept {
    return word_.load(order);
  }

 private:
  std::atomic<std::uintptr_t> word_{0};
};

}  // namespace asio_pulse::hooks
