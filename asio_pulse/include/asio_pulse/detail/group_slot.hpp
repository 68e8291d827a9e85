// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/group_ref.hpp>
#include <asio_pulse/hooks/locked_word.hpp>

#include <atomic>
#include <cstdint>
#include <utility>

namespace asio_pulse::detail {

/// The group that a task is in. A task that stays in the group in which it was made pays a load for
/// each charge. One that has moved pays for a reference to its group, since it may be moved again
/// meanwhile.
///
/// \par Thread safety  begin() before the task is published; the others: any thread.
class group_slot {
 public:
  group_slot() noexcept = default;
  ~group_slot() { (void)exchange({}); }
  group_slot(const group_slot&) = delete;
  group_slot& operator=(const group_slot&) = delete;

  /// The group in which the task is made. It lasts as long as the task, also if the task moves.
  void begin(group_ref group) noexcept { first_ = std::move(group); }

  /// Calls `f(group_state*)` with the group as it is now, or null. It lasts as long as the call.
  template <class F>
  void with(F f) const {
    // Acquire: pairs with unlock(), for the references that are counted in the word.
    if (word_.peek(std::memory_order_acquire) == 0) {
      f(first_.get());
    } else {
      const group_ref held = now();
      f(held.get());
    }
  }

  [[nodiscard]] group_ref now() const noexcept {
    const std::uintptr_t word = word_.lock();
    group_ref result = word == 0 ? first_ : group_ref(boost::intrusive_ptr(group_in(word)));
    word_.unlock(word);
    return result;
  }

  /// Moves the task to `to`, and returns the group in which it was.
  [[nodiscard]] group_ref exchange(const group_ref& to) noexcept {
    if (to) intrusive_ptr_add_ref(to.get());
    const std::uintptr_t before = word_.lock();
    word_.unlock(reinterpret_cast<std::uintptr_t>(to.get()) | moved);
    return before == 0 ? first_ : group_ref(boost::intrusive_ptr(group_in(before), false));
  }

 private:
  static constexpr std::uintptr_t locked = hooks::locked_word::locked;
  static constexpr std::uintptr_t moved = 2;

  static group_state* group_in(std::uintptr_t word) noexcept {
    return reinterpret_cast<group_state*>(word & ~(locked | moved));
  }

  group_ref first_;  ///< constant once the task has been published
  /// 0 while the task is in `first_`. Otherwise `moved`, and its group with one reference.
  mutable hooks::locked_word word_;
};

}  // namespace asio_pulse::detail
