// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/asio/isolation_pool.hpp>
#include <asio_pulse/detail/asio/queue_port.hpp>
#include <asio_pulse/detail/asio/spare_workers.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/serial_queue.hpp>

#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <stdexcept>

/// \file
/// asio-pulse uses Asio's internals in this folder (detail/asio), in hooks/tracking.hpp, hooks/site.hpp
/// and hooks/src/tracked/mismatch.cpp, and in checkpoint.hpp and sharded_acceptor.hpp.

namespace asio_pulse::detail {

/// Identifies the copy of the library that made a context. Asio finds services by their type, so a
/// module that has its own copy of the library finds this one as well.
class copy_mark final : public boost::asio::detail::execution_context_service_base<copy_mark> {
 public:
  explicit copy_mark(boost::asio::execution_context& context)
      : boost::asio::detail::execution_context_service_base<copy_mark>(context) {}
  void shutdown() override {}
};

/// What an io_context of ours adds to Asio's: parked operations and the driver that releases them
/// (queue_port), spare workers, the isolation pool.
///
/// It is a service, so that Asio destroys it at the right time: its shutdown() runs before that of
/// the scheduler.
class context_service final : public boost::asio::execution_context::service, public queue_port {
 public:
  // Asio finds services by this. Inline, so that there is one object in the whole program.
  inline static boost::asio::execution_context::id id;

  explicit context_service(boost::asio::execution_context& context)
      : boost::asio::execution_context::service(context),
        queue_port(boost::asio::use_service<scheduler_type>(
            static_cast<boost::asio::io_context&>(context))) {
    boost::asio::use_service<copy_mark>(context);
  }

  /// Whether this copy of the library made the context.
  [[nodiscard]] bool of_this_copy() const noexcept { return copy_ == this_copy(); }

  /// Whether the new scheduler has the layout that this file was compiled for. Its constructor is
  /// an inline function, and if a part of the program is not tracked, the linker may have kept the
  /// one of that part. Then this flag, which is initially true and comes after the first operation
  /// in the scheduler, is at another offset, and a count that is zero is in its place.
  [[nodiscard]] bool laid_out_as_expected() const noexcept {
    return scheduler_.*exposed<"scheduler.interrupted">;
  }

  /// Whether the program has promised that only one thread runs the context.
  [[nodiscard]] bool one_thread() { return one_thread_only(context(), scheduler_); }

  /// Called once, by the context's constructor.
  void open(context_core* core) {
    core_ = core;
    core_->acquire();
    core_->connect(this);
    const options& o = core_->opts();
    if (o.spare_workers != 0 && o.enabled && !core_->one_thread()) {
      spares_ = std::make_unique<spare_workers>(*core_, scheduler_);
    }
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
    if (o.enabled) set_awaitable_layout();
#endif
    if (o.enabled) hooks::add_arbiter(&scheduler_, *core_);
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

  [[nodiscard]] bool locks() const noexcept override { return locks_; }
  /// More than there are entries in the queue. Any thread.
  [[nodiscard]] long outstanding() const noexcept { return outstanding_work(scheduler_); }

  /// The service of the context whose handler this thread runs.
  [[nodiscard]] static context_service& here() noexcept {
    const auto& core = *static_cast<context_core*>(hooks::this_thread().arbiter);
    return static_cast<context_service&>(*core.port());
  }

  // ---- compensation

  /// Null if the option is off, or spare workers would be unsafe. Constant once the context is
  /// open.
  [[nodiscard]] spare_workers* spares() const noexcept { return spares_.get(); }

  void compensate(std::size_t stuck) noexcept override {
    if (spares_ != nullptr) {
      if (!core_->shadow()) spares_->compensate(stuck);
      return;
    }
    if (core_ == nullptr || core_->opts().spare_workers == 0 || !core_->one_thread() ||
        refusal_told_.test_and_set(std::memory_order_relaxed)) {
      return;
    }
    core_->send_report(
        report_kind::compensation_refused, static_cast<task_state&>(core_->unnamed()), nullptr,
        std::chrono::nanoseconds{0},
        "the context has a concurrency hint for one thread, and its handlers may rely on that");
  }
  void relieved(std::size_t still_stuck) noexcept override {
    if (spares_ != nullptr) spares_->relieved(still_stuck);
  }

  // ---- isolation

  /// Starts the missing threads of the pool. Not on the poll path: it is called when an isolatable
  /// task is made. One thread suffices for a pool. If there is none, isolation is refused, and the
  /// next task tries again.
  void start_pool() noexcept {
    const std::lock_guard lock(pool_mutex_);
    try {
      if (pool_ == nullptr) pool_ = std::make_unique<isolation_pool>();
      pool_->start(core_->opts());
      core_->show_isolation(true);
    } catch (const std::exception&) {  // no memory, descriptor or thread available
      core_->show_isolation(pool_ != nullptr && !pool_->threads.empty());
    }
  }
  /// Null if there is no pool.
  [[nodiscard]] scheduler_type* pool_scheduler() noexcept {
    const std::lock_guard lock(pool_mutex_);
    return pool_ != nullptr ? &pool_->scheduler : nullptr;
  }

  void shutdown() override { close(); }

  /// Stops the pool, and destroys what is parked or queued. The context's destructor calls it while
  /// everything that an isolated handler may use still exists. Asio calls it again, without effect.
  void close() noexcept {
    if (core_ == nullptr) return;
    core_->close();
    stop_spares();
    stop_pool(pool_);
    finish_suspended();
    hooks::remove_arbiter(&scheduler_);
    while (void* operation = core_->take_any_parked())
      static_cast<operation_type*>(operation)->destroy();
    // Handlers in the queues of tasks' executors. Destroying one may release its task, so the
    // queues are collected first.
    for (;;) {
      task_state* next = nullptr;
      core_->tasks().for_each([&](task_state& t) {
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
    if (before) return pool_->pause();
    pool_->resume(event);
    start_pool();
    // If the pool has no threads, drivers that are queued there return to their context.
    if (!core_->isolation_there()) (void)pool_->context.poll();
  }

 private:
  void stop_spares() noexcept {
    // The object stays until the service is destroyed, because the watchdog may be using it.
    if (spares_ != nullptr && !spares_->close()) (void)spares_.release();
  }

  const bool locks_{locks_everything(context(), scheduler_)};
  const void* const copy_ = this_copy();
  std::unique_ptr<spare_workers> spares_;
  std::atomic_flag refusal_told_ = ATOMIC_FLAG_INIT;
  std::mutex pool_mutex_;
  std::unique_ptr<isolation_pool> pool_;
};

/// The service of an asio_pulse::io_context. Throws std::invalid_argument for other contexts, and
/// for a context that another copy of the library made: it has workers, tasks and a watchdog of
/// that copy.
inline context_service& service_of(boost::asio::execution_context& context) {
  const bool known = boost::asio::has_service<context_service>(context);
  if (known ? !boost::asio::use_service<context_service>(context).of_this_copy()
            : boost::asio::has_service<copy_mark>(context)) {
    throw std::invalid_argument(
        "asio_pulse: the io_context was made by another copy of the library; a plugin has to use "
        "the copy of its program (link asio_pulse as shared libraries, or export the program's "
        "symbols: CMake's ENABLE_EXPORTS, -rdynamic)");
  }
  if (!known) {
    throw std::invalid_argument(
        "asio_pulse: the execution context must be an asio_pulse::io_context");
  }
  return boost::asio::use_service<context_service>(context);
}

}  // namespace asio_pulse::detail
