// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>

namespace asio_pulse::detail {

/// A list of objects that link themselves with their members `previous` and `next`. It is read in
/// pieces, so that a long list is not locked for long, and the reader holds no references.
///
/// \par Thread safety  Any thread.
template <class T>
class walked_list {
 public:
  using lock = std::unique_lock<std::mutex>;

  walked_list() = default;
  walked_list(const walked_list&) = delete;
  walked_list& operator=(const walked_list&) = delete;

  /// Locks the list. When std::mutex is unlocked, the first thread that tries to lock it gets it. A
  /// thread that sleeps until then is slower than a walk, which locks it again at once. So a thread
  /// that waits holds the turn, without which the walk cannot lock the mutex.
  [[nodiscard]] lock lock_in_turn() const {
    const std::lock_guard turn(turn_);
    return lock(mutex_);
  }
  /// Adds it at the front.
  void link(T& t, const lock&) noexcept {
    t.next = first_;
    if (first_ != nullptr) first_->previous = &t;
    first_ = &t;
  }
  void unlink(T& t, const lock&) noexcept {
    for (place* p = places_; p != nullptr; p = p->other) {
      if (p->at == &t) p->at = t.next;
    }
    (t.previous != nullptr ? t.previous->next : first_) = t.next;
    if (t.next != nullptr) t.next->previous = t.previous;
  }
  /// The newest, or null.
  [[nodiscard]] T* first(const lock&) const noexcept { return first_; }

  /// Calls `look(T&)` for each object, with the list locked. The lock is released now and then in
  /// between, and a thread that waits for it then gets it first. Objects that are added meanwhile
  /// are not seen.
  template <class Look>
  void walk(Look&& look) {
    place here(*this);
    for (bool more = true; more;) {
      const lock held = lock_in_turn();
      for (std::size_t n = 0; n < chunk && here.at != nullptr; ++n) {
        T& t = *here.at;
        here.at = t.next;
        look(t);
      }
      more = here.at != nullptr;
    }
  }

  /// Around a fork. The walks of other threads do not go on in the child, and their stacks may be used
  /// for something else.
  void before_fork() noexcept {
    turn_.lock();
    mutex_.lock();
  }
  void after_fork(bool child) noexcept {
    if (child) places_ = nullptr;
    mutex_.unlock();
    turn_.unlock();
  }

 private:
  // How many objects are read each time that the mutex is held. A guess: with more, a new task waits
  // longer for the mutex (now about 10 us); with fewer, it is locked more often.
  static constexpr std::size_t chunk = 128;

  // Where a walk goes on. unlink() moves it past an object that is removed, so that the walk needs
  // no reference to the object, and never is the one that ends it.
  struct place {
    explicit place(walked_list& its_list) noexcept : list(its_list) {
      const lock held = list.lock_in_turn();
      at = list.first_;
      other = std::exchange(list.places_, this);
    }
    ~place() {
      const lock held = list.lock_in_turn();
      place** p = &list.places_;
      while (*p != this) p = &(*p)->other;
      *p = other;
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;

    walked_list& list;
    T* at;         ///< null at the end of the list
    place* other;  ///< of another walk
  };

  mutable std::mutex turn_;   ///< held by the one thread that waits for mutex_
  mutable std::mutex mutex_;  ///< guards the members below
  T* first_ = nullptr;
  place* places_ = nullptr;  ///< where the walks in progress go on
};

}  // namespace asio_pulse::detail
