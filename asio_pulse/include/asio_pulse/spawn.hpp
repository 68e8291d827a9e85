// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#endif

#include <asio_pulse/detail/sanitizers.hpp>
#include <asio_pulse/task.hpp>

#include <boost/asio/spawn.hpp>
#include <boost/version.hpp>

#include <utility>

// Asio does not tell ThreadSanitizer about its switches. ThreadSanitizer then reads past the end of
// stacks that it does not know, into one of our guards.
#if !defined(ASIO_PULSE_DISABLE) && BOOST_VERSION >= 108000 && \
    defined(BOOST_ASIO_HAS_BOOST_CONTEXT_FIBER) && !defined(ASIO_PULSE_DETAIL_TSAN)
#define ASIO_PULSE_DETAIL_POOLED_SPAWN 1
#include <asio_pulse/detail/asio/fiber_resume.hpp>
#include <asio_pulse/fiber_stacks.hpp>

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#endif

/// \file
/// Stackful coroutines. asio_pulse.hpp does not include this header, because it needs Boost.Context
/// (before Boost 1.80, Boost.Coroutine).

namespace asio_pulse {

#if defined(ASIO_PULSE_DETAIL_POOLED_SPAWN)

namespace detail {

/// A stack allocator for Boost.Context that takes stacks from the pool of preemptible().
class pooled_stack {
 public:
  explicit pooled_stack(std::size_t bytes) noexcept : size_class_(fiber_size_class(bytes)) {}

  boost::context::stack_context allocate() {
    fiber_block* const b = take_fiber(size_class_);
    if (b == nullptr) throw std::bad_alloc();
    if (b->discard != nullptr) b->discard(*b);
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
    __asan_unpoison_memory_region(reinterpret_cast<void*>(b->bottom()), b->size());
#endif
    boost::context::stack_context where;
    where.sp = b;
    where.size = b->size();
    return where;
  }
  void deallocate(boost::context::stack_context& where) noexcept {
    auto& b = *static_cast<fiber_block*>(where.sp);
    b.unwinding = b.checking = false;
    give_fiber(b);
  }

 private:
  unsigned size_class_;
};

/// A suspended coroutine of Asio: the handler that Asio made for the operation that it waits for.
template <class Handler>
class suspended_coroutine {
 public:
  explicit suspended_coroutine(Handler&& handler) : handler_(std::move(handler)) {}
  void resume() {
    Handler handler(std::move(handler_));  // the call destroys this object
    std::move(handler)();
  }
  void discard() {
    // At an automatic checkpoint nothing can be thrown, so the coroutine runs on, until it awaits
    // something.
    fiber_block& b = *fiber_at(reinterpret_cast<std::uintptr_t>(this));
    if (b.automatic) {
      b.unwinding = true;
      return resume();
    }
    const Handler handler(std::move(handler_));
  }

 private:
  Handler handler_;
};

/// Space on the coroutine's stack for its rest, whose type only Asio knows.
class rest_of_coroutine {
 public:
  rest_of_coroutine() noexcept = default;
  rest_of_coroutine(const rest_of_coroutine&) = delete;
  rest_of_coroutine& operator=(const rest_of_coroutine&) = delete;
  ~rest_of_coroutine() {
    if (destroy_ != nullptr) destroy_(room_);
  }

  /// Does what an operation of Asio does, but needs no memory, so that it cannot fail.
  template <class Handler>
  void queue(Handler&& handler) {
    using plain = std::decay_t<Handler>;
    using rest = queued_rest<plain, suspended_coroutine<plain>>;
    // NOLINTNEXTLINE(misc-redundant-expression): it takes the two sizes for the same
    static_assert(sizeof(rest) <= sizeof room_ && alignof(rest) <= alignof(std::max_align_t));
    auto* const r = new (room_) rest(std::forward<Handler>(handler));
    destroy_ = [](void* room) noexcept { static_cast<rest*>(room)->~rest(); };
    r->queue();
  }

