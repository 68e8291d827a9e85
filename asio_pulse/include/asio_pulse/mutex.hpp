// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/should_yield.hpp>
#include <mutex>

namespace asio_pulse {

/// A std::mutex that checkpoints know of: a handler that holds it is not suspended.
///
/// A fiber or coroutine that yields under a lock lets in others that want the same lock, on the
/// same thread: the thread then waits for itself. Such a yield is refused, and reported.
///
/// \par Cost           As std::mutex, and about 10 ns.
/// \par Thread safety  As std::mutex: unlock on the thread that locked. Not in signal handlers.
/// \par Errors         As std::mutex.
class mutex {
 public:
  constexpr mutex() noexcept = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  void lock() {
    mutex_.lock();
    held_ = detail::enter_no_yield();
  }
  [[nodiscard]] bool try_lock() {
    if (!mutex_.try_lock()) return false;
    held_ = detail::enter_no_yield();
    return true;
  }
  void unlock() {
    detail::leave_no_yield(held_);
    mutex_.unlock();
  }

 private:
  std::mutex mutex_;
  detail::poll_mark held_{};  ///< guarded by it
};

/// No suspension in this scope: a checkpoint that would have yielded is refused, and reported. For
/// what must not be interrupted by other handlers, a lock of another kind for one.
///
/// As critical_section, which suppresses yields without a word and watches the time, it belongs to
/// the handler that entered it. Nests.
///
/// \par Cost           About 5 ns.
/// \par Thread safety  Distinct objects: Safe. Enter and leave on the same thread.
/// \par Errors         None (noexcept).
class no_yield_scope {
 public:
  no_yield_scope() noexcept : entered_(detail::enter_no_yield()) {}
  ~no_yield_scope() {
    if (!detail::leave_no_yield(entered_)) detail::tell_misuse("a no_yield_scope");
  }
  no_yield_scope(const no_yield_scope&) = delete;
  no_yield_scope& operator=(const no_yield_scope&) = delete;

 private:
  detail::poll_mark entered_;
};

}  // namespace asio_pulse

#endif
