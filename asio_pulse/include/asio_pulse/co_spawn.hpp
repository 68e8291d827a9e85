// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <asio_pulse/task.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>

#include <exception>
#include <type_traits>
#include <utility>

namespace asio_pulse {

namespace detail {

template <class T>
struct spawn_signature {
  using type = void(std::exception_ptr, T);
};
template <>
struct spawn_signature<void> {
  using type = void(std::exception_ptr);
};

struct start_coroutine {
  task t;
  template <class Handler, class Coroutine>
  void operator()(Handler&& handler, Coroutine&& coroutine) const {
    const task_scope scope(t);
    boost::asio::co_spawn(t.start_executor(), std::forward<Coroutine>(coroutine),
                          std::forward<Handler>(handler));
  }
};

template <class T>
struct awaitable_value;
template <class T, class Executor>
struct awaitable_value<boost::asio::awaitable<T, Executor>> {
  using type = T;
};

}  // namespace detail

/// Starts a coroutine as work of the task: the coroutine, and everything it creates, is charged to
/// the task.
///
/// If this is called in a handler of the same context, Asio starts the coroutine inside that
/// handler. Until the coroutine suspends for the first time, it is a part of that handler's poll,
/// and is charged to that handler's task. If that is a lot of work, use
/// `boost::asio::co_spawn(t.get_executor(), ...)`, which starts it in a poll of its own.
///
/// \par Errors  As boost::asio::co_spawn().
template <class T, class Executor, class CompletionToken>
auto co_spawn(const task& t, boost::asio::awaitable<T, Executor> coroutine,
              CompletionToken&& token) {
  return boost::asio::async_initiate<CompletionToken, typename detail::spawn_signature<T>::type>(
      detail::start_coroutine{t}, token, std::move(coroutine));
}

/// As above; `function()` returns the awaitable.
template <class Function, class CompletionToken>
requires requires {
  typename detail::awaitable_value<std::invoke_result_t<std::decay_t<Function>>>::type;
}
auto co_spawn(const task& t, Function&& function, CompletionToken&& token) {
  using value =
      typename detail::awaitable_value<std::invoke_result_t<std::decay_t<Function>>>::type;
  return boost::asio::async_initiate<CompletionToken,
                                     typename detail::spawn_signature<value>::type>(
      detail::start_coroutine{t}, token, std::forward<Function>(function));
}

}  // namespace asio_pulse

#endif
