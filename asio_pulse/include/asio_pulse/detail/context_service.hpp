// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio_internals.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/serial_queue.hpp>
#include <asio_pulse/detail/spare_workers.hpp>
#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/strand_service.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

/// \file
/// Where asio-pulse touches Asio's internals: all of it is here, in spare_workers.hpp and
/// asio_internals.hpp, and in hooks/tracking.hpp.

namespace asio_pulse::detail {

/// What a context of ours adds to Asio's: parked operations, the driver that releases them, the
/// isolation pool.
///
/// A service, so that Asio destroys it at the right moment: shutdown() runs before the scheduler's
/// own.
class context_service final : public boost::asio::execution_context::service, public asio_port {
 public:
  // Asio finds services by this. Inline: one object for the whole program.
  inline static boost::asio::execution_context::id id;

  explicit context_service(boost::asio::execution_context& context)
      : boost::asio::execution_context::service(context),
        scheduler_(boost::asio::use_service<scheduler_type>(
            static_cast<boost::asio::io_context&>(context))) {}

  /// Whether the scheduler, just made, has the layout that this file was compiled for. Its
  /// constructor is an inline function: where a part of the program is not tracked, the linker may
  /// have kept that part's. Then this flag, which starts as true and lies behind the first
  /// operation inside, is elsewhere, and a count of zero in its place.
  [[nodiscard]] bool laid_out_as_expected() const noexcept {
    return scheduler_.*member(scheduler_interrupted{});
  }

  /// Called once, by the context's constructor.
  void open(context_core* core) {
    core_ = core;
    core_->acquire();
    core_->connect(this);
    const options& o = core_->opts();
    if (o.spare_workers != 0 && o.enabled && !o.shadow && !core_->one_thread()) {
      spares_ = std::make_unique<spare_workers>(*core_, scheduler_);
    }
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
    if (o.watchdog) tell_awaitable_layout();
#endif
    if (o.enabled) hooks::add_observer(&scheduler_, *core_);
  }

  ~context_service() override {
    if (core_ == nullptr) return;
    core_->connect(nullptr);
    core_->release();
  }

  [[nodiscard]] context_core* core() const noexcept { return core_; }
  [[nodiscard]] boost::asio::io_context& home() noexcept {
    return static_cast<boost::asio::io_context&>(context());
  }

  // asio_port
  [[nodiscard]] void* scheduler() const noexcept override { return &scheduler_; }

  void append(parked_work& to, void* operation) noexcept override {
    auto* const op = static_cast<operation_type*>(operation);
    // The turn that is being given up will take one unit of work off the context: the parked
    // operation keeps it.
    scheduler_.compensating_work_started();
    link_back(to, op);
  }

  std::size_t sweep(const hooks::task_record& t, parked_work& to) noexcept override {
    // Looking costs a few nanoseconds an operation, under the scheduler's mutex; a turn to park one
    // costs about 70. So: on while one in four is the task's, and a few in any case.
    constexpr std::size_t any_case = 64;
    constexpr std::size_t worth = 4;
    std::size_t found = 0;
    // A legacy strand queues itself, in the name of whoever made it and with other tasks' handlers
    // inside.
    if (boost::asio::has_service<asio_detail::strand_service>(home())) return 0;
    operation_queue others;
    const std::lock_guard lock(scheduler_.*member(scheduler_mutex{}));
    operation_queue& queue = scheduler_.*member(scheduler_queue{});
    for (std::size_t seen = 0; seen < any_case + worth * found; ++seen) {
      operation_type* const op = queue.front();
      if (op == nullptr) break;
      queue.pop();
      if (task_of(*op) == &t) {
        link_back(to, op);
        ++found;
      } else {
        others.push(op);
      }
    }
    others.push(queue);
    queue.push(others);
    return found;
  }

  void post_driver() noexcept override { scheduler_.post_immediate_completion(&driver_, false); }

  void post_probe() noexcept override {
    // Without locks no other thread may touch the scheduler.
    if (!(scheduler_.*member(scheduler_mutex{})).enabled()) return;
    if (probe_.waiting.exchange(true, std::memory_order_acquire)) return;
    probe_.ready = timing::timebase::get().now();
    scheduler_.post_immediate_completion(&probe_, false);
  }

  [[nodiscard]] strand_break break_strand(void* owner, void* operation) noexcept override {
    auto* const strand = static_cast<strand_impl*>(owner);
    if (asio_detail::call_stack<strand_impl>::contains(strand) == nullptr)
      return strand_break::refused;
    // In front of whatever came in meanwhile: this operation, the rest of the batch. The drain
    // finds nothing left, and the strand posts itself again.
    operation_queue batch;
    batch.push(static_cast<operation_type*>(operation));
    batch.push(strand->*member(strand_ready{}));
    const std::lock_guard lock(as_mutex(strand->*member(strand_mutex{})));
    operation_queue& waiting = strand->*member(strand_waiting{});
    const auto how = waiting.empty() ? strand_break::rest : strand_break::joined;
    batch.push(waiting);
    waiting.push(batch);
    return how;
  }

