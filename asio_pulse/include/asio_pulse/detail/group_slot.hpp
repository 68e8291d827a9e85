// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/group_ref.hpp>
#include <asio_pulse/hooks/locked_word.hpp>

#include <atomic>
#include <cstdint>
#include <utility>

namespace asio_pulse::detail {

/// The group that a task is in. If a task stays in the group in which it was made, each charge costs one
/// load. If it has moved, each charge takes a reference to its group, since it may be moved again during
/// the charge, unless only the thread that charges it can move it.
///
/// At most one thread at a time is *alone* with a task: the only worker of the task's context, while
/// no other thread has polled the task. It uses the group without a reference (with_alone()). A thread
/// that moves the task, and is not known to be that thread, *pins* the group that the task leaves: then
/// the group lasts as long as the task, and with_alone() takes references from then on.
///
/// \par Thread safety  begin() before the task is published; with_alone(): as above; the others: any
///                     thread.
class group_slot {
 public:
  group_slot() noexcept = default;
  ~group_slot() {
    (void)exchange({}, [] { return true; });
  }
  group_slot(const group_slot&) = delete;
  group_slot& operator=(const group_slot&) = delete;

  /// The group in which the task is made. It lasts as long as the task, even if the task moves.
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

  /// The same where nothing may wait or be freed, as in a signal handler. Does not call `f`, and returns
  /// false, while another thread moves the task or takes a reference to its group. `f` is called with the word
  /// locked if the task has moved, and must neither wait nor release a group.
  template <class F>
  bool with_at_once(F f) const {
    if (word_.peek(std::memory_order_acquire) == 0) {  // as in with()
      f(first_.get());
      return true;
    }
    std::uintptr_t word = 0;
    if (!word_.try_lock(word)) return false;
    f(group_in(word));
    word_.unlock(word);
    return true;
  }

  /// The same as with(), for the thread that is alone with the task.
  ///
  /// \par Memory order  Sequentially consistent, as the lock of exchange(). Either this sees that the
  ///                    word is locked or pinned, or what counts this thread as a worker is seen by the
  ///                    one that moves the task, which then pins the group that is used here.
  template <class F>
  void with_alone(F f) const {
    const std::uintptr_t word = word_.peek(std::memory_order_seq_cst);
    group_ref held;
    group_state* g = word == 0 ? first_.get() : group_in(word);
    if ((word & (locked | pinned)) != 0) [[unlikely]] {
      held = now();
      g = held.get();
    }
    f(g);  // in one place, so that it is inline
  }

  [[nodiscard]] group_ref now() const noexcept {
    const std::uintptr_t word = word_.lock();
    group_ref result = word == 0 ? first_ : group_ref(boost::intrusive_ptr(group_in(word)));
    word_.unlock(word);
    return result;
  }

  /// Moves the task to `to`, and returns the group in which it was. `alone()` says whether this thread
  /// is the one that is alone with the task. It is called with the word locked.
  template <class Alone>
  [[nodiscard]] group_ref exchange(const group_ref& to, Alone alone) noexcept {
    if (to) intrusive_ptr_add_ref(to.get());
    const std::uintptr_t before = word_.lock();
    std::uintptr_t pin = before & pinned;
    if (before != 0 && pin == 0 && !alone()) {
      pin_ = group_ref(boost::intrusive_ptr(group_in(before)));
      pin = pinned;
    }
    word_.unlock(reinterpret_cast<std::uintptr_t>(to.get()) | moved | pin);
    return before == 0 ? first_ : group_ref(boost::intrusive_ptr(group_in(before), false));
  }

 private:
  static constexpr std::uintptr_t locked = hooks::locked_word::locked;
  static constexpr std::uintptr_t moved = 2;
  static constexpr std::uintptr_t pinned = 4;

  static group_state* group_in(std::uintptr_t word) noexcept {
    return reinterpret_cast<group_state*>(word & ~(locked | moved | pinned));
  }

  group_ref first_;  ///< constant once the task has been published
  group_ref pin_;    ///< set once, with the word locked; only keeps the group alive
  /// 0 while the task is in `first_`. Otherwise `moved`, perhaps `pinned`, and its group with one
  /// reference.
  mutable hooks::locked_word word_;
};

}  // namespace asio_pulse::detail
