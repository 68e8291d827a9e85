// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_service.hpp>
#include <asio_pulse/detail/fiber.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/task_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/handler_tracking.hpp>
#include <boost/asio/detail/thread_context.hpp>
#include <boost/asio/detail/thread_info_base.hpp>
#include <boost/asio/post.hpp>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

/// \file
/// Where the rest of a suspended handler goes: to the executor that its handler names, or to the
/// queue that it came from.

namespace asio_pulse::detail {

using strand_stack = asio_detail::call_stack<strand_impl>;
using run_stack =
    asio_detail::call_stack<asio_detail::thread_context, asio_detail::thread_info_base>;
using legacy_strand_stack = asio_detail::call_stack<asio_detail::strand_service::strand_impl>;

struct strand_key {
  friend constexpr auto member(strand_key) noexcept;
};
template struct expose<&strand_stack::context::key_, strand_key>;

/// Asio's notes of who runs on this thread lie on the stack of whoever runs. Those on the fiber's
/// own stack would go with the fiber, and the thread would go on believing them: not from here.
inline bool asio_runs_on(const fiber_block& b) noexcept {
  return b.holds(run_stack::top()) || b.holds(strand_stack::top()) ||
         b.holds(legacy_strand_stack::top());
}

/// The strand whose handler runs on this thread, innermost; null for none.
inline strand_impl* strand_here() noexcept {
  const unsigned char* const top = strand_stack::top();
  if (top == nullptr) return nullptr;
  // A run function that was called inside the strand's handler lies deeper in the stack: what that
  // runs is not the strand's.
  const void* const runner = run_stack::top();
  if (runner != nullptr && static_cast<const void*>(top) > runner) return nullptr;
  return reinterpret_cast<const strand_stack::context*>(top)->*member(strand_key{});
}

/// The rest of a handler, in an executor's hands. Who destroys it unwinds the fiber.
template <class Handler>
class fiber_rest {
 public:
  explicit fiber_rest(fiber_block& b) noexcept : block_(&b) {}
  fiber_rest(fiber_rest&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  fiber_rest& operator=(fiber_rest&&) = delete;
  ~fiber_rest() {
    if (block_ != nullptr) unwind_fiber(*block_);
  }

  void operator()() {
    ready_fiber_thread();
    run_fiber(*std::exchange(block_, nullptr));
  }

 private:
  fiber_block* block_;
};

/// The same as an operation, in Asio's own queues. It lies on the fiber's stack: no allocation.
template <class Handler>
class fiber_operation final : public operation_type {
 public:
  explicit fiber_operation(fiber_block& b) noexcept
      : operation_type(&fiber_operation::complete), block_(b) {}
  ~fiber_operation() = default;

 private:
  static void complete(void* owner, operation_type* base, const boost::system::error_code&,
                       std::size_t) {
    auto* const self = static_cast<fiber_operation*>(base);
    // What the tracking macro takes for the guard of the operation's memory.
    [[maybe_unused]] struct {
      void* v;
      void* p;
    } p{self, self};
    BOOST_ASIO_HANDLER_COMPLETION((*self));
    fiber_block& b = self->block_;
    if (owner == nullptr) {
      unwind_fiber(b);
    } else {
      ready_fiber_thread();
      run_fiber(b);
    }
  }

  fiber_block& block_;
};

/// The place in the source that the running handler's operation was created at, for the rest of it.
class location_of_poll {
 public:
  explicit location_of_poll(const hooks::location& l) noexcept
      : scope_(l.file, l.line, l.function) {}

 private:
  hooks::location_scope scope_;
};

/// Stands for the executor of a handler that names none: what Asio takes for one differs by
/// version.
struct no_executor {};

/// Whether the handler names an executor that its rest can be posted to.
template <class Handler>
concept names_executor =
    !std::is_same_v<typename boost::asio::associated_executor<Handler, no_executor>::type,
                    no_executor> &&
    requires(typename boost::asio::associated_executor<Handler>::type executor, void (*f)()) {
  boost::asio::post(executor, f);
};

/// What a handler on a fiber needs to be suspended; lives on the fiber's stack.
template <class Handler, bool = names_executor<Handler>>
class fiber_suspension {
 public:
  explicit fiber_suspension(const Handler& handler) noexcept
      : executor_(boost::asio::get_associated_executor(handler)) {}

  static bool suspend(fiber_block& b) {
    if (asio_runs_on(b)) return false;
    suspend_fiber(b, &fiber_suspension::park);
    return true;
  }

 private:
  using executor_type = typename boost::asio::associated_executor<Handler>::type;

  static void park(fiber_block& b) {
    // The fiber may be running again, and be gone, before post() has returned.
    executor_type executor(static_cast<fiber_suspension*>(b.suspension)->executor_);
    fiber_rest<Handler> rest(b);
    const hooks::poll_frame* const frame = hooks::this_thread().top;
    const location_of_poll here(frame != nullptr ? frame->where() : hooks::location{});
    boost::asio::post(executor, std::move(rest));
  }

  executor_type executor_;
};

/// Of a handler that names no executor: back to the queue that it came from.
template <class Handler>
class fiber_suspension<Handler, false> {
 public:
  explicit fiber_suspension(const Handler&) noexcept {}

  static bool suspend(fiber_block& b) {
    // A legacy strand has no way in for an operation of ours.
    if (asio_runs_on(b) || legacy_strand_stack::top() != nullptr) return false;
    auto& self = *static_cast<fiber_suspension*>(b.suspension);
    struct clear {
      std::optional<fiber_operation<Handler>>& operation;
      ~clear() { operation.reset(); }
    } const on_exit{self.operation_};
    suspend_fiber(b, &fiber_suspension::park);
    return true;
  }

 private:
  static void park(fiber_block& b) {
    hooks::thread_state& ts = hooks::this_thread();
    const hooks::poll_frame& frame = *ts.top;
    const location_of_poll here(frame.where());
    auto& service = static_cast<context_service&>(*static_cast<context_core*>(ts.observer)->port());
    if (strand_impl* const strand = strand_here()) {
      // Whoever drains the strand, below us on this stack, finds it when the batch is done.
      auto& operation = static_cast<fiber_suspension*>(b.suspension)->operation_.emplace(b);
      const std::lock_guard lock(as_mutex(strand->*member(strand_mutex{})));
      (strand->*member(strand_waiting{})).push(&operation);
      return;
    }
    auto* const t = static_cast<task_state*>(frame.task());
    serial_queue* const queue = t != nullptr ? t->serial.load(std::memory_order_acquire) : nullptr;
    if (queue != nullptr && queue->running_in_this_thread()) {
      fiber_rest<Handler> rest(b);
      const label_scope label(t);
      if (queue->push(new serial_function<fiber_rest<Handler>>(std::move(rest)))) {
        serial_driver::send(*t);
      }
      return;
    }
    auto& operation = static_cast<fiber_suspension*>(b.suspension)->operation_.emplace(b);
    static_cast<scheduler_type*>(service.scheduler())->post_immediate_completion(&operation, false);
  }

  std::optional<fiber_operation<Handler>> operation_;
};

}  // namespace asio_pulse::detail