 private:
  alignas(std::max_align_t) std::byte room_[512];
  void (*destroy_)(void*) noexcept = nullptr;
};

/// See fiber_block::may_suspend.
inline bool may_suspend_coroutine(const fiber_block& b) noexcept {
  return !asio_runs_on(b) && legacy_strand_stack::top() == nullptr && runs_its_context() &&
         !leaves_thread();
}

/// Suspends a coroutine of Asio as Asio's own operations do.
template <class Yield>
bool suspend_coroutine(fiber_block& b) {
  if (b.automatic ? !may_suspend_coroutine(b)
                  : asio_runs_on(b) || legacy_strand_stack::top() != nullptr) {
    return false;
  }
  if (!next_turn_provided()) return false;
  // Asio exchanges neither of these. What the resuming thread has is left as it is: it is empty
  // except in a nested run function inside a catch block.
  struct exchange {
    exception_state mine = std::exchange(exceptions_here(), {});
    int error_number = errno_here();
    ~exchange() {
      exception_state& now = exceptions_here();
      now.caught = mine.caught;
      now.uncaught += mine.uncaught;  // `now` is not empty while Asio unwinds the coroutine
      errno_here() = error_number;
    }
  } const on_exit;
  auto& yield = *static_cast<Yield*>(b.suspension);
  // Nothing can be thrown at an automatic checkpoint: one that was cancelled computes on.
  struct silence {
    const Yield* yield;
    bool throws;
    ~silence() {
      if (yield != nullptr) yield->throw_if_cancelled(throws);
    }
  } const while_suspended{b.automatic ? &yield : nullptr, yield.throw_if_cancelled()};
  if (b.automatic) yield.throw_if_cancelled(false);
  rest_of_coroutine rest;
  boost::asio::async_initiate<Yield, void()>(
      [&rest](auto&& handler) { rest.queue(std::forward<decltype(handler)>(handler)); }, yield);
  ready_fiber_thread();
  return true;
}

/// The function of a coroutine. It registers with its stack how the coroutine is suspended.
template <class Function>
struct spawned_function {
  Function function;

  template <class Yield>
  requires std::invocable<Function&, Yield>
  decltype(auto) operator()(Yield yield) {
    fiber_block* const b = fiber_here();
    if (this_fiber_thread.signals_differed) remember_signals();
    struct armed {
      fiber_block* b;
      ~armed() {
        if (b != nullptr) b->suspend = nullptr;
      }
    } const while_it_runs{b};
    if (b != nullptr) {
      b->suspension = &yield;
      b->may_suspend = &may_suspend_coroutine;
      b->suspend = &suspend_coroutine<Yield>;
    }
    return function(yield);
  }
};

}  // namespace detail

#endif

/// Starts a stackful coroutine as work of the task: the coroutine, and everything it creates, is
/// charged to the task.
///
/// It is a coroutine of Boost.Asio, which awaits Asio's operations with its `yield`. From Boost
/// 1.80 on it runs on a pooled stack of options::fiber_stack bytes, with a guard that catches an
/// overflow, and `asio_pulse::checkpoint();` suspends it at any call depth, as it does
/// in a preemptible() handler.
///
/// \par Cost    The stack comes from the pool. A checkpoint that yields costs as much as a post.
/// \par Errors  As boost::asio::spawn().
template <class Function, class... CompletionToken>
requires(sizeof...(CompletionToken) <= 1) auto spawn(const task& t, Function&& function,
                                                     CompletionToken&&... token) {
  const task_scope scope(t);
#if defined(ASIO_PULSE_DETAIL_POOLED_SPAWN)
  if constexpr (sizeof...(CompletionToken) == 1) {
    const std::size_t bytes = detail::service_of(t.context()).core()->opts().fiber_stack;
    return boost::asio::spawn(
        t.start_executor(), std::allocator_arg, detail::pooled_stack(bytes),
        detail::spawned_function<std::decay_t<Function>>{std::forward<Function>(function)},
        std::forward<CompletionToken>(token)...);
  } else
#endif
    return boost::asio::spawn(t.start_executor(), std::forward<Function>(function),
                              std::forward<CompletionToken>(token)...);
}

}  // namespace asio_pulse
