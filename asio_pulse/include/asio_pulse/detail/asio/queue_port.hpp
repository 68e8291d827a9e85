// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/asio/drain_memory.hpp>
#include <asio_pulse/detail/asio_port.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/fiber_stack.hpp>

#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/strand_service.hpp>

#include <time.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <type_traits>
#include <utility>

namespace asio_pulse::detail {

/// How operations are taken out of Asio's queue, wait, and are put back: the gate's side of a
/// context_service. It owns the library's own entries of the queue.
class queue_port : public asio_port {
 public:
  [[nodiscard]] void* scheduler() const noexcept override { return &scheduler_; }

  /// Puts an operation, which was taken out of `owner` and has to run on the thread that `whose` names,
  /// back to its end. The turn that it was taken out in must end now. Returns false if there is no
  /// memory for a strand's next turn.
  [[nodiscard]] bool send_on(operation_type& op, void* owner, thread_pin whose) noexcept {
    hooks::thread_state& ts = hooks::this_thread();
    if (owner != &scheduler_) {
      if (!drain_memory::provide()) return false;
      auto* const strand = static_cast<strand_impl*>(owner);
      const bool last = (strand->*exposed<"strand.ready">).empty();
      // If the strand's drain has run nothing else, its turn does not count.
      const hooks::poll_frame* const drain = ts.top.load(std::memory_order_relaxed);
      if (last && drain != nullptr && drain->inner_polls() == 0) ++ts.phantom_turns;
      bool alone = last && only_waits();
      {
        // The drain, which is our caller, finds it when the batch is done.
        const std::lock_guard lock(as_mutex(strand->*exposed<"strand.mutex">));
        operation_queue& waiting = strand->*exposed<"strand.waiting">;
        alone = alone && only_waits(waiting);
        waiting.push(&op);
      }
      let_others_look(alone, whose);
      return true;
    }
    ++ts.phantom_turns;
    bool alone = true;
    {
      const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
      operation_queue& queue = scheduler_.*exposed<"scheduler.queue">;
      alone = only_waits(queue);
      // The turn that ends subtracts a unit of work.
      scheduler_.work_started();
      queue.push(&op);
    }
    let_others_look(alone, whose);
    return true;
  }

  /// Whether there is nothing in the queue that this thread could do.
  [[nodiscard]] bool only_waits() noexcept {
    const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
    return only_waits(scheduler_.*exposed<"scheduler.queue">);
  }

  /// Wakes the context's other threads: that of `whose` has to run what this one puts back. If there
  /// is nothing else for it to do (`alone`), this one gives them time in its next turn, when the
  /// operation is in the queue and no strand is kept locked. It does not wait for them, since the thread
  /// may be in a long handler. An estimate: this costs a tenth of a CPU until it is not.
  void let_others_look(bool alone, thread_pin whose) noexcept {
    if (alone) {
      hooks::this_thread().waits_for_another = true;
      const scheduler_lock lock(scheduler_.*exposed<"scheduler.mutex">);
      pause_.whose = whose;
      if (!std::exchange(pause_.waiting, true)) {
        scheduler_.work_started();
        put_first(scheduler_.*exposed<"scheduler.queue">, &pause_);
        before_marker_known_ = false;
      }
    }
    wake_all(scheduler_);
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

 protected:
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

  explicit queue_port(scheduler_type& s) noexcept : scheduler_(s) {}
  ~queue_port() = default;
  queue_port(const queue_port&) = delete;
  queue_port& operator=(const queue_port&) = delete;

  scheduler_type& scheduler_;
  context_core* core_ = nullptr;

 private:
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
    explicit driver(queue_port& s) noexcept : operation_type(&driver::run), service(s) {}

    static void run(void* owner, operation_type* self, const boost::system::error_code& ec,
                    std::size_t) {
      if (owner == nullptr) return;  // the context is being destroyed; the service owns this
      static_cast<driver*>(self)->service.release_one(owner, ec);
    }

    queue_port& service;
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
    explicit probe(queue_port& s) noexcept : operation_type(&probe::run), service(s) {}

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

    queue_port& service;
    std::atomic<bool> waiting{false};
    timing::ticks ready = 0;
  };

  /// The turn in which a thread that waits for another one gives it time.
  struct pause : operation_type {
    explicit pause(queue_port& s) noexcept : operation_type(&pause::run), service(s) {}

    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      if (owner == nullptr) return;  // as in driver
      hooks::thread_state& ts = hooks::this_thread();
      ++ts.phantom_turns;
      queue_port& service = static_cast<pause*>(self)->service;
      thread_pin whose;
      {
        const scheduler_lock lock(service.scheduler_.*exposed<"scheduler.mutex">);
        whose = service.pause_.whose;
        service.pause_.waiting = false;
      }
      // Once more, for a strand was not in the queue before.
      wake_all(service.scheduler_);
      if (ts.polls || !pinned_elsewhere(whose)) return;
      const timespec moment{.tv_sec = 0, .tv_nsec = 50'000};
      (void)nanosleep(&moment, nullptr);
    }

    queue_port& service;
    // Guarded by the scheduler's mutex.
    bool waiting = false;  ///< it is in the queue
    thread_pin whose{};    ///< the thread that is waited for
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
      queue_port& service;
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
    return op == &driver_ || op == &probe_ || op == &marker_ || op == &pause_;
  }
  // Whether there is nothing that the calling thread could do in a queue whose mutex is held. Fibers
  // that are in the queue do not run, so what describes them does not change. That the rest of one waits
  // for another thread is not seen if it was posted to an executor.
  [[nodiscard]] bool only_waits(operation_queue& queue) const noexcept {
    for (operation_type* op = queue.front(); op != nullptr;
         op = asio_detail::op_queue_access::next(op)) {
      if (is_reactor(op) || is_ours(op)) continue;
      const fiber_block* const b = fiber_at(reinterpret_cast<std::uintptr_t>(op));
      if (b == nullptr || !b->automatic || b->queued != op || !pinned_elsewhere(b->pinned)) {
        return false;
      }
    }
    return true;
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

  driver driver_{*this};
  probe probe_{*this};
  marker marker_;
  pause pause_{*this};
  // Guarded by the scheduler's mutex.
  operation_type* before_marker_ =
      nullptr;  ///< the entry before the marker, if that is not the first
  bool before_marker_known_ = false;
};

}  // namespace asio_pulse::detail
