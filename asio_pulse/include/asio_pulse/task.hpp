// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/io_context.hpp>
#include <asio_pulse/should_yield.hpp>
#include <asio_pulse/task_executor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>

#include <cstdint>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace asio_pulse {

/// A handle to a task: a session, a job or a coroutine, which has a budget. Copies of the handle
/// refer to the same task.
///
/// An operation belongs to the task that its executor or spawn names; otherwise to the task of the
/// task_scope in which it was created; otherwise to the task of the handler that created it. A task
/// lives as long as there are handles, executors or operations that refer to it.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe; the task behind them: Safe.
class task {
 public:
  using executor_type = task_executor;

  /// Makes a task of `context`, which must be an asio_pulse::io_context. It may be passed as a
  /// reference to its base class.
  ///
  /// \par Errors  std::invalid_argument if an option is out of range (the text names the option and
  ///              the rule) or `context` is not an asio_pulse::io_context; std::bad_alloc.
  explicit task(boost::asio::execution_context& context, const task_options& opts = {})
      : task(detail::service_of(context), opts) {}

  [[nodiscard]] std::string_view name() const noexcept { return state_->name.get(); }
  /// Unique within the context, never 0.
  [[nodiscard]] std::uint64_t id() const noexcept { return state_->id(); }
  [[nodiscard]] tier current_tier() const noexcept {
    return state_->level.load(std::memory_order_relaxed);
  }
  [[nodiscard]] task_statistics stats() const noexcept {
    return {.polls = state_->polls(), .cpu = timing::timebase::get().to_ns(state_->cost())};
  }
  /// The executor of this task. It runs the task's handlers one at a time and in order, on the
  /// context's threads or, while the task is isolated, on the isolation pool.
  ///
  /// \par Errors  std::bad_alloc, at the first call for a task.
  [[nodiscard]] executor_type get_executor() const {
    if (state_->serial.load(std::memory_order_acquire) == nullptr) {
      auto fresh = std::make_unique<detail::serial_driver>();
      if (state_->core().closed()) fresh->clear(true);
      detail::serial_queue* none = nullptr;
      // Release publishes the queue; it pairs with the acquire load of the pointer.
      if (state_->serial.compare_exchange_strong(none, fresh.get(), std::memory_order_acq_rel))
        (void)fresh.release();
    }
    return executor_type(state_);
  }
  /// The executor on which this task's work starts: its own if it is isolatable, else the
  /// context's.
  [[nodiscard]] boost::asio::any_io_executor start_executor() const {
    if (state_->isolatable) return get_executor();
    return detail::service_of(*state_).home().get_executor();
  }
  [[nodiscard]] bool isolatable() const noexcept { return state_->isolatable; }
  /// Changes the task's budget, also while its handlers run: `budget`, `per` and `burst`, at once.
  /// What the task has used stays used, up to one bucket of debt under the new budget. The name must
  /// be empty or the task's own, and `isolatable` as before. `group`, `priority` and `deadline` must be
  /// as before, too, or left out; they stay.
  ///
  /// It counts as an update of the context; see io_context::update().
  ///
  /// \par Blocking       Waits for updates in other threads. Workers do not wait.
  /// \par Thread safety  Any thread; also if other threads use the task.
  /// \par Errors         std::invalid_argument if an option is out of range or cannot change; the
  ///                     text names it. std::bad_alloc.
  void update(const task_options& to) const {
    const auto r = state_->core().update(*state_, to);
    if (!r.text.empty()) throw std::invalid_argument(r.text);
  }
  /// The same with an error code: sets `ec` to error::invalid_option or error::fixed_option, or
  /// clears it.
  void update(const task_options& to, boost::system::error_code& ec) const {
    const auto r = state_->core().update(*state_, to);
    ec = r.text.empty() ? boost::system::error_code() : make_error_code(r.what);
  }
  /// The context.
  [[nodiscard]] boost::asio::io_context& context() const noexcept {
    return detail::service_of(*state_).home();
  }

  friend bool operator==(const task& a, const task& b) noexcept {
    return a.state_.get() == b.state_.get();
  }

 private:
  friend class task_scope;

  task(detail::context_service& service, const task_options& opts)
      : state_((validate(opts), service.core()->make_task(opts))) {
    if (service.core()->wants_isolation(*state_)) service.start_pool();
  }

  detail::task_ref state_;
};

/// Operations that are created in this scope, on this thread, belong to the task. The scope must
/// not live across a suspension of a coroutine. It may live across a suspension of a fiber, also if
/// the fiber continues on another thread.
class task_scope {
 public:
  explicit task_scope(const task& t) noexcept
      : keep_(t.state_), before_(hooks::this_thread_by_now(), keep_.get()) {}
  ~task_scope() { before_.restore(hooks::this_thread_by_now()); }
  task_scope(const task_scope&) = delete;
  task_scope& operator=(const task_scope&) = delete;

 private:
  detail::task_ref keep_;
  hooks::label_before before_;
};

namespace detail {

/// Whether a handler of `t` may run inline instead of being queued: the calling handler belongs to
/// the same task, and the task has time left.
inline bool may_run_inline(const task& t) noexcept {
  return this_task::id() == t.id() && !should_yield();
}

struct start_post {
  task t;
  template <class Handler>
  void operator()(Handler&& handler) const {
    const task_scope scope(t);
    if (t.isolatable()) {
      boost::asio::post(t.get_executor(), std::forward<Handler>(handler));
    } else {
      boost::asio::post(t.context().get_executor(), std::forward<Handler>(handler));
    }
  }
};

struct start_defer {
  task t;
  template <class Handler>
  void operator()(Handler&& handler) const {
    const task_scope scope(t);
    if (t.isolatable()) {
      boost::asio::defer(t.get_executor(), std::forward<Handler>(handler));
    } else {
      boost::asio::defer(t.context().get_executor(), std::forward<Handler>(handler));
    }
  }
};

struct start_dispatch {
  task t;
  template <class Handler>
  void operator()(Handler&& handler) const {
    const bool here = may_run_inline(t);
    const task_scope scope(t);
    if (t.isolatable()) {
      boost::asio::dispatch(t.get_executor(), std::forward<Handler>(handler));
    } else if (here) {
      boost::asio::dispatch(t.context().get_executor(), std::forward<Handler>(handler));
    } else {
      boost::asio::post(t.context().get_executor(), std::forward<Handler>(handler));
    }
  }
};

}  // namespace detail

/// Submits a handler as work of the task. The three functions behave as boost::asio::post(),
/// defer() and dispatch(), except that dispatch() runs the handler inline only in a handler of the
/// same task that has time left, and otherwise queues it.
template <class CompletionToken>
auto post(const task& t, CompletionToken&& token) {
  return boost::asio::async_initiate<CompletionToken, void()>(detail::start_post{t}, token);
}
template <class CompletionToken>
auto defer(const task& t, CompletionToken&& token) {
  return boost::asio::async_initiate<CompletionToken, void()>(detail::start_defer{t}, token);
}
template <class CompletionToken>
auto dispatch(const task& t, CompletionToken&& token) {
  return boost::asio::async_initiate<CompletionToken, void()>(detail::start_dispatch{t}, token);
}

}  // namespace asio_pulse

#endif
