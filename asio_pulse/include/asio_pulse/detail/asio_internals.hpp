// SPDX-License-Identifier: BSL-1.0
#pragma once

// First: from Boost 1.90 on the reactor's own header does not compile before it.
#include <boost/asio/io_context.hpp>
//
#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/reactor.hpp>
#include <boost/asio/detail/scheduler_operation.hpp>
#include <boost/asio/detail/strand_executor_service.hpp>
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <utility>
//
#include <asio_pulse/detail/awaiting.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#endif
#include <type_traits>

/// \file
/// Private members of Asio, by explicit instantiation: the language ignores access there. A Boost
/// that renames one of them does not compile here, on the first line that says which.

namespace asio_pulse::detail {

namespace asio_detail = boost::asio::detail;

using scheduler_type = boost::asio::detail::io_context_impl;
using operation_type = boost::asio::detail::scheduler_operation;
using operation_queue = asio_detail::op_queue<operation_type>;

template <auto Member, class Tag>
struct expose {
  friend constexpr auto member(Tag) noexcept { return Member; }
};
struct strand_mutex {
  friend constexpr auto member(strand_mutex) noexcept;
};
struct strand_waiting {
  friend constexpr auto member(strand_waiting) noexcept;
};
struct strand_ready {
  friend constexpr auto member(strand_ready) noexcept;
};
struct scheduler_mutex {
  friend constexpr auto member(scheduler_mutex) noexcept;
};
struct scheduler_queue {
  friend constexpr auto member(scheduler_queue) noexcept;
};
struct scheduler_interrupted {
  friend constexpr auto member(scheduler_interrupted) noexcept;
};
struct scheduler_work {
  friend constexpr auto member(scheduler_work) noexcept;
};
struct scheduler_event {
  friend constexpr auto member(scheduler_event) noexcept;
};
struct scheduler_reactor {
  friend constexpr auto member(scheduler_reactor) noexcept;
};
template struct expose<&scheduler_type::task_interrupted_, scheduler_interrupted>;
template struct expose<&scheduler_type::mutex_, scheduler_mutex>;
template struct expose<&scheduler_type::op_queue_, scheduler_queue>;
template struct expose<&scheduler_type::outstanding_work_, scheduler_work>;
template struct expose<&scheduler_type::wakeup_event_, scheduler_event>;
template struct expose<&scheduler_type::task_, scheduler_reactor>;
using strand_impl = asio_detail::strand_executor_service::strand_impl;
template struct expose<&strand_impl::mutex_, strand_mutex>;
template struct expose<&strand_impl::waiting_queue_, strand_waiting>;
template struct expose<&strand_impl::ready_queue_, strand_ready>;

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
using awaitable_frame_type = asio_detail::awaitable_frame_base<boost::asio::any_io_executor>;
struct awaitable_coroutine {
  friend constexpr auto member(awaitable_coroutine) noexcept;
};
struct awaitable_thread {
  friend constexpr auto member(awaitable_thread) noexcept;
};
struct awaitable_caller {
  friend constexpr auto member(awaitable_caller) noexcept;
};
template struct expose<&awaitable_frame_type::coro_, awaitable_coroutine>;
template struct expose<&awaitable_frame_type::attached_thread_, awaitable_thread>;
template struct expose<&awaitable_frame_type::caller_, awaitable_caller>;

/// Lets reports name the coroutines that await the one that is stuck.
inline void tell_awaitable_layout() noexcept {
  const awaitable_frame_type frame;
  const auto offset = [&frame](const auto& part) {
    return static_cast<std::uint16_t>(reinterpret_cast<const char*>(&part) -
                                      reinterpret_cast<const char*>(&frame));
  };
  tell_awaitable_layout({.coroutine = offset(frame.*member(awaitable_coroutine{})),
                         .thread = offset(frame.*member(awaitable_thread{})),
                         .caller = offset(frame.*member(awaitable_caller{}))});
}
#endif

// A pointer into a pool of mutexes, or from Boost 1.92 on the strand's own.
template <class Mutex>
Mutex& as_mutex(Mutex* m) noexcept {
  return *m;
}
template <class Mutex>
Mutex& as_mutex(Mutex& m) noexcept {
  return m;
}

/// Handlers that are queued, running or waited for. Any thread; a moment old when it is looked at.
inline long outstanding_work(const scheduler_type& s) noexcept {
  return static_cast<long>(s.*member(scheduler_work{}));
}

/// Wakes every thread that waits inside `s`, as stop() does, without stopping it: each looks for
/// work once more.
inline void wake_all(scheduler_type& s) {
  auto& mutex = s.*member(scheduler_mutex{});
  typename std::remove_reference_t<decltype(mutex)>::scoped_lock lock(mutex);
  (s.*member(scheduler_event{})).signal_all(lock);
  bool& interrupted = s.*member(scheduler_interrupted{});
  auto* const reactor = s.*member(scheduler_reactor{});
  if (!interrupted && reactor != nullptr) {
    interrupted = true;
    reactor->interrupt();
  }
}

}  // namespace asio_pulse::detail
