// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_service.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/should_yield.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

namespace asio_pulse {

class task_executor;

namespace detail {

/// The home executor that keeps its context's run() from returning.
using tracked_home = std::decay_t<decltype(boost::asio::prefer(
    std::declval<boost::asio::io_context::executor_type>(),
    boost::asio::execution::outstanding_work.tracked))>;

inline context_service& service_of(const task_state& t) noexcept {
  return static_cast<context_service&>(*t.core().port());
}

template <class Function>
struct serial_function final : serial_node {
  explicit serial_function(Function f)
      : serial_node(&serial_function::call_or_destroy, hooks::detail::site_of<Function>),
        function(std::move(f)) {}

  static void call_or_destroy(serial_node* base, bool call) {
    auto* const self = static_cast<serial_function*>(base);
    Function f(std::move(self->function));
    delete self;
    if (call) std::move(f)();
  }

  Function function;
};

/// Runs a task's queue for a turn, at home or on the isolation pool.
class serial_driver {
 public:
  /// Sends a driver to where the task belongs now.
  static void send(task_state& t) {
    context_service& service = service_of(t);
    const bool away = wants_away(t);
    const label_scope label(&t);
    if (away) {
      service.isolate(serial_driver(t, service, true));
    } else {
      boost::asio::post(service.home(), serial_driver(t, service, false));
    }
  }

  void operator()() {
    task_state& t = *task_;
    serial_queue& queue = *t.serial.load(std::memory_order_acquire);
    if (!away_) {
      turn(t, queue);
      return;
    }
    const hooks::worker_scope worker(service_->pool_scheduler(), t.core(), t.core().opts().enabled);
    try {
      if (turn(t, queue)) last_turn::post(*service_);
    } catch (...) {
      // An exception leaves the handler through run(), and that is the home context's.
      boost::asio::post(service_->home(),
                        [thrown = std::current_exception()] { std::rethrow_exception(thrown); });
    }
  }

 private:
  /// A turn of the home context that runs nothing, and holds the last of the pool's work until
  /// then. Were it given up on the pool's thread, and nobody in the home context's run() just then,
  /// the context would count as stopped, and a run() after the next post() would return at once.
  struct last_turn : operation_type {
    static void post(context_service& service) {
      const label_scope nobodys(nullptr);
      static_cast<scheduler_type*>(service.scheduler())
          ->post_immediate_completion(new last_turn, false);
    }

   private:
    last_turn() noexcept : operation_type(&last_turn::run) {}
    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      delete static_cast<last_turn*>(self);
      if (owner != nullptr) ++hooks::this_thread().phantom_turns;
    }
  };

  serial_driver(task_state& t, context_service& service, bool away)
      : task_(t), service_(&service), away_(away) {
    if (away) {
      work_.emplace(boost::asio::prefer(service.home().get_executor(),
                                        boost::asio::execution::outstanding_work.tracked));
    }
  }

  [[nodiscard]] static bool wants_away(const task_state& t) noexcept {
    return t.level.load(std::memory_order_relaxed) == tier::isolate && t.core().may_isolate(t) &&
           !t.core().opts().shadow;
  }

  /// True: the queue is empty, and the driver dismissed.
  bool turn(task_state& t, serial_queue& queue) {
    hooks::thread_state& ts = hooks::this_thread();
    // However the turn ends, by an exception too: what is left in the queue gets the next one.
    struct hand_over {
      task_state& t;
      serial_queue& queue;
      bool dismissed = false;
      ~hand_over() {
        if (dismissed) return;
        queue.left();
        send(t);
      }
    } on_exit{t, queue};
    queue.entered();
    const timing::ticks started = ts.clock.last();
    do {
      serial_node* const node = queue.pop();
      if (node == nullptr) {
        on_exit.dismissed = true;
        return true;
      }
      if (away_) t.core().count_isolated();
      const hooks::poll_frame frame(ts.observer != nullptr ? ts.owner : &hooks::no_scheduler, *node,
                                    *node->what);
      node->run(node, true);
    } while (!over(t, started, ts.clock.last()));
    return false;
  }

  [[nodiscard]] bool over(task_state& t, timing::ticks started, timing::ticks now) const noexcept {
    if (t.core().opts().shadow) return false;
    if (wants_away(t) != away_) return true;
    return !away_ && (t.core().overspent(t, now) || now - started >= t.core().quantum());
  }

  task_ref task_;
  context_service* service_;
  std::optional<tracked_home> work_;
  bool away_;
};

}  // namespace detail

/// The executor of a task: its handlers run in order, one at a time, and are charged to the task.
///
/// It is what makes a task movable: a task that was declared isolatable goes to the isolation pool
/// between two of its handlers, and comes back. Where the tracking definition cannot be had for a
/// whole program, work that goes through this executor is accounted for and held back all the same.
///
/// \par Cost           One allocation and two mutexes a handler; `blocking.possibly` runs inline in
/// the task's own
///                     handlers while budget remains.
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
    detail::serial_queue& queue = *t.serial.load(std::memory_order_acquire);
    if (!never_ && queue.running_in_this_thread() && !should_yield()) {
      std::decay_t<Function> f(std::forward<Function>(function));
      std::move(f)();
      return;
    }
    const detail::label_scope label(&t);
    if (queue.push(new detail::serial_function<std::decay_t<Function>>(
            std::forward<Function>(function)))) {
      detail::serial_driver::send(t);
    }
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
  explicit task_executor(const detail::task_ref& t) noexcept : task_(t) {}

  detail::task_ref task_;
  std::optional<detail::tracked_home> work_;
  bool never_ = false;
};

}  // namespace asio_pulse
