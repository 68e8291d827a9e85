// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/should_yield.hpp>

#include <mutex>

namespace asio_pulse {

/// A mutex that checkpoints know about: a handler that holds it is not suspended.
///
/// If a fiber or coroutine yields while it holds a lock, another one on the same thread may try to
/// take the same lock, and the thread waits for itself. With this mutex the yield is refused, and
/// the refusal is reported.
///
/// \par Cost           That of std::mutex, and about 10 ns.
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
  hooks::poll_mark held_{};  ///< guarded by it
};

/// Prevents suspension in its scope. A checkpoint that would have yielded is refused, and the
/// refusal is reported. Use it around code that other handlers must not interrupt, for example
/// while a lock of another kind is held.
///
/// It belongs to the handler that entered it, as does critical_section, which suppresses yields
/// without a report and limits the time. Scopes can be nested.
///
/// \par Cost           About 5 ns.
/// \par Thread safety  Distinct objects: Safe. Enter and leave on the same thread.
/// \par Errors         None (noexcept).
class no_yield_scope {
 public:
  no_yield_scope() noexcept : entered_(detail::enter_no_yield()) {}
  ~no_yield_scope() {
    if (!detail::leave_no_yield(entered_)) detail::report_misuse("a no_yield_scope");
  }
  no_yield_scope(const no_yield_scope&) = delete;
  no_yield_scope& operator=(const no_yield_scope&) = delete;

 private:
  hooks::poll_mark entered_;
};

}  // namespace asio_pulse

#endif
