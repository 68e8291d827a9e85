// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if !defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING) && !defined(ASIO_PULSE_EXECUTOR_ONLY) && \
    !defined(ASIO_PULSE_DISABLE)
#error \
    "asio_pulse: link the CMake target asio_pulse::asio_pulse (or compile every file of the program with \
-DBOOST_ASIO_CUSTOM_HANDLER_TRACKING='\"asio_pulse/hooks/tracking.hpp\"'); where that cannot be, link \
asio_pulse::executor_only"
#include "the error above says what is missing"
#endif

// This must be first: from Boost 1.90 on the reactor's header does not compile before it.
#include <boost/asio/io_context.hpp>
//
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/reactor.hpp>
#include <boost/asio/detail/scheduler_operation.hpp>
#include <boost/asio/detail/strand_executor_service.hpp>
#include <boost/asio/detail/strand_service.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 103300
#include <boost/asio/config.hpp>
#endif
#if defined(BOOST_ASIO_HAS_IO_URING)
#include <boost/asio/detail/io_uring_service.hpp>
#endif
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <utility>
//
#include <asio_pulse/detail/awaiting.hpp>

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#endif
#include <asio_pulse/hooks/site.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#if !defined(ASIO_PULSE_TRACKING) && !defined(ASIO_PULSE_EXECUTOR_ONLY) && \
    !defined(ASIO_PULSE_DISABLE)
#error \
    "asio_pulse: BOOST_ASIO_CUSTOM_HANDLER_TRACKING names another header than asio_pulse/hooks/tracking.hpp"
#include "the error above says what is missing"
#endif

/// \file
/// Access to private members of Asio, through explicit instantiations, in which the language does
/// not check access. If a Boost renames a member, the line here that names it does not compile.

