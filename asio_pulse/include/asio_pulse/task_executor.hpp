// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/detail/asio/context_service.hpp>
#include <asio_pulse/detail/asio/handler_operation.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/should_yield.hpp>

#include <boost/asio/execution.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>

#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace asio_pulse {

class task_executor;

namespace detail {

/// An executor of the home context that counts as work, so that run() does not return.
using tracked_home = std::decay_t<decltype(boost::asio::prefer(
    std::declval<boost::asio::io_context::executor_type>(),
    boost::asio::execution::outstanding_work.tracked))>;

inline context_service& service_of(const task_state& t) noexcept {
  return static_cast<context_service&>(*t.core().port());
}

/// The memory of the handler that a task's executor runs on this thread. It is freed when the
/// handler has returned. If no other memory is available, it is reused for a handler of the same
/// type: the handler that drains a strand posts itself again from a destructor, which must not
/// throw.
class memory_of_running {
 public:
  memory_of_running(void* at, serial_node::run_type type) noexcept
      : at_(at), type_(type), outer_(std::exchange(innermost_, this)) {}
  ~memory_of_running() {
    innermost_ = outer_;
    ::operator delete(at_);
  }
  memory_of_running(const memory_of_running&) = delete;
  memory_of_running& operator=(const memory_of_running&) = delete;

  /// Null if no handler of this type is running, or its memory is in use again already.
  [[nodiscard]] static void* take(serial_node::run_type type) noexcept {
    memory_of_running* const here = innermost_;
    return here != nullptr && here->type_ == type ? std::exchange(here->at_, nullptr) : nullptr;
  }

 private:
  // NOLINTNEXTLINE(readability-identifier-naming): it takes the member for a global variable
  inline static constinit thread_local memory_of_running* innermost_ = nullptr;

  void* at_;
  serial_node::run_type type_;
  memory_of_running* outer_;
};

template <class Function>
struct serial_function final : serial_node {
  explicit serial_function(Function f)
      : serial_node(&serial_function::call_or_destroy, hooks::detail::site_of<Function>),
        function(std::move(f)) {}

  // Whether the memory comes from plain operator new, so that it can be reused.
  static constexpr bool plain_memory = alignof(Function) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__;

  /// Null if there is no memory.
  [[nodiscard]] static void* allocate() noexcept {
    if constexpr (plain_memory) {
      void* const at = ::operator new(sizeof(serial_function), std::nothrow);
      return at != nullptr ? at : memory_of_running::take(&serial_function::call_or_destroy);
    } else {
      return ::operator new (sizeof(serial_function), std::align_val_t{alignof(serial_function)},
                             std::nothrow);
    }
  }
  /// Makes the node in memory from allocate().
  template <class F>
  [[nodiscard]] static serial_function* make(void* at, F&& f) {
    try {
      return ::new (at) serial_function(Function(std::forward<F>(f)));
    } catch (...) {
      if constexpr (plain_memory) {
        ::operator delete(at);
      } else {
        ::operator delete (at, std::align_val_t{alignof(serial_function)});
      }
      throw;
    }
  }

  static void call_or_destroy(serial_node* base, bool call) {
    auto* const self = static_cast<serial_function*>(base);
    Function f(std::move(self->function));
    if constexpr (plain_memory) {
      std::destroy_at(self);
      const memory_of_running until_it_returns(self, &serial_function::call_or_destroy);
      if (call) std::move(f)();
    } else {
      delete self;
      if (call) std::move(f)();
    }
  }

  Function function;
};

/// A task's queue together with its driver: an operation in Asio's queue, whose turns run the
/// handlers of the task, in the home context or on the isolation pool. There is one such operation,
/// which is reused, so that nothing can fail between the acceptance of a handler and its turn.
///
/// While the driver is queued or runs, it holds a reference to the task. While it is on the
/// isolation pool, it also holds one unit of work of the home context, whose run() therefore does
/// not return.
class serial_driver final : public serial_queue {
 public:
  /// Queues the driver where the task belongs now. Called if push() has returned true, and by the
  /// driver itself.
  void send(task_state& t) noexcept {
    hooks::acquire(t);  // released in turn_operation::complete()
    context_service& service = service_of(t);
    if (thrown_ == nullptr && wants_away(t)) pool_ = service.pool_scheduler();
    if (pool_ != nullptr) {
      home_ = static_cast<scheduler_type*>(service.scheduler());
      home_->work_started();
    }
    const label_scope label(&t);
    scheduler_type* const to =
        pool_ != nullptr ? pool_ : static_cast<scheduler_type*>(service.scheduler());
    to->post_immediate_completion(&make_operation(t, service), false);
  }

