// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#endif

#include <asio_pulse/task.hpp>
#include <boost/asio/spawn.hpp>
#include <utility>

/// \file
/// Stackful coroutines. Apart from the rest because it needs Boost.Context (before Boost 1.80,
/// Boost.Coroutine).

namespace asio_pulse {

/// Starts a stackful coroutine as work of the task: it, and everything it creates, is charged to
/// the task.
///
/// \par Errors  As boost::asio::spawn().
template <class Function, class... CompletionToken>
requires(sizeof...(CompletionToken) <= 1) auto spawn(const task& t, Function&& function,
                                                     CompletionToken&&... token) {
  const task_scope scope(t);
  return boost::asio::spawn(t.start_executor(), std::forward<Function>(function),
                            std::forward<CompletionToken>(token)...);
}

}  // namespace asio_pulse
