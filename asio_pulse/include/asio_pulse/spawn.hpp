// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#endif

#include <asio_pulse/detail/sanitizers.hpp>
#include <asio_pulse/task.hpp>
#include <boost/asio/spawn.hpp>
#include <boost/version.hpp>
#include <utility>

// Asio does not tell ThreadSanitizer of its switches, which then reads past the end of stacks that
// it does not know, into a guard of ours.
#if !defined(ASIO_PULSE_DISABLE) && BOOST_VERSION >= 108000 && \
    defined(BOOST_ASIO_HAS_BOOST_CONTEXT_FIBER) && !defined(ASIO_PULSE_DETAIL_TSAN)
#define ASIO_PULSE_DETAIL_POOLED_SPAWN 1
#include <asio_pulse/detail/fiber_resume.hpp>
#include <memory>
#include <new>
#include <type_traits>
#endif

/// \file
/// Stackful coroutines. Apart from the rest because it needs Boost.Context (before Boost 1.80,
/// Boost.Coroutine).

namespace asio_pulse {

#if defined(ASIO_PULSE_DETAIL_POOLED_SPAWN)

namespace detail {

/// Gives Boost.Context a slot of the pool that preemptible() uses.
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
    give_fiber(*static_cast<fiber_block*>(where.sp));
  }

 private:
  unsigned size_class_;
};

/// Suspends a coroutine of Asio's as its own operations do: by one.
template <class Yield>
bool suspend_coroutine(fiber_block& b) {
  if (asio_runs_on(b)) return false;
  // Asio exchanges neither of these. Those of the resuming thread are left as they are found: empty
  // but in a nested run function inside a catch block.
  struct exchange {
    exception_state mine = std::exchange(exceptions_here(), {});
    int error_number = errno_here();
    ~exchange() {
      exception_state& now = exceptions_here();
      now.caught = mine.caught;
      now.uncaught += mine.uncaught;  // not empty where Asio unwinds the coroutine
      errno_here() = error_number;
    }
  } const on_exit;
  boost::asio::post(*static_cast<Yield*>(b.suspension));
  ready_fiber_thread();
  return true;
}

/// The function of a coroutine, which tells the stack that it is on how to suspend it.
template <class Function>
struct spawned_function {
  Function function;

  template <class Yield>
  requires std::invocable<Function&, Yield>
  decltype(auto) operator()(Yield yield) {
    fiber_block* const b = fiber_here();
    struct armed {
      fiber_block* b;
      ~armed() {
        if (b != nullptr) b->suspend = nullptr;
      }
    } const while_it_runs{b};
    if (b != nullptr) {
      b->suspension = &yield;
      b->suspend = &suspend_coroutine<Yield>;
    }
    return function(yield);
  }
};

}  // namespace detail

#endif

/// Starts a stackful coroutine as work of the task: it, and everything it creates, is charged to
/// the task.
///
/// It is Boost.Asio's coroutine, and Asio's operations are awaited by its `yield`. From Boost 1.80
/// on it runs on a pooled stack of options::fiber_stack bytes, with a guard and a message when it
/// overflows, and `asio_pulse::checkpoint();` at any call depth inside suspends it, as a
/// preemptible() handler.
///
/// \par Cost           The stack comes from the pool; a checkpoint that yields is a post.
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