  /// In a turn, by the handler that it runs: the handler has to continue on another thread, so the turn
  /// ends. Returns false on the isolation pool, where that thread never looks.
  [[nodiscard]] bool turn_over_to(const thread_pin& whose) noexcept {
    if (pool_ != nullptr) return false;
    turned_over_to_ = whose;
    return true;
  }

 private:
  struct turn_operation final : handler_operation<turn_operation> {
    static constexpr bool asio_pulse_drains = true;  // see hooks/site.hpp

    turn_operation(serial_driver& d, task_state& t) noexcept : driver(d), whose(t) {}

    void completed(void* owner) {
      serial_driver& d = driver;
      // This may be the last reference to the task, with which the driver ends.
      const task_ref last(&whose);
      if (owner == nullptr) {  // the operation is destroyed with its context
        if (std::exchange(d.pool_, nullptr) != nullptr) d.home_->work_finished();
      } else if (d.pool_ != nullptr) {
        d.turn_away(*last);
      } else {
        d.turn_at_home(*last);
      }
    }

    serial_driver& driver;
    task_state& whose;  ///< one reference
  };

  turn_operation& make_operation(task_state& t, [[maybe_unused]] context_service& service) {
    turn_operation& operation = operation_.emplace(*this, t);
    BOOST_ASIO_HANDLER_CREATION((service.home(), operation, "task_executor", this, 0, "turn"));
    return operation;
  }

  [[nodiscard]] static bool wants_away(const task_state& t) noexcept {
    return isolates(t.level.load(std::memory_order_relaxed)) && t.core().may_isolate(t) &&
           !t.core().shadow();
  }

  void turn_at_home(task_state& t) {
    // The rest of the queue gets another turn, also if this one ends by an exception.
    struct hand_over {
      serial_driver& driver;
      task_state& task;
      bool dismissed = false;
      ~hand_over() {
        if (dismissed) return;
        driver.left();
        driver.send(task);
      }
    } on_exit{*this, t};
    if (thrown_ != nullptr) std::rethrow_exception(std::exchange(thrown_, nullptr));
    hooks::thread_state& ts = hooks::this_thread();
    turn_begins(ts.clock.last());
    bool ran = false;
    bool ends_early = false;
    while (!ends_early) {
      if (wants_away(t) && !empty()) break;
      on_exit.dismissed = !run_next();
      if (on_exit.dismissed) break;
      if (turned_over_to_.number != 0) {
        context_service& service = service_of(t);
        service.let_others_look(service.only_waits(), std::exchange(turned_over_to_, {}));
        break;
      }
      ran = true;
      ends_early = over(t, ts.clock.last());
    }
    if (!ran) ++ts.phantom_turns;
    if (ends_early) t.core().turn_ends(t);
  }

  [[nodiscard]] static bool over(task_state& t, timing::ticks now) noexcept {
    return !t.core().shadow() && t.core().turn_is_over(t, now);
  }

  void turn_away(task_state& t) {
    {
      const hooks::worker_scope worker(pool_, t.core(), t.core().opts().enabled);
      try {
        while (wants_away(t) && !empty()) {
          t.core().counted().add<&statistics::isolated>();
          (void)run_next();
        }
      } catch (...) {
        // The exception has to leave the run() of the home context.
        thrown_ = std::current_exception();
      }
    }
    left();
    // The driver is dismissed in the home context only. If the last unit of work were released here
    // while no thread is in the home context's run(), the context would count as stopped, and a
    // run() after the next post() would return at once.
    scheduler_type& home = *home_;
    pool_ = nullptr;
    hooks::acquire(t);
    const label_scope label(&t);
    home.post_deferred_completion(&make_operation(t, service_of(t)));
  }

  /// Runs the next handler. Returns false if there is none: then the driver is dismissed, and
  /// another thread may have sent it again already.
  [[nodiscard]] bool run_next() {
    hooks::thread_state& ts = hooks::this_thread();
    entered();
    serial_node* const node = pop();
    if (node == nullptr) return false;
    const hooks::poll_frame frame(ts.arbiter != nullptr ? ts.owner : &hooks::no_scheduler, *node,
                                  *node->what);
    node->run(node, true);
    return true;
  }

  std::optional<turn_operation> operation_;  ///< in use by one driver at a time
  scheduler_type* pool_ = nullptr;           ///< the pool that the driver is on, or null
  scheduler_type* home_ = nullptr;           ///< where it returns to from the pool
  thread_pin turned_over_to_{};              ///< see turn_over_to(); number 0: no thread
  std::exception_ptr thrown_;                ///< by a handler on the pool; rethrown at home
};

[[nodiscard]] const task_state& state_of(const task_executor& e) noexcept;

inline serial_driver& driver_of(const task_state& t) noexcept {
  return static_cast<serial_driver&>(*t.serial.load(std::memory_order_acquire));
}

}  // namespace detail