  [[nodiscard]] bool in_legacy_strand() const noexcept override {
    return asio_detail::call_stack<asio_detail::strand_service::strand_impl>::top() != nullptr;
  }

  // ---- compensation

  /// Null: nobody opted in, or it would be unsafe. Constant once the context is open.
  [[nodiscard]] spare_workers* spares() const noexcept { return spares_.get(); }

  void compensate(std::size_t stuck) noexcept override {
    if (spares_ != nullptr) return spares_->compensate(stuck);
    if (core_ == nullptr || core_->opts().spare_workers == 0 || !core_->one_thread() ||
        refusal_told_.test_and_set(std::memory_order_relaxed)) {
      return;
    }
    core_->tell(report_kind::compensation_refused, static_cast<task_state&>(core_->unnamed()),
                nullptr, std::chrono::nanoseconds{0},
                "the context is single-threaded by its concurrency hint: its handlers may rely on "
                "it");
  }
  void relieved(std::size_t still_stuck) noexcept override {
    if (spares_ != nullptr) spares_->relieved(still_stuck);
  }

  // ---- isolation

  /// Runs `f` on the isolation pool; the home context has work until `f` has run or is destroyed.
  template <class Function>
  void isolate(Function f) {
    boost::asio::post(pool().context, std::move(f));
  }
  [[nodiscard]] void* pool_scheduler() {
    return &boost::asio::use_service<scheduler_type>(pool().context);
  }

  /// Starts the pool's threads, once. Off the poll path: called when an isolatable task is made.
  void start_pool() { (void)pool(); }

  void shutdown() override { close(); }

  /// Stops the pool and destroys what is parked or queued. Called by the context's destructor,
  /// while everything that an isolated handler may use still exists; again, to no effect, by Asio.
  void close() noexcept {
    if (core_ == nullptr) return;
    core_->close();
    stop_spares();
    stop_pool();
    hooks::remove_observer(&scheduler_);
    const auto pop = [](parked_work& from) noexcept { return pop_front(from); };
    while (void* operation = core_->take_any_parked(pop))
      static_cast<operation_type*>(operation)->destroy();
    // Handlers that an executor holds. Destroying one may release its task: collect the queues
    // first.
    for (;;) {
      task_state* next = nullptr;
      core_->for_each_task([&](task_state& t) {
        serial_queue* queue = t.serial.load(std::memory_order_acquire);
        if (next == nullptr && queue != nullptr && !queue->closed()) {
          hooks::acquire(t);
          next = &t;
        }
      });
      if (next == nullptr) break;
      next->serial.load(std::memory_order_acquire)->clear(true);
      hooks::release(*next);
    }
  }

  void notify_fork(boost::asio::execution_context::fork_event event) override {
    if (core_ == nullptr) return;
    if (event == boost::asio::execution_context::fork_child) core_->forked();
    const bool before = event == boost::asio::execution_context::fork_prepare;
    if (spares_ != nullptr) before ? spares_->pause() : spares_->resume(event);
    if (pool_ == nullptr) return;
    before ? pool_->pause() : pool_->resume(event, core_->opts());
  }

 private:
  /// One parked operation's turn: an operation of ours at the end of the scheduler's queue, so that
  /// everybody else, the reactor included, has been served when it runs.
  struct driver : operation_type {
    explicit driver(context_service& s) noexcept : operation_type(&driver::run), service(s) {}

    static void run(void* owner, operation_type* self, const boost::system::error_code& ec,
                    std::size_t) {
      if (owner == nullptr) return;  // the context is being destroyed; the service owns us
      static_cast<driver*>(self)->service.release_one(owner, ec);
    }

    context_service& service;
  };

  /// How long something that is ready now waits for its turn.
  struct probe : operation_type {
    explicit probe(context_service& s) noexcept : operation_type(&probe::run), service(s) {}

    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      if (owner == nullptr) return;  // as a driver
      auto& mine = *static_cast<probe*>(self);
      ++hooks::this_thread().phantom_turns;
      const timing::ticks ready = mine.ready;
      // Release, pairs with post_probe(): `ready` has been read.
      mine.waiting.store(false, std::memory_order_release);
      mine.service.core_->probed(ready);
    }

    context_service& service;
    std::atomic<bool> waiting{false};
    timing::ticks ready = 0;
  };

