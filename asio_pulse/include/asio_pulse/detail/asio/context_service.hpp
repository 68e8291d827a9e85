// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/asio/drain_memory.hpp>
#include <asio_pulse/detail/asio/spare_workers.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/serial_queue.hpp>

#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/strand_service.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <time.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

/// \file
/// asio-pulse uses Asio's internals only in this folder (detail/asio) and in hooks/tracking.hpp.

namespace asio_pulse::detail {

/// Identifies the copy of the library that made a context. Asio finds services by their type, so a
/// module that has its own copy of the library finds this one as well.
class copy_mark final : public boost::asio::detail::execution_context_service_base<copy_mark> {
 public:
  explicit copy_mark(boost::asio::execution_context& context)
      : boost::asio::detail::execution_context_service_base<copy_mark>(context) {}
  void shutdown() override {}
};

/// What an io_context of ours adds to Asio's: parked operations, the driver that releases them, the
/// isolation pool.
///
/// It is a service, so that Asio destroys it at the right time: its shutdown() runs before that of
/// the scheduler.
class context_service final : public boost::asio::execution_context::service, public asio_port {
 public:
  // Asio finds services by this. Inline, so that there is one object in the whole program.
  inline static boost::asio::execution_context::id id;

  explicit context_service(boost::asio::execution_context& context)
      : boost::asio::execution_context::service(context),
        scheduler_(boost::asio::use_service<scheduler_type>(
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

  // asio_port
  [[nodiscard]] void* scheduler() const noexcept override { return &scheduler_; }

  [[nodiscard]] bool locks() const noexcept override { return locks_; }

  /// The service of the context whose handler this thread runs.
  [[nodiscard]] static context_service& here() noexcept {
    const auto& core = *static_cast<context_core*>(hooks::this_thread().arbiter);
    return static_cast<context_service&>(*core.port());
  }

  /// Puts an operation, which was taken out of `owner` and has to run on another thread, back to its
  /// end. The turn that it was taken out in must end now.
  void send_on(operation_type& op, void* owner) noexcept {
    if (owner != &scheduler_) {
      // The drain of the strand, which is our caller, finds it when the batch is done.
      auto* const strand = static_cast<strand_impl*>(owner);
      {
        const std::lock_guard lock(as_mutex(strand->*exposed<"strand.mutex">));
        (strand->*exposed<"strand.waiting">).push(&op);
      }
      return let_others_look(false);
    }
    ++hooks::this_thread().phantom_turns;
    bool alone = true;
    {
      const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
      operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
      for (operation_type* at = queue.front(); at != nullptr && alone;
           at = asio_detail::op_queue_access::next(at)) {
        alone = is_reactor(at) || is_ours(at);
      }
      // The turn that ends subtracts a unit of work.
      scheduler_.work_started();
      queue.push(&op);
    }
    let_others_look(alone);
  }

  /// Wakes the context's other threads: one of them has to run what this one has just put back. If
  /// there is nothing else for it to do (`wait`), this one gives them time. It does not wait for them,
  /// since the thread may be in a long handler. An estimate: this costs a tenth of a CPU until it is not.
  void let_others_look(bool wait) noexcept {
    wake_all(scheduler_);
    if (!wait) return;
    const timespec moment{.tv_sec = 0, .tv_nsec = 50'000};
    (void)nanosleep(&moment, nullptr);
  }

  void append(parked_work& to, void* operation, std::uint32_t number) noexcept override {
    auto* const op = static_cast<operation_type*>(operation);
    // The turn that is given up will subtract one unit of work from the context. This adds one for
    // the parked operation.
    scheduler_.compensating_work_started();
    link_back(to, op, number);
  }

  std::size_t sweep(const hooks::task_record& t, parked_work& to, const void* like,
                    std::uint32_t number) noexcept override {
    const auto what = static_cast<const operation_type*>(like)->*exposed<"operation.function">;
    std::size_t found = 0;
    const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
    operation_queue passed;  // entries that are kept: the reactor and our own operations
    while (operation_type* const op = queue.front()) {
      const bool swept = task_of(*op) == &t && op->*exposed<"operation.function"> == what;
      if (!swept && !is_reactor(op) && !is_ours(op)) break;
      queue.pop();
      if (swept) {
        link_back(to, op, number++);
        ++found;
      } else {
        passed.push(op);
      }
    }
    passed.push(queue);
    queue.push(passed);
    if (found != 0) before_marker_known_ = false;
    return found;
  }

  [[nodiscard]] queue_state sweep_new(queue_sweeper& s) noexcept override {
    queue_state result;
    bool counted = true;
    {
      const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
      operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
      const bool marked = asio_detail::op_queue_access::next(&marker_) != nullptr ||
                          asio_detail::op_queue_access::back(queue) == &marker_;
      operation_type* fresh = marked ? cut_behind_marker(queue) : cut_all(queue);
      operation_type* reactor = nullptr;
      while (fresh != nullptr) {
        operation_type* const op = std::exchange(fresh, asio_detail::op_queue_access::next(fresh));
        link(op, nullptr);
        if (is_reactor(op)) {
          reactor = op;
        } else if (is_ours(op)) {
          queue.push(op);
        } else {
          result.soon |= !sweep_one(s, *op, queue);
        }
      }
      for (operation_type* op = queue.front(); op != nullptr && !result.others;
           op = asio_detail::op_queue_access::next(op)) {
        if (is_reactor(op)) {
          result.reactor = true;
        } else {
          result.others = !is_ours(op);
        }
      }
      // In a queue of which nothing stays there is nothing to mark.
      if (marked || result.others) {
        before_marker_ = asio_detail::op_queue_access::back(queue);
        before_marker_known_ = before_marker_ != nullptr;  // otherwise others may come before it
        queue.push(&marker_);
        counted = marked;
      }
      if (reactor != nullptr) {
        put_first(queue, reactor);
        result.reactor = true;
      }
    }
    // The driver, in whose turn this is, has a unit of work, so the count is not zero meanwhile.
    if (!counted) scheduler_.work_started();
    return result;
  }

  [[nodiscard]] const void* kind_of(const void* operation) const noexcept override {
    return kind_of(*static_cast<const operation_type*>(operation));
  }

  void put_driver_behind(place where) noexcept override {
    scheduler_.work_started();
    scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
    operation_type* behind = queue.front();
    if (where == place::reactor) {
      while (behind != nullptr && !is_reactor(behind))
        behind = asio_detail::op_queue_access::next(behind);
    } else if (where == place::next) {
      while (behind != nullptr && (is_reactor(behind) || is_ours(behind)))
        behind = asio_detail::op_queue_access::next(behind);
    }
    if (where == place::end || behind == nullptr) {
      queue.push(&driver_);
    } else {
      insert(queue, behind);
    }
    (scheduler_.*exposed<"scheduler.wake">)(lock);
  }

  [[nodiscard]] void* take(parked_work& from) noexcept override { return pop_front(from); }

  [[nodiscard]] std::uint32_t first_number(const parked_work& of) const noexcept override {
    return static_cast<const operation_type*>(of.front)->*exposed<"operation.result">;
  }

  std::size_t put_in_front(parked_work& from) noexcept override {
    operation_queue batch;
    std::size_t count = 0;
    while (from.front != nullptr) {
      operation_type* const op = pop_front(from);
      mark_released(*op);
      batch.push(op);
      ++count;
    }
    scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
    if (queue.front() == &marker_) before_marker_known_ = false;
    batch.push(queue);
    queue.push(batch);
    (scheduler_.*exposed<"scheduler.wake">)(lock);
    return count;
  }

  void read_queue(queue_reader& r) noexcept override {
    const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    (void)read(r);
  }

  void put_driver(queue_reader& r, bool at_the_end) noexcept override {
    scheduler_.work_started();
    scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
    operation_type* const behind = read(r);
    if (at_the_end) {
      queue.push(&driver_);
    } else {
      insert(queue, behind);
    }
    (scheduler_.*exposed<"scheduler.wake">)(lock);
  }

  void put_driver_in_front() noexcept override {
    scheduler_.work_started();
    scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    insert(scheduler_.*exposed<"scheduler.queue">, nullptr);
    (scheduler_.*exposed<"scheduler.wake">)(lock);
  }

  bool post_probe(bool on_worker) noexcept override {
    // If locking is disabled, no other thread may use the scheduler.
    if (!on_worker && !(scheduler_.*exposed<"scheduler.mutex">).enabled()) return false;
    if (probe_.waiting.exchange(true, std::memory_order_acquire)) return true;
    probe_.ready = timing::timebase::get().now();
    scheduler_.post_immediate_completion(&probe_, false);
    return true;
  }

  [[nodiscard]] strand_break break_strand(void* owner, void* operation) noexcept override {
    // Without the break the strand might not have to post itself again.
    if (!drains_strand(owner) || !drain_memory::provide()) return strand_break::refused;
    auto* const strand = static_cast<strand_impl*>(owner);
    // Put this operation and the rest of the batch in front of what was added meanwhile. The drain
    // then finds nothing left, and the strand posts itself again.
    operation_queue batch;
    batch.push(static_cast<operation_type*>(operation));
    batch.push(strand->*exposed<"strand.ready">);
    return put_back(*strand, batch) ? strand_break::joined : strand_break::rest;
  }

  [[nodiscard]] bool drains_strand(void* owner) const noexcept override {
    return asio_detail::call_stack<strand_impl>::contains(static_cast<strand_impl*>(owner)) !=
           nullptr;
  }

  [[nodiscard]] bool put_back_rest(void* owner) noexcept override {
    auto* const strand = static_cast<strand_impl*>(owner);
    operation_queue& ready = strand->*exposed<"strand.ready">;
    if (ready.empty()) return false;
    operation_queue batch;
    batch.push(ready);
    (void)put_back(*strand, batch);
    return true;
  }

  [[nodiscard]] bool in_legacy_strand() const noexcept override {
    return asio_detail::call_stack<asio_detail::strand_service::strand_impl>::top() != nullptr;
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
    stop_pool();
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
  /// Handlers that were suspended at automatic checkpoints run to their ends, while what they may use
  /// still exists. Those in the queues of strands and executors do so a little later, when Asio
  /// destroys these.
  void finish_suspended() noexcept {
    for (;;) {
      operation_type* found = nullptr;
      {
        const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
        operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
        operation_queue others;
        while (operation_type* const op = queue.front()) {
          queue.pop();
          const fiber_block* const b = fiber_at(reinterpret_cast<std::uintptr_t>(op));
          if (found == nullptr && b != nullptr && b->automatic && b->queued == op) {
            found = op;
          } else {
            others.push(op);
          }
        }
        queue.push(others);
        before_marker_known_ = false;
      }
      if (found == nullptr) return;
      found->destroy();
    }
  }

  // Puts the batch in front of what was added to the strand meanwhile. Returns whether there was
  // something.
  static bool put_back(strand_impl& strand, operation_queue& batch) noexcept {
    const std::lock_guard lock(as_mutex(strand.*exposed<"strand.mutex">));
    operation_queue& waiting = strand.*exposed<"strand.waiting">;
    const bool joined = !waiting.empty();
    batch.push(waiting);
    waiting.push(batch);
    return joined;
  }

  /// An operation of ours in the scheduler's queue, at the place that the gate has chosen. Its turn
  /// runs one parked operation.
  struct driver : operation_type {
    explicit driver(context_service& s) noexcept : operation_type(&driver::run), service(s) {}

    static void run(void* owner, operation_type* self, const boost::system::error_code& ec,
                    std::size_t) {
      if (owner == nullptr) return;  // the context is being destroyed; the service owns this
      static_cast<driver*>(self)->service.release_one(owner, ec);
    }

    context_service& service;
  };

  /// An operation of ours that stands behind the last entry that sweep_new() has seen. Its turn does
  /// nothing.
  struct marker : operation_type {
    marker() noexcept : operation_type(&marker::run) {}

    static void run(void* owner, operation_type*, const boost::system::error_code&, std::size_t) {
      if (owner != nullptr) ++hooks::this_thread().phantom_turns;
    }
  };

  /// Measures how long an operation that is ready now waits for its turn.
  struct probe : operation_type {
    explicit probe(context_service& s) noexcept : operation_type(&probe::run), service(s) {}

    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      if (owner == nullptr) return;  // as in driver
      auto& mine = *static_cast<probe*>(self);
      ++hooks::this_thread().phantom_turns;
      const timing::ticks ready = mine.ready;
      // Release, pairs with the acquire in post_probe(): `ready` was read.
      mine.waiting.store(false, std::memory_order_release);
      mine.service.core_->probed(ready);
    }

    context_service& service;
    std::atomic<bool> waiting{false};
    timing::ticks ready = 0;
  };

  void release_one(void* owner, const boost::system::error_code& ec) {
    auto* const op = static_cast<operation_type*>(core_->release_next());
    if (op == nullptr) {
      ++hooks::this_thread().phantom_turns;
      return;
    }
    mark_released(*op);
    // The parked operation's unit of work ends with it, also after an exception.
    struct finish {
      context_service& service;
      ~finish() {
        service.core_->released_ended(service.scheduler_.stopped());
        service.scheduler_.work_finished();
      }
    } on_exit{*this};
    op->complete(owner, ec, 0);
  }

  [[nodiscard]] bool is_reactor(const operation_type* op) const noexcept {
    return op == &(scheduler_.*exposed<"scheduler.reactor_entry">);
  }
  [[nodiscard]] bool is_ours(const operation_type* op) const noexcept {
    return op == &driver_ || op == &probe_ || op == &marker_;
  }

  // Takes all entries out of the queue, whose mutex is held, and returns the first one.
  static operation_type* cut_all(operation_queue& queue) noexcept {
    operation_type* const first = queue.front();
    asio_detail::op_queue_access::front(queue) = nullptr;
    asio_detail::op_queue_access::back(queue) = nullptr;
    return first;
  }

  // Takes the marker and the entries behind it out of the queue, and returns the first of these. The
  // queue shrinks at its front only, so while the marker is not the first entry, the one before it is
  // the same.
  operation_type* cut_behind_marker(operation_queue& queue) noexcept {
    operation_type* const first = asio_detail::op_queue_access::next(&marker_);
    link(&marker_, nullptr);
    if (queue.front() == &marker_) {
      (void)cut_all(queue);
      return first;
    }
    if (!before_marker_known_) {
      before_marker_ = queue.front();
      while (asio_detail::op_queue_access::next(before_marker_) != &marker_)
        before_marker_ = asio_detail::op_queue_access::next(before_marker_);
    }
    link(before_marker_, nullptr);
    asio_detail::op_queue_access::back(queue) = before_marker_;
    return first;
  }

  // Shows an entry to `s`, and puts it where it belongs. Returns false if it stays and has to get its
  // turn soon.
  bool sweep_one(queue_sweeper& s, operation_type& op, operation_queue& queue) noexcept {
    const bool internal = is_internal(op);
    const queue_sweeper::answer a =
        put_back_before(op) ? queue_sweeper::answer{.soon = true}
                            : s.see({internal ? queued::kind::internal : queued::kind::handler,
                                     const_cast<hooks::task_record*>(task_of(op))},
                                    kind_of(op));
    if (a.to != nullptr) {
      link_back(*a.to, &op, a.number);
      return true;
    }
    queue.push(&op);
    return !a.soon;
  }

  // Whether it was released, and runs now without asking the gate.
  template <class Operation>
  static bool put_back_before(const Operation& op) noexcept {
    if constexpr (std::is_base_of_v<hooks::tracked_operation, Operation>) {
      return op.has(hooks::tracked_operation::released);
    } else {
      return false;
    }
  }

  static const void* kind_of(const operation_type& op) noexcept {
    return reinterpret_cast<const void*>(op.*exposed<"operation.function">);
  }

  static void put_first(operation_queue& queue, operation_type* op) noexcept {
    operation_queue whole;
    whole.push(op);
    whole.push(queue);
    queue.push(whole);
  }

  // Shows the queue, whose mutex is held, to `r`. Returns the last entry behind which the driver
  // has to go, or null.
  operation_type* read(queue_reader& r) noexcept {
    operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
    operation_type* behind = nullptr;
    for (operation_type* op = queue.front(); op != nullptr;
         op = asio_detail::op_queue_access::next(op)) {
      if (is_ours(op)) continue;
      queued entry{queued::kind::reactor, nullptr};
      if (!is_reactor(op)) {
        const bool internal = is_internal(*op);
        entry = {internal ? queued::kind::internal : queued::kind::handler,
                 const_cast<hooks::task_record*>(task_of(*op))};
      }
      const queue_reader::answer a = r.see(entry);
      if (a.put_behind) behind = op;
      if (a.enough) break;
    }
    return behind;
  }

  // Puts the driver behind an entry of the queue, or to the front if that is null.
  void insert(operation_queue& queue, operation_type* behind) noexcept {
    if (behind == nullptr) return put_first(queue, &driver_);
    if (asio_detail::op_queue_access::next(behind) == nullptr) return queue.push(&driver_);
    link(&driver_, asio_detail::op_queue_access::next(behind));
    link(behind, &driver_);
  }

  // The task of an entry. Null for Asio's internal operations, since only operations that Asio has
  // announced as a handler's have a task. In a program without tracking none has.
  template <class Operation>
  static const hooks::task_record* task_of(const Operation& op) noexcept {
    if constexpr (std::is_base_of_v<hooks::tracked_operation, Operation>) {
      return op.task();
    } else {
      return nullptr;
    }
  }

  // The number is kept where Asio has the value that it passes to operations of the reactor. For
  // other operations that value is zero and not used.
  static void link_back(parked_work& to, operation_type* op, std::uint32_t number) noexcept {
    op->*exposed<"operation.result"> = number;
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

  static operation_type* pop_front(parked_work& from) noexcept {
    auto* const op = static_cast<operation_type*>(from.front);
    from.front = asio_detail::op_queue_access::next(op);
    if (from.front == nullptr) from.back = nullptr;
    op->*exposed<"operation.result"> = 0;
    link(op, nullptr);
    return op;
  }

  static void link(operation_type* op, operation_type* next) noexcept {
    asio_detail::op_queue_access::next(op, next);
  }

  struct isolation_pool {
    /// \par Errors  What std::thread throws; std::bad_alloc. Threads that were started stay.
    void start(const options& o) {
      threads.reserve(o.isolation_threads);
      while (threads.size() < o.isolation_threads) {
        threads.emplace_back([this, o_priority = o.isolation_priority, o_nice = o.isolation_nice] {
          lower_priority(o_priority, o_nice);
          context.run();
        });
      }
    }
    /// Before a fork: ends the threads, and so waits for handlers that are running. A thread that
    /// waits for work during the fork would leave a waiter in the child's copy of a condition
    /// variable.
    void pause() {
      for (const std::thread& t : threads) {
        if (t.get_id() == std::this_thread::get_id()) return;  // an isolated handler calls fork()
      }
      context.stop();
      for (std::thread& t : threads) t.join();
      threads.clear();
      context.notify_fork(boost::asio::execution_context::fork_prepare);
    }
    /// After the fork, in the parent and in the child.
    void resume(boost::asio::execution_context::fork_event event) {
      if (!threads.empty()) {
        if (event != boost::asio::execution_context::fork_child) return;
        for (std::thread& t : threads) t.detach();  // they were not paused, and do not exist here
        threads.clear();
      }
      context.notify_fork(event);
      context.restart();
    }

    boost::asio::io_context context;
    scheduler_type& scheduler{boost::asio::use_service<scheduler_type>(context)};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{
        context.get_executor()};
    std::vector<std::thread> threads;
  };

  void stop_spares() noexcept {
    // The object stays until the service is destroyed, because the watchdog may be using it.
    if (spares_ != nullptr && !spares_->close()) (void)spares_.release();
  }

  void stop_pool() noexcept {
    if (pool_ == nullptr) return;
    bool inside = false;
    pool_->context.stop();
    for (std::thread& t : pool_->threads) {
      if (t.get_id() == std::this_thread::get_id()) {
        inside = true;
        t.detach();  // an isolated handler destroys the context: this thread cannot wait for itself
      } else if (t.joinable()) {
        t.join();
      }
    }
    pool_->threads.clear();
    if (inside) {
      (void)pool_.release();  // this thread is inside its run(), so its memory is leaked
    } else {
      pool_.reset();
    }
  }

  scheduler_type& scheduler_;
  const bool locks_{locks_everything(context(), scheduler_)};
  const void* const copy_ = this_copy();
  context_core* core_ = nullptr;
  driver driver_{*this};
  probe probe_{*this};
  marker marker_;
  // Guarded by the scheduler's mutex.
  operation_type* before_marker_ =
      nullptr;  ///< the entry before the marker, if that is not the first
  bool before_marker_known_ = false;
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
