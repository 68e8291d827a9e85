// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/checkpoint.hpp>
#include <asio_pulse/detail/fiber_resume.hpp>
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
/// Plain handlers that can be suspended. Apart from the rest because it needs Boost.Context.

namespace asio_pulse {

namespace detail {

/// A handler and its arguments, on their way from the poll's stack to the fiber's.
template <class Handler, class... Args>
struct fiber_call {
  Handler& handler;
  std::tuple<Args&&...> args;

  static void run(fiber_block& b, void* argument) {
    try {
      auto& from = *static_cast<fiber_call*>(argument);
      // The poll may be over before the handler is.
      Handler handler(std::move(from.handler));
      std::tuple<std::decay_t<Args>...> args(std::move(from.args));
      fiber_suspension<Handler> suspension(handler);
      struct armed {
        fiber_block& b;
        ~armed() { b.suspend = nullptr; }
      } const while_it_runs{b};
      b.suspension = &suspension;
      b.suspend = &fiber_suspension<Handler>::suspend;
      std::apply(std::move(handler), std::move(args));
    } catch (const fiber_unwind&) {  // NOLINT(bugprone-empty-catch): it has come to its end
    } catch (...) {
      machine_of(b).error = std::current_exception();
    }
  }
};

template <class Handler, class... Args>
void call_preemptible(Handler&& handler, Args&&... args) {
  using handler_type = std::remove_reference_t<Handler>;
  hooks::thread_state& ts = hooks::this_thread();
  // Where no checkpoint can ever say yes, and on a fiber, which is suspended as a whole: no fiber.
  fiber_block* const b =
      ts.observer == nullptr || ts.top == nullptr || fiber_here() != nullptr
          ? nullptr
          : take_fiber(fiber_size_class(
                static_cast<const context_core*>(ts.observer)->opts().fiber_stack));
  if (b == nullptr) {
    std::invoke(std::forward<Handler>(handler), std::forward<Args>(args)...);
    return;
  }
  if (b->discard == nullptr) [[unlikely]] {
    make_fiber(*b);
  }
  fiber_call<handler_type, Args...> call{handler, {std::forward<Args>(args)...}};
  fiber_machine& m = machine_of(*b);
  m.job = &fiber_call<handler_type, Args...>::run;
  m.argument = &call;
  run_fiber(*b);
}

}  // namespace detail

/// What preemptible() returns: a handler, with the associations of the one inside.
template <class Handler>
class preemptible_handler {
 public:
  explicit preemptible_handler(Handler handler) : handler_(std::move(handler)) {}

  template <class... Args>
  void operator()(Args&&... args) && {
    detail::call_preemptible(std::move(handler_), std::forward<Args>(args)...);
  }
  /// The handler moves to the fiber: a copy of it, where it can be copied.
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

/// Makes a handler one that can be suspended anywhere inside: it runs on a fiber, and
/// `asio_pulse::checkpoint();` at any call depth lets others go first, if it has had its share.
/// The rest is then queued, on the executor that is associated with the handler or else where the
/// handler came from (its context, its strand, its task's executor), and goes on later, perhaps on
/// another thread.
///
/// `asio::post(io, asio_pulse::preemptible([] { parse(huge_document); }));`
///
/// - A strand, and a task's executor, exclude their other handlers while a part of it runs; between
///   two parts others get their turn, as in a coroutine. Each part counts as a handler in what
///   run() returns.
/// - What the handler throws leaves through run(), of the part that threw it.
/// - Suspended when its context is destroyed, it is unwound: the checkpoint throws something that
///   is no std::exception. A `catch (...)` on the way must rethrow it, and no `noexcept` function
///   may lie between.
/// - It may go on on another thread: what is looked up by thread (thread_local, errno's address,
///   pthread_self()) is not to be kept across a checkpoint. errno itself and the exceptions in
///   flight go with it.
/// - No suspension, silently: while an exception unwinds the stack; inside a nested run function or
///   a strand's inline dispatch(); in a legacy io_context::strand, where the handler names no
///   executor; where there is no memory for a fiber. Refused and reported: under a tracked lock
///   (asio_pulse::mutex, no_yield_scope).
/// - Its stack has options::fiber_stack bytes, and overflows into a guard with a message.
///
/// \par Cost           About 40 ns a handler (see benches/fiber.cpp); no allocation, but of the
///                     stacks, which are pooled; two pages while it is suspended.
/// \par Thread safety  As the handler.
/// \par Errors         As moving or copying the handler.
template <class Handler>
[[nodiscard]] preemptible_handler<std::decay_t<Handler>> preemptible(Handler&& handler) {
  return preemptible_handler<std::decay_t<Handler>>(std::forward<Handler>(handler));
}

}  // namespace asio_pulse

namespace boost::asio {

#if BOOST_VERSION >= 107700

// Whatever is associated with the handler inside.
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
