// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <asio_pulse/should_yield.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/version.hpp>

#include <type_traits>
#include <utility>

#if !defined(BOOST_ASIO_HAS_CO_AWAIT)
#error \
    "asio-pulse: this Boost.Asio has no coroutines with this compiler. With clang and Boost 1.74, define BOOST_ASIO_HAS_CO_AWAIT and BOOST_ASIO_HAS_STD_COROUTINE for every file of the program"
#endif

namespace asio_pulse {

namespace detail {

struct start_checkpoint {
  template <class Handler>
  void operator()(Handler&& handler) const {
    auto executor = boost::asio::get_associated_executor(handler);
    boost::asio::post(executor, std::forward<Handler>(handler));
  }
};

/// Requeues the coroutine that awaits it at the end of the context's queue.
struct yield_operation {
  // Not a function that takes a coroutine's frame: Asio awaits those in another way.
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

/// What checkpoint() returns. In a boost::asio::awaitable<> it must be awaited at once. Anywhere
/// else it is discarded, and its destructor suspends the fiber that this code runs on, if any.
class checkpoint_operation : public detail::yield_operation {
 public:
  explicit checkpoint_operation(bool wanted) noexcept : wanted_(wanted) {}
  /// If the operation was not awaited, calls this_fiber::checkpoint().
  ///
  /// \par Errors  As this_fiber::checkpoint().
  ~checkpoint_operation() noexcept(false) {
    if (wanted_) [[unlikely]] {
      (void)detail::yield_here();
    }
  }
  checkpoint_operation(const checkpoint_operation&) = delete;
  checkpoint_operation& operator=(const checkpoint_operation&) = delete;

  /// Called by the coroutine that awaits the operation. Returns whether it has to suspend.
  [[nodiscard]] bool take() noexcept {
    const bool wanted = std::exchange(wanted_, false);
    return wanted && !detail::refuse_yield();
  }

 private:
  bool wanted_;
};

/// Yields to other handlers if the current one has used up its share of the CPU.
///
/// In a coroutine, call it in a loop as `co_await asio_pulse::checkpoint();`. The coroutine is
/// suspended only if should_yield() returns true. It is then queued behind everything that is ready
/// and, if its task is over budget, behind other tasks that are over budget as well.
///
/// In synchronous code, call it as `asio_pulse::checkpoint();`. Inside a preemptible() handler or a
/// coroutine of asio_pulse::spawn() it suspends the whole handler, at any call depth; see
/// this_fiber::checkpoint(). On a thread's own stack it does nothing.
///
/// While a tracked lock is held (asio_pulse::mutex, no_yield_scope) the yield is refused, and the
/// refusal is reported.
///
/// \par Cost           If it need not yield, that of should_yield(): no suspension, no allocation.
/// \par Thread safety  Acts on the calling thread. The handler may continue on another thread.
/// \par Errors         In synchronous code as this_fiber::checkpoint().
ASIO_PULSE_DETAIL_INLINE checkpoint_operation checkpoint() {
  return checkpoint_operation(should_yield());
}

#else

// The coroutines of this Asio version can await only operations that suspend, and other coroutines.
namespace detail {

inline boost::asio::awaitable<void> yield_now() {
  const auto executor = co_await boost::asio::this_coro::executor;
  co_await boost::asio::post(executor, boost::asio::use_awaitable);
}

}  // namespace detail

/// For `co_await` only. In synchronous code use this_fiber::checkpoint().
[[nodiscard]] inline boost::asio::awaitable<void> checkpoint() {
  if (should_yield() && !detail::refuse_yield()) co_await detail::yield_now();
}

#endif

}  // namespace asio_pulse

#if BOOST_VERSION >= 108100

namespace boost::asio::detail {

// An operation of Asio suspends the coroutine before it is started. Ours decides first, so that a
// checkpoint that need not yield does not suspend at all.
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

/// A checkpoint for coroutines: yields to other handlers if the current one has used up its share
/// of the CPU. An expression of type void.
///
/// \par Cost  If it need not yield, that of should_yield(): Asio is not called.
#define ASIO_PULSE_CHECKPOINT()                                          \
  (::asio_pulse::should_yield() && !::asio_pulse::detail::refuse_yield() \
       ? static_cast<void>(co_await ::asio_pulse::detail::yield_now())   \
       : static_cast<void>(0))

#endif