/// The executor of a task: its handlers run in order, one at a time, and are charged to the task.
///
/// It can move an isolatable task to the isolation pool, and back, between two of its handlers.
/// Work that goes through this executor is accounted for and held back even in programs that cannot
/// use the tracking definition everywhere.
///
/// \par Cost           One allocation and two mutexes for each handler. With `blocking.possibly`,
///                     a handler runs inline in the task's own handlers while budget remains.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe.
class task_executor {
 public:
  task_executor(const task_executor&) noexcept = default;
  task_executor(task_executor&&) noexcept = default;
  task_executor& operator=(const task_executor&) noexcept = default;
  task_executor& operator=(task_executor&&) noexcept = default;

  template <class Function>
  void execute(Function&& function) const {
    detail::task_state& t = *task_;
    detail::serial_driver& queue = detail::driver_of(t);
    using node = detail::serial_function<std::decay_t<Function>>;
    const bool may_block = !never_ && queue.running_in_this_thread();
    void* const at = may_block && !should_yield() ? nullptr : node::allocate();
    if (at == nullptr) {
      if (!may_block) throw std::bad_alloc();
      // Also without memory: Asio expects that a function which may be called at once is not refused.
      std::decay_t<Function> f(std::forward<Function>(function));
      std::move(f)();
      return;
    }
    const detail::label_scope label(&t);
    if (queue.push(node::make(at, std::forward<Function>(function)))) queue.send(t);
  }

  /// True inside a handler that this executor runs.
  [[nodiscard]] bool running_in_this_thread() const noexcept {
    return task_->serial.load(std::memory_order_acquire)->running_in_this_thread();
  }

  [[nodiscard]] boost::asio::execution_context& query(
      boost::asio::execution::context_t) const noexcept {
    return detail::service_of(*task_).home();
  }
  [[nodiscard]] boost::asio::execution::blocking_t query(
      boost::asio::execution::blocking_t) const noexcept {
    return never_ ? boost::asio::execution::blocking_t(boost::asio::execution::blocking.never)
                  : boost::asio::execution::blocking_t(boost::asio::execution::blocking.possibly);
  }
  [[nodiscard]] boost::asio::execution::outstanding_work_t query(
      boost::asio::execution::outstanding_work_t) const noexcept {
    return work_ ? boost::asio::execution::outstanding_work_t(
                       boost::asio::execution::outstanding_work.tracked)
                 : boost::asio::execution::outstanding_work_t(
                       boost::asio::execution::outstanding_work.untracked);
  }
  [[nodiscard]] task_executor require(boost::asio::execution::blocking_t::never_t) const noexcept {
    task_executor copy(*this);
    copy.never_ = true;
    return copy;
  }
  [[nodiscard]] task_executor require(
      boost::asio::execution::blocking_t::possibly_t) const noexcept {
    task_executor copy(*this);
    copy.never_ = false;
    return copy;
  }
  [[nodiscard]] task_executor require(
      boost::asio::execution::outstanding_work_t::tracked_t) const noexcept {
    task_executor copy(*this);
    if (!copy.work_) {
      copy.work_.emplace(boost::asio::prefer(detail::service_of(*task_).home().get_executor(),
                                             boost::asio::execution::outstanding_work.tracked));
    }
    return copy;
  }
  [[nodiscard]] task_executor require(
      boost::asio::execution::outstanding_work_t::untracked_t) const noexcept {
    task_executor copy(*this);
    copy.work_.reset();
    return copy;
  }

  friend bool operator==(const task_executor& a, const task_executor& b) noexcept {
    return a.task_.get() == b.task_.get() && a.never_ == b.never_ &&
           a.work_.has_value() == b.work_.has_value();
  }
  friend bool operator!=(const task_executor& a, const task_executor& b) noexcept {
    return !(a == b);
  }

 private:
  friend class task;
  friend const detail::task_state& detail::state_of(const task_executor& e) noexcept;
  explicit task_executor(const detail::task_ref& t) noexcept : task_(t) {}

  detail::task_ref task_;
  std::optional<detail::tracked_home> work_;
  bool never_ = false;
};

namespace detail {
inline const task_state& state_of(const task_executor& e) noexcept { return *e.task_; }
}  // namespace detail

}  // namespace asio_pulse
