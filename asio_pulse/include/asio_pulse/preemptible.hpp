// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/checkpoint.hpp>
#include <asio_pulse/detail/asio/fiber_resume.hpp>
#include <asio_pulse/fiber_stacks.hpp>
#include <asio_pulse/io_context.hpp>

#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/version.hpp>

#include <concepts>
#include <exception>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#if BOOST_VERSION >= 107700
#include <boost/asio/associator.hpp>
#endif

/// \file
/// Plain handlers that can be suspended. asio_pulse.hpp does not include this header, because it
/// needs Boost.Context.

namespace asio_pulse {

namespace detail {

/// A handler and its arguments, which are moved from the poll's stack to the fiber's.
template <class Handler, class... Args>
struct fiber_call {
  Handler& handler;
  std::tuple<Args&&...> args;

  static void run(fiber_block& b, void* argument) {
    try {
      auto& from = *static_cast<fiber_call*>(argument);
      // The poll may end before the handler does.
      Handler handler(std::move(from.handler));
      std::tuple<std::decay_t<Args>...> args(std::move(from.args));
      fiber_suspension<Handler> suspension(handler);
      struct armed {
        fiber_block& b;
        ~armed() { b.suspend = nullptr; }
      } const while_it_runs{b};
      b.suspension = &suspension;
      b.may_suspend = &fiber_suspension<Handler>::may_suspend;
      b.suspend = &fiber_suspension<Handler>::suspend;
      std::apply(std::move(handler), std::move(args));
    } catch (const fiber_unwind&) {  // NOLINT(bugprone-empty-catch): the handler is unwound
    } catch (...) {
      machine_of(b).error = std::current_exception();
    }
  }
};

/// Makes the fiber, if there is none in the block, and gives it its next job.
inline void give_job(fiber_block& b, void (*job)(fiber_block&, void*), void* argument) noexcept {
  if (b.discard == nullptr) [[unlikely]] {
    make_fiber(b);
  }
  if (this_fiber_thread.signals_differed) [[unlikely]] {
    remember_signals();
  }
  fiber_machine& m = machine_of(b);
  m.locks = {};
  m.job = job;
  m.argument = argument;
}

template <class Handler, class... Args>
void call_preemptible(Handler&& handler, Args&&... args) {
  using handler_type = std::remove_reference_t<Handler>;
  hooks::thread_state& ts = hooks::this_thread();
  // No fiber is needed where no checkpoint can ever yield, nor on a fiber, which is suspended as a
  // whole.
  fiber_block* const b = ts.arbiter == nullptr || ts.top == nullptr || fiber_here() != nullptr
                             ? nullptr
                             : take_fiber(fiber_size_class(
                                   static_cast<const context_core*>(ts.arbiter)->fiber_bytes()));
  if (b == nullptr) {
    std::invoke(std::forward<Handler>(handler), std::forward<Args>(args)...);
    return;
  }
  fiber_call<handler_type, Args...> call{handler, {std::forward<Args>(args)...}};
  give_job(*b, &fiber_call<handler_type, Args...>::run, &call);
  run_fiber(*b);
}

#if defined(ASIO_PULSE_TRACKING)

/// Stands for the handler of an operation that does not know that it runs on a fiber
/// (options::preemptible).
struct unknowing_handler {};

/// Completes an operation on a fiber. Its poll is on the stack of the thread.
struct operation_call {
  operation_type* operation;
  void* owner;

  /// Whoever asks for it, the handler is suspended as at an automatic checkpoint: it is resumed by
  /// the same thread, and never unwound.
  static bool suspend(fiber_block& b) {
    using suspension = fiber_suspension<unknowing_handler>;
    if (b.automatic) return suspension::suspend(b);
    const auto* const core = static_cast<const context_core*>(hooks::this_thread().arbiter);
    if (!core->returns_here(hooks::this_thread())) return false;
    b.pinned = pin_here();
    b.automatic = true;
    const bool done = suspension::suspend(b);
    b.automatic = false;
    return done;
  }

  static void run(fiber_block& b, void* argument) {
    try {
      const operation_call call = *static_cast<operation_call*>(argument);
      fiber_suspension<unknowing_handler> suspension{unknowing_handler{}};
      struct armed {
        fiber_block& b;
        ~armed() { b.suspend = nullptr; }
      } const while_it_runs{b};
      b.suspension = &suspension;
      b.may_suspend = &fiber_suspension<unknowing_handler>::may_suspend;
      b.suspend = &operation_call::suspend;
      call.operation->complete(call.owner, boost::system::error_code(), 0);
    } catch (...) {
      machine_of(b).error = std::current_exception();
    }
  }

  /// See operation_runner.
  static bool on_fiber(context_core& core, hooks::tracked_operation& op, void* operation,
                       void* owner, const hooks::site& what) {
    fiber_block* const b = take_fiber(fiber_size_class(core.fiber_bytes()));
    if (b == nullptr) return false;
    operation_call call{static_cast<operation_type*>(operation), owner};
    give_job(*b, &operation_call::run, &call);
    const hooks::poll_frame poll(owner, op, what);
    op.set(hooks::tracked_operation::inside);
    run_fiber(*b);
    return true;
  }
};

/// So that a context with options::preemptible finds it.
inline const bool operation_runner_set = [] {  // NOLINT(*-global-init): it is constant-initialised
  the_operation_runner.store(&operation_call::on_fiber, std::memory_order_relaxed);
  return true;
}();

#endif

}  // namespace detail

/// What preemptible() returns: a handler with the associated types of the handler inside.
template <class Handler>
class preemptible_handler {
 public:
  explicit preemptible_handler(Handler handler) : handler_(std::move(handler)) {}