namespace asio_pulse::detail {

namespace asio_detail = boost::asio::detail;

using scheduler_type = boost::asio::detail::io_context_impl;
using operation_type = boost::asio::detail::scheduler_operation;
using operation_queue = asio_detail::op_queue<operation_type>;

/// The name of a private member: exposed<"scheduler.mutex">.
template <std::size_t Size>
struct member_name {
  constexpr member_name(const char (&name)[Size]) noexcept {  // NOLINT: implicit, for literals
    std::copy_n(name, Size, text);
  }
  char text[Size] = {};
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-template-friend"
#endif
// gcc warns about a friend that is not a template. There is one such function for each name.
template <member_name Name>
struct named_member {
  friend constexpr auto member(named_member) noexcept;
};
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
template <member_name Name, auto Member>
struct expose {
  friend constexpr auto member(named_member<Name>) noexcept { return Member; }
};
/// The pointer to the member that is exposed under this name.
template <member_name Name>
inline constexpr auto exposed = member(named_member<Name>{});

template struct expose<"scheduler.interrupted", &scheduler_type::task_interrupted_>;
template struct expose<"scheduler.mutex", &scheduler_type::mutex_>;
template struct expose<"scheduler.wake", &scheduler_type::wake_one_thread_and_unlock>;
template struct expose<"scheduler.reactor_entry", &scheduler_type::task_operation_>;
template struct expose<"operation.function", &operation_type::func_>;
template struct expose<"operation.result", &operation_type::task_result_>;
template struct expose<"scheduler.queue", &scheduler_type::op_queue_>;
template struct expose<"scheduler.work", &scheduler_type::outstanding_work_>;
template struct expose<"scheduler.one_thread", &scheduler_type::one_thread_>;
template struct expose<"scheduler.event", &scheduler_type::wakeup_event_>;
template struct expose<"scheduler.reactor", &scheduler_type::task_>;
using strand_impl = asio_detail::strand_executor_service::strand_impl;
template struct expose<"strand.mutex", &strand_impl::mutex_>;
template struct expose<"strand.waiting", &strand_impl::waiting_queue_>;
template struct expose<"strand.ready", &strand_impl::ready_queue_>;
using strand_stack = asio_detail::call_stack<strand_impl>;
template struct expose<"strand.key", &strand_stack::context::key_>;

// Operations that drain a strand are recognised by the name of this class (hooks/site.hpp).
template <template <class, class> class Invoker>
struct strand_invoker_is_known {
  static_assert(
      hooks::detail::drains_others<Invoker<const boost::asio::any_io_executor, void>>::value,
      "Asio's strand_executor_service::invoker has another name");
};
template struct strand_invoker_is_known<asio_detail::strand_executor_service::invoker>;

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
using awaitable_frame_type = asio_detail::awaitable_frame_base<boost::asio::any_io_executor>;
template struct expose<"awaitable.coroutine", &awaitable_frame_type::coro_>;
template struct expose<"awaitable.thread", &awaitable_frame_type::attached_thread_>;
template struct expose<"awaitable.caller", &awaitable_frame_type::caller_>;

// The executor of a coroutine, and of all that it awaits. From Boost 1.77 on it is in the frame of the
// first of them.
#if BOOST_ASIO_VERSION >= 101900
template <class Executor>
using coroutine_entry =
    asio_detail::awaitable_frame<asio_detail::awaitable_thread_entry_point, Executor>;
template struct expose<"coroutine.executor", &coroutine_entry<boost::asio::any_io_executor>::u_>;
template struct expose<"coroutine.own_executor",
                       &coroutine_entry<boost::asio::io_context::executor_type>::u_>;
template <class Executor>
Executor& executor_of(asio_detail::awaitable_thread<Executor>& coroutine) noexcept {
  if constexpr (std::is_same_v<Executor, boost::asio::any_io_executor>) {
    return (coroutine.entry_point()->*exposed<"coroutine.executor">).executor_;
  } else {
    return (coroutine.entry_point()->*exposed<"coroutine.own_executor">).executor_;
  }
}
#else
template struct expose<"coroutine.executor",
                       &asio_detail::awaitable_thread<boost::asio::any_io_executor>::executor_>;
template struct expose<
    "coroutine.own_executor",
    &asio_detail::awaitable_thread<boost::asio::io_context::executor_type>::executor_>;
template <class Executor>
Executor& executor_of(asio_detail::awaitable_thread<Executor>& coroutine) noexcept {
  if constexpr (std::is_same_v<Executor, boost::asio::any_io_executor>) {
    return coroutine.*exposed<"coroutine.executor">;
  } else {
    return coroutine.*exposed<"coroutine.own_executor">;
  }
}
#endif

/// Makes reports contain the coroutines that await the stuck one.
inline void set_awaitable_layout() noexcept {
  const awaitable_frame_type frame;
  const auto offset = [&frame](const auto& part) {
    return static_cast<std::uint16_t>(reinterpret_cast<const char*>(&part) -
                                      reinterpret_cast<const char*>(&frame));
  };
  set_awaitable_layout({.coroutine = offset(frame.*exposed<"awaitable.coroutine">),
                        .thread = offset(frame.*exposed<"awaitable.thread">),
                        .caller = offset(frame.*exposed<"awaitable.caller">)});
}
#endif

// The strand has a pointer into a pool of mutexes or, from Boost 1.92 on, a mutex of its own.
template <class Mutex>
Mutex& as_mutex(Mutex* m) noexcept {
  return *m;
}
template <class Mutex>
Mutex& as_mutex(Mutex& m) noexcept {
  return m;
}

using scheduler_lock = std::remove_reference_t<decltype(std::declval<scheduler_type&>().*
                                                        exposed<"scheduler.mutex">)>::scoped_lock;

template struct expose<"legacy_strand.complete", &asio_detail::strand_service::do_complete>;
#if defined(BOOST_ASIO_HAS_EPOLL) && !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
template struct expose<"descriptor.complete",
                       &asio_detail::epoll_reactor::descriptor_state::do_complete>;
#endif
#if defined(BOOST_ASIO_HAS_IO_URING)
template struct expose<"io_uring_queue.complete",
                       &asio_detail::io_uring_service::io_queue::do_complete>;
#endif

/// Whether an operation is an internal object of Asio that runs several handlers, of any tasks.
inline bool is_internal(const operation_type& op) noexcept {
  const auto what = op.*exposed<"operation.function">;
  return what == exposed<"legacy_strand.complete">
#if defined(BOOST_ASIO_HAS_EPOLL) && !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
         || what == exposed<"descriptor.complete">
#endif
#if defined(BOOST_ASIO_HAS_IO_URING)
         || what == exposed<"io_uring_queue.complete">
#endif
      ;
}

/// The number of handlers that are queued, running or waited for. Any thread; the number may be out
/// of date when the call returns.
inline long outstanding_work(const scheduler_type& s) noexcept {
  return static_cast<long>(s.*exposed<"scheduler.work">);
}

/// Whether the program has promised that only one thread runs `context`: with a concurrency hint
/// or, from Boost 1.87 on, in the context's configuration, which Asio may have read from the
/// environment.
inline bool one_thread_only([[maybe_unused]] boost::asio::execution_context& context,
                            scheduler_type& s) {
  // Before Boost 1.87 there is no configuration, and one_thread_ also covers the hints that disable
  // locking.
  return s.*exposed<"scheduler.one_thread"> || !(s.*exposed<"scheduler.mutex">).enabled()
#if BOOST_ASIO_VERSION >= 103300
         || !boost::asio::config(context).get("reactor", "io_locking", true)
#endif
      ;
}

/// Whether every lock of Asio's is one: a concurrency hint, the context's configuration or a
/// definition of the program may switch them off.
[[nodiscard]] inline bool locks_everything([[maybe_unused]] boost::asio::execution_context& context,
                                           scheduler_type& s) {
#if !defined(BOOST_ASIO_HAS_THREADS) || defined(BOOST_ASIO_DISABLE_THREADS)
  return false;
#else
  if (!(s.*exposed<"scheduler.mutex">).enabled()) return false;
#if BOOST_ASIO_VERSION >= 103300
  const boost::asio::config c(context);
  return c.get("reactor", "io_locking", true) && c.get("reactor", "registration_locking", true);
#else
  const int hint = s.concurrency_hint();
  return BOOST_ASIO_CONCURRENCY_HINT_IS_LOCKING(REACTOR_IO, hint) &&
         BOOST_ASIO_CONCURRENCY_HINT_IS_LOCKING(REACTOR_REGISTRATION, hint);
#endif
#endif
}

/// Wakes every thread that waits inside `s`, as stop() does, but without stopping it. Each looks
/// for work again.
inline void wake_all(scheduler_type& s) {
  auto& mutex = s.*exposed<"scheduler.mutex">;
  typename std::remove_reference_t<decltype(mutex)>::scoped_lock lock(mutex);
  (s.*exposed<"scheduler.event">).signal_all(lock);
  bool& interrupted = s.*exposed<"scheduler.interrupted">;
  auto* const reactor = s.*exposed<"scheduler.reactor">;
  if (!interrupted && reactor != nullptr) {
    interrupted = true;
    reactor->interrupt();
  }
}

}  // namespace asio_pulse::detail
