// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <utility>

#include <asio_pulse/should_yield.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/version.hpp>
#include <type_traits>

namespace asio_pulse {

namespace detail {

struct start_checkpoint {
  template <class Handler>
  void operator()(Handler&& handler) const {
    auto executor = boost::asio::get_associated_executor(handler);
    boost::asio::post(executor, std::forward<Handler>(handler));
  }
};

/// Requeues whoever awaits it, behind everybody else.
struct yield_operation {
  // Not a function of a coroutine's frame: awaiting those is something else.
  template <class CompletionToken>
  requires(!std::is_pointer_v<std::remove_cvref_t<CompletionToken>>) auto operator()(
      CompletionToken&& token) const {
    return boost::asio::async_initiate<CompletionToken, void()>(start_checkpoint{}, token);
  }
};

}  // namespace detail

#if BOOST_VERSION >= 108100

namespace detail {

inline yield_operation yield_now() noexcept { return {}; }

}  // namespace detail

/// What checkpoint() returns: await it in a boost::asio::awaitable<>, at once, or let it go, which
/// suspends the fiber that this is, if it is one.
class checkpoint_operation : public detail::yield_operation {
 public:
  explicit checkpoint_operation(bool wanted) noexcept : wanted_(wanted) {}
  /// Not awaited: a statement. \par Errors  As this_fiber::checkpoint().
  ~checkpoint_operation() noexcept(false) {
    if (wanted_) [[unlikely]] {
      (void)detail::yield_here();
    }
  }
  checkpoint_operation(const checkpoint_operation&) = delete;
  checkpoint_operation& operator=(const checkpoint_operation&) = delete;

  /// Takes it over: whoever awaits it. Whether it is to suspend.
  [[nodiscard]] bool take() noexcept {
    const bool wanted = std::exchange(wanted_, false);
    return wanted && !detail::refuse_yield();
  }

 private:
  bool wanted_;
};

/// Lets others go first, if the handler has had its share.
///
/// In a coroutine: `co_await asio_pulse::checkpoint();` in a loop. Suspends only when
/// should_yield() says so; then the coroutine is queued behind everything that is ready and, if its
/// task is over budget, behind other tasks in the same state.
///
/// In synchronous code: `asio_pulse::checkpoint();` at any call depth inside a preemptible()
/// handler or a coroutine of asio_pulse::spawn() does the same with all of it; see
/// this_fiber::checkpoint(). On a thread's own stack it does nothing.
///
/// Refused, and reported, under a tracked lock (asio_pulse::mutex, no_yield_scope).
///
/// \par Cost           As should_yield() when nothing is wanted: no suspension, no allocation.
/// \par Thread safety  Speaks for the calling thread, and its handler may go on on another.
/// \par Errors         In synchronous code as this_fiber::checkpoint().
ASIO_PULSE_DETAIL_INLINE checkpoint_operation checkpoint() {
  return checkpoint_operation(should_yield());
}

#else

// This Asio's coroutines can only await what suspends, or another coroutine.
namespace detail {

inline boost::asio::awaitable<void> yield_now() {
  const auto executor = co_await boost::asio::this_coro::executor;
  co_await boost::asio::post(executor, boost::asio::use_awaitable);
}

}  // namespace detail

/// For `co_await` only; in synchronous code this_fiber::checkpoint().
[[nodiscard]] inline boost::asio::awaitable<void> checkpoint() {
  if (should_yield() && !detail::refuse_yield()) co_await detail::yield_now();
}

#endif

}  // namespace asio_pulse

#if BOOST_VERSION >= 108100

namespace boost::asio::detail {

// Awaiting an operation suspends before it is started. Ours asks first: nothing in the language
// suspends then.
template <class Executor>
class awaitable_async_op<void(), ::asio_pulse::checkpoint_operation, Executor>
    : public awaitable_async_op<void(), ::asio_pulse::detail::yield_operation, Executor> {
  using base = awaitable_async_op<void(), ::asio_pulse::detail::yield_operation, Executor>;

 public:
  template <class Awaited, class... Frame>
  explicit awaitable_async_op(Awaited&& awaited, Frame... frame) noexcept
      : base(static_cast<::asio_pulse::detail::yield_operation&&>(awaited), frame...),
        wanted_(awaited.take()) {}

  bool await_ready() const noexcept { return !wanted_; }

 private:
  bool wanted_;
};

}  // namespace boost::asio::detail

#endif

/// In a coroutine: lets others go first, if it is time. An expression of type void.
///
/// \par Cost  As should_yield(); Asio is not entered where nothing is wanted.
#define ASIO_PULSE_CHECKPOINT()                                          \
  (::asio_pulse::should_yield() && !::asio_pulse::detail::refuse_yield() \
       ? static_cast<void>(co_await ::asio_pulse::detail::yield_now())   \
       : static_cast<void>(0))

#endif