  void release_one(void* owner, const boost::system::error_code& ec) {
    const context_core::released next =
        core_->release_next([](parked_work& from) noexcept { return pop_front(from); });
    if (next.more) post_driver();
    if (next.operation == nullptr) {
      ++hooks::this_thread().phantom_turns;
      return;
    }
    auto* const op = static_cast<operation_type*>(next.operation);
    mark_released(*op);
    // The parked operation's unit of work ends with it, however it ends.
    struct finish {
      scheduler_type& scheduler;
      ~finish() { scheduler.work_finished(); }
    } on_exit{scheduler_};
    op->complete(owner, ec, 0);
  }

  // In a program without tracking operations have no task.
  template <class Operation>
  static const hooks::task_record* task_of(const Operation& op) noexcept {
    if constexpr (std::is_base_of_v<hooks::tracked_operation, Operation>) {
      return op.task();
    } else {
      return nullptr;
    }
  }

  static void link_back(parked_work& to, operation_type* op) noexcept {
    link(op, nullptr);
    if (to.front != nullptr) {
      link(static_cast<operation_type*>(to.back), op);
    } else {
      to.front = op;
    }
    to.back = op;
  }

  template <class Operation>
  static void mark_released(Operation& op) noexcept {
    if constexpr (std::is_base_of_v<hooks::tracked_operation, Operation>) {
      op.set(hooks::tracked_operation::released);
    }
  }

  static void* pop_front(parked_work& from) noexcept {
    auto* const op = static_cast<operation_type*>(from.front);
    from.front = asio_detail::op_queue_access::next(op);
    if (from.front == nullptr) from.back = nullptr;
    link(op, nullptr);
    return op;
  }

  static void link(operation_type* op, operation_type* next) noexcept {
    asio_detail::op_queue_access::next(op, next);
  }

  struct isolation_pool {
    explicit isolation_pool(const options& o) { start(o); }

    void start(const options& o) {
      for (std::size_t n = 0; n < o.isolation_threads; ++n) {
        threads.emplace_back([this, o_priority = o.isolation_priority, o_nice = o.isolation_nice] {
          lower_priority(o_priority, o_nice);
          context.run();
        });
      }
    }
    /// Before a fork: waits for handlers that are running. A thread that waited in the pool's queue
    /// would leave its traces in the child, in a condition variable that nobody wakes there.
    void pause() {
      for (const std::thread& t : threads) {
        if (t.get_id() == std::this_thread::get_id()) return;  // an isolated handler forks
      }
      context.stop();
      for (std::thread& t : threads) t.join();
      threads.clear();
      context.notify_fork(boost::asio::execution_context::fork_prepare);
    }
    /// After it, in the parent and in the child.
    void resume(boost::asio::execution_context::fork_event event, const options& o) {
      if (!threads.empty()) {
        if (event != boost::asio::execution_context::fork_child) return;
        for (std::thread& t : threads) t.detach();  // not paused; they do not exist here
        threads.clear();
      }
      context.notify_fork(event);
      context.restart();
      start(o);
    }

    boost::asio::io_context context;
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{
        context.get_executor()};
    std::vector<std::thread> threads;
  };

  isolation_pool& pool() {
    const std::lock_guard lock(pool_mutex_);
    if (pool_ == nullptr) pool_ = std::make_unique<isolation_pool>(core_->opts());
    return *pool_;
  }

  void stop_spares() noexcept {
    // It stays until we are destroyed ourselves: the watchdog may be asking for one.
    if (spares_ != nullptr && !spares_->close()) (void)spares_.release();
  }

  void stop_pool() noexcept {
    if (pool_ == nullptr) return;
    bool inside = false;
    pool_->context.stop();
    for (std::thread& t : pool_->threads) {
      if (t.get_id() == std::this_thread::get_id()) {
        inside = true;
        t.detach();  // the context is being destroyed by an isolated handler: nothing to wait for
                     // but ourselves
      } else if (t.joinable()) {
        t.join();
      }
    }
    pool_->threads.clear();
    if (inside) {
      (void)pool_.release();  // its run() is below us on the stack: it ends with the thread, its
                              // memory is given up
    } else {
      pool_.reset();
    }
  }

  scheduler_type& scheduler_;
  context_core* core_ = nullptr;
  driver driver_{*this};
  probe probe_{*this};
  std::unique_ptr<spare_workers> spares_;
  std::atomic_flag refusal_told_ = ATOMIC_FLAG_INIT;
  std::mutex pool_mutex_;
  std::unique_ptr<isolation_pool> pool_;
};

/// The service of a context of ours. Throws std::invalid_argument for any other.
inline context_service& service_of(boost::asio::execution_context& context) {
  if (!boost::asio::has_service<context_service>(context)) {
    throw std::invalid_argument(
        "asio_pulse: the execution context must be an asio_pulse::io_context");
  }
  return boost::asio::use_service<context_service>(context);
}

}  // namespace asio_pulse::detail