  template <class... Args>
  void operator()(Args&&... args) && {
    detail::call_preemptible(std::move(handler_), std::forward<Args>(args)...);
  }
  /// Runs the handler on a fiber: a copy of it if it can be copied, else the handler itself.
  template <class... Args>
  void operator()(Args&&... args) & {
    if constexpr (std::copy_constructible<Handler>) {
      Handler copy(handler_);
      detail::call_preemptible(std::move(copy), std::forward<Args>(args)...);
    } else {
      detail::call_preemptible(std::move(handler_), std::forward<Args>(args)...);
    }
  }
  template <class... Args>
  requires std::copy_constructible<Handler>
  void operator()(Args&&... args) const& {
    Handler copy(handler_);
    detail::call_preemptible(std::move(copy), std::forward<Args>(args)...);
  }

  [[nodiscard]] const Handler& get() const noexcept { return handler_; }

 private:
  Handler handler_;
};

/// Makes a handler that can be suspended at any call depth. It runs on a fiber, and
/// `asio_pulse::checkpoint();` yields to other handlers if this one has used up its share of the
/// CPU. The rest of the handler is then queued: on the executor that is associated with the handler
/// or, if there is none, where the handler came from (its context, its strand or its task's
/// executor). It continues later, perhaps on another thread.
///
/// `asio::post(io, asio_pulse::preemptible([] { parse(huge_document); }));`
///
/// - A strand, or a task's executor, runs none of its other handlers while a part of this one runs.
///   Between two parts it may run others, as with a coroutine. Each part counts as a handler in
///   what run() returns.
/// - An exception that the handler throws leaves the call of run() that runs this part of it.
/// - If the handler is suspended when its context is destroyed, it is unwound: the checkpoint
///   throws an object that is not a std::exception. A `catch (...)` on the way must rethrow it, and
///   there must be no `noexcept` function on the way.
/// - It may continue on another thread. Do not keep what belongs to a thread (a reference to a
///   thread_local, the address of errno, pthread_self()) across a checkpoint. The value of errno
///   and the exceptions in flight are carried over.
/// - A checkpoint does nothing while an exception unwinds the stack; inside a nested run function
///   or an inline dispatch() of a strand; in a legacy io_context::strand if the handler has no
///   associated executor; and if there is no memory for a fiber, or to queue the rest. While a
///   tracked lock is held (asio_pulse::mutex, no_yield_scope), the yield is refused and reported.
/// - Its stack has options::fiber_stack bytes. An overflow is caught by a guard, and a message says
///   so.
///
/// \par Cost           About 40 ns for each handler (see benches/fiber.cpp). No allocation except
///                     for the stacks, which are pooled. Two pages while it is suspended.
/// \par Thread safety  As the handler.
/// \par Errors         As moving or copying the handler.
template <class Handler>
[[nodiscard]] preemptible_handler<std::decay_t<Handler>> preemptible(Handler&& handler) {
  return preemptible_handler<std::decay_t<Handler>>(std::forward<Handler>(handler));
}

}  // namespace asio_pulse

namespace boost::asio {

#if BOOST_VERSION >= 107700

// Everything that is associated with the handler inside.
template <template <class, class> class Associator, class Handler, class DefaultCandidate>
struct associator<Associator, ::asio_pulse::preemptible_handler<Handler>, DefaultCandidate>
    : Associator<Handler, DefaultCandidate> {
  using base = Associator<Handler, DefaultCandidate>;
  static typename base::type get(const ::asio_pulse::preemptible_handler<Handler>& h) noexcept {
    return base::get(h.get());
  }
  static auto get(const ::asio_pulse::preemptible_handler<Handler>& h,
                  const DefaultCandidate& c) noexcept -> decltype(base::get(h.get(), c)) {
    return base::get(h.get(), c);
  }
};

#else

template <class Handler, class Executor>
struct associated_executor<::asio_pulse::preemptible_handler<Handler>, Executor> {
  using type = typename associated_executor<Handler, Executor>::type;
  static type get(const ::asio_pulse::preemptible_handler<Handler>& h,
                  const Executor& e = Executor()) noexcept {
    return associated_executor<Handler, Executor>::get(h.get(), e);
  }
};
template <class Handler, class Allocator>
struct associated_allocator<::asio_pulse::preemptible_handler<Handler>, Allocator> {
  using type = typename associated_allocator<Handler, Allocator>::type;
  static type get(const ::asio_pulse::preemptible_handler<Handler>& h,
                  const Allocator& a = Allocator()) noexcept {
    return associated_allocator<Handler, Allocator>::get(h.get(), a);
  }
};

#endif

}  // namespace boost::asio

#endif
