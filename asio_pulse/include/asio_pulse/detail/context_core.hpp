// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/registry.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/report.hpp>
#include <asio_pulse/statistics.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

namespace asio_pulse {
struct recording;
}  // namespace asio_pulse

namespace asio_pulse::detail {

class instruments;

/// The part of a context that knows Asio, as its core sees it. Implemented in a header, so that the
/// compiled library serves every version of Asio.
class asio_port {
 public:
  /// The scheduler whose poll path this is.
  [[nodiscard]] virtual void* scheduler() const noexcept = 0;
  /// Appends the operation to the parked work and keeps the context's work count. The core's mutex
  /// is held.
  virtual void append(parked_work& to, void* operation) noexcept = 0;
  /// Moves the task's operations that are queued already behind the parked ones, as far as that is
  /// worth the look; returns how many. The core's mutex is held.
  virtual std::size_t sweep(const hooks::task_record& t, parked_work& to) noexcept = 0;
  /// Puts the driver at the end of the scheduler's queue. The core's mutex is not held.
  virtual void post_driver() noexcept = 0;
  enum class strand_break : std::uint8_t {
    refused,  ///< `owner` is no strand
    rest,     ///< what is left of the batch gets a turn of its own
    joined,   ///< what is left is run with what was waiting for the next turn anyway
  };
  /// Puts the operation and the rest of the batch back in front of its strand.
  [[nodiscard]] virtual strand_break break_strand(void* owner, void* operation) noexcept = 0;
  /// True inside a handler of a legacy io_context::strand, whose operations complete in the
  /// scheduler's name.
  [[nodiscard]] virtual bool in_legacy_strand() const noexcept = 0;
  /// The watchdog: so many of the context's workers that another thread could stand in for are
  /// stuck in a handler now. Called at every look while it is not zero. It may start a thread; it
  /// must wait for nothing.
  virtual void compensate(std::size_t /*stuck*/) noexcept {}
  /// The watchdog: a stall has ended; so many are stuck still.
  virtual void relieved(std::size_t /*still_stuck*/) noexcept {}
  /// Puts an operation at the end of the scheduler's queue that calls context_core::probed() when
  /// it runs. Nothing, where the last one has not run yet or the scheduler takes no locks.
  virtual void post_probe() noexcept {}

 protected:
  ~asio_port() = default;
};

/// What a context is, apart from Asio: its tasks, tiers, reports and hooks. Shared by the context
/// and its tasks, so that a task may outlive its context.
///
/// \par Thread safety  As stated at each member; the poll path calls it from any worker.
class context_core final : public hooks::path_observer {
 public:
  /// \par Errors  std::invalid_argument naming the field and the rule (see validate()).
  context_core(options opts, bool one_thread);

  ~context_core() override;

  void acquire() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept;

  [[nodiscard]] const options& opts() const noexcept { return options_; }
  [[nodiscard]] hooks::registry& hooks() noexcept { return hooks_; }
  [[nodiscard]] statistics stats() const noexcept;
  /// The context promises that one thread runs it (concurrency hint 1, or one of the unsafe hints).
  [[nodiscard]] bool one_thread() const noexcept { return one_thread_; }

  /// Connects the core with Asio, or (null) cuts it off for good.
  void connect(asio_port* port) noexcept;
  /// The context is being destroyed: nothing is held back or isolated any more. What its handlers
  /// do as they are destroyed may still use its tasks.
  void close() noexcept;
  /// \par Memory order  Relaxed: who destroys a context has synchronised with its other users.
  [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_relaxed); }

  /// A new task with one reference.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] task_state* make_task(const task_options& opts, task_state* listener,
                                      bool accepted);

  /// The task of an annotated place in the source: made at its first use, kept until the context is
  /// destroyed. Null where there is no memory for it.
  [[nodiscard]] task_state* task_of_place(const void* place, const task_options& opts) noexcept;
  [[nodiscard]] asio_port* port() const noexcept { return port_; }

  /// Calls `f(task_state&)` for every task with the list locked.
  template <class Function>
  void for_each_task(Function&& f) {
    const std::lock_guard lock(mutex_);
    for (task_state* t = tasks_; t != nullptr; t = t->next) f(*t);
  }

  /// Whether a declared task that is in Isolate may really leave its context.
  [[nodiscard]] bool may_isolate(const task_state& t) const noexcept {
    return t.isolatable && !one_thread_ && options_.isolation_threads != 0 && !closed();
  }
  [[nodiscard]] timing::ticks quantum() const noexcept { return quantum_; }
  void count_isolated() noexcept { isolated_.fetch_add(1, std::memory_order_relaxed); }

  /// The driver's turn: takes the next parked operation off the ring. `more` tells whether the
  /// driver is needed again.
  struct released {
    task_state* task;
    void* operation;
    bool more;
  };
  template <class Pop>
  released release_next(Pop pop) noexcept {
    const std::lock_guard lock(mutex_);
    task_state* t = ring_;
    if (t == nullptr) {
      driver_posted_ = false;
      return {nullptr, nullptr, false};
    }
    void* operation = pop(*t->parked);
    take_turn(*t);
    return {t, operation, driver_posted_ = ring_ != nullptr};
  }
  /// Takes every parked operation, for destruction with the context.
  template <class Pop>
  void* take_any_parked(Pop pop) noexcept {
    const std::lock_guard lock(mutex_);
    if (ring_ == nullptr) return nullptr;
    task_state* t = ring_;
    void* operation = pop(*t->parked);
    take_turn(*t);
    return operation;
  }

  /// What should_yield() asks when its fuel is spent.
  [[nodiscard]] bool wants_yield(hooks::thread_state& ts) noexcept;
  /// Whether the task's next handler should let others go first: it is in Yield or above, and over
  /// budget at `now`.
  [[nodiscard]] bool overspent(task_state& t, timing::ticks now) noexcept;
  /// A report about something other than a poll.
  void tell(report_kind kind, task_state& t, const hooks::poll_frame* frame,
            std::chrono::nanoseconds duration, std::string_view detail) noexcept;
  /// The task's next operation goes behind everybody else's, once, if the gate can put it there.
  void defer(task_state& t) noexcept;
  /// Where hints are to come from: never environment.
  [[nodiscard]] hint_source hints_from() const noexcept { return hints_from_; }
  /// The process was forked and this is the child: its other workers are gone.
  void forked() noexcept;
  /// A spare worker was started (1) or has ended (-1).
  void count_spare(int change) noexcept {
    if (change > 0) spares_started_.fetch_add(1, std::memory_order_relaxed);
    spares_.fetch_add(static_cast<std::uint64_t>(std::int64_t{change}), std::memory_order_relaxed);
  }

  // ---- instruments

  [[nodiscard]] instruments& tools() const noexcept { return *instruments_; }
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  /// Somebody looks for so long; the workers collect meanwhile.
  void want_metrics(std::chrono::milliseconds how_long) noexcept;
  void want_trace(std::chrono::milliseconds how_long) noexcept;
  /// The workers look at their next poll what has changed for them.
  void tell_workers() noexcept;
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] context_metrics metrics(const metrics_request& what);
  /// What the rings hold.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] recording trace();
  /// The same two, for the inspection's own thread.
  [[nodiscard]] context_metrics snapshot(const metrics_request& what,
                                         std::chrono::milliseconds lease);
  [[nodiscard]] recording recorded();
  /// Calls `look` for each task, the unnamed one included, with the mutex held; it is let go now
  /// and then in between.
  void walk_tasks(const std::function<void(task_state&)>& look);
  /// Finds out how long the queue is now, unless nothing runs. While the port is there.
  void probe() noexcept;
  /// A probe that was put into the queue at `ready` runs.
  void probed(timing::ticks ready) noexcept;

  // ---- stalls: the watchdog's thread only (see watchdog.hpp), but for watched() and find_task()

  /// A poll that does not end, as far as it is known.
  struct stall {
    task_state* task = nullptr;  ///< null: of no task
    const hooks::site* site = nullptr;
    hooks::location where{};
    std::uint64_t thread_number = 0;  ///< the kernel's
    std::thread::id thread{};
    std::chrono::nanoseconds lasted{0};  ///< by the wall clock
    std::chrono::nanoseconds blamed{0};  ///< without what is not its own doing
    stall_cause cause = stall_cause::unknown;
    bool critical = false;  ///< in a critical section
  };

  /// Whether the watchdog is to watch this context's workers.
  [[nodiscard]] bool watched() const noexcept { return watched_; }
  /// The task with one more reference, if there is one at that address; else null. Any thread.
  [[nodiscard]] task_state* find_task(const hooks::task_record* address) noexcept;
  /// A stall begins: counts it and calls the user's hooks.
  void stalled(const stall& s) noexcept;
  /// The task climbs for a poll that has been stuck for `culpable` at `now`. False: somebody else
  /// is deciding about it; to be tried again, as the poll that is judged now is another one.
  [[nodiscard]] bool escalate(const stall& s, timing::ticks now, timing::ticks culpable) noexcept;
  /// Whether the stall may be reported now. Not for the first time: `shown`.
  [[nodiscard]] report_limiter::verdict admit_stall(const stall& s, bool shown) noexcept;
  /// For the instruments: what the stuck thread is doing.
  void describe_stall(const stall& s, std::string_view system_call,
                      std::span<const stack_frame> stack) noexcept;
  /// It is over.
  void stall_over(const stall& s) noexcept;
  /// A stall has ended, or its context, and none of its reports was admitted.
  void hold_back_stall(const stall& s) noexcept;
  /// Sends what was admitted.
  void tell_stall(report_kind kind, const stall& s, std::uint64_t suppressed,
                  std::string_view system_call, std::span<const stack_frame> stack) noexcept;
  /// A critical section has lasted for `stayed` and goes on.
  void tell_overstay(const stall& s, std::chrono::nanoseconds stayed) noexcept;

  // hooks::path_observer
  void before_poll(const hooks::poll_frame& frame) noexcept override;
  void after_poll(const hooks::poll_frame& frame, hooks::task_record& record,
                  const timing::lap& last, const hooks::poll_sum& sum) noexcept override;
  hooks::task_record* accepted(hooks::task_record* listener) noexcept override;
  hooks::task_record* listener_of(hooks::task_record* record) noexcept override;
  bool hold_back(hooks::thread_state& ts, hooks::tracked_operation& op, void* operation,
                 void* owner) noexcept override;
  void destroy(hooks::task_record& record) noexcept override;
  hooks::task_record& unnamed() noexcept override { return *unnamed_; }
  void attached(hooks::thread_state& ts) noexcept override;
  void detached(hooks::thread_state& ts) noexcept override;
  void woken() noexcept override;
  void hinted(hooks::thread_state& ts, hooks::task_record& record,
              timing::ticks now) noexcept override;
  void renew(hooks::thread_state& ts) noexcept override;
  timing::clock_kind clock() const noexcept override { return clock_; }

 private:
  void take_turn(task_state& t) noexcept;
  [[nodiscard]] bool park(task_state& t, hooks::tracked_operation& op, void* operation) noexcept;
  void settle(task_state& t, timing::ticks now) noexcept;
  void judge(const hooks::poll_frame& frame, task_state& t, const timing::lap& last,
             const hooks::poll_sum& sum) noexcept;
  void apply(task_state& t, const tier_decision& decision) noexcept;
  void announce(const task_state& t, const tier_decision& decision) noexcept;
  void refuse_isolation(task_state& t, const hooks::poll_frame* frame) noexcept;
  void send(report& r, task_state& t, const hooks::poll_frame* frame) noexcept;
  void deliver(report& r, task_state& t) noexcept;
  [[nodiscard]] report_slot* stall_slot(task_state& t) noexcept;
  void set_gate(task_state& t) noexcept;
  void collect_tasks(const metrics_request& what,
                     const std::vector<const hooks::task_record*>& at_work, context_metrics& to);
  void collect_workers(const metrics_request& what, context_metrics& to,
                       std::vector<const hooks::task_record*>& at_work);
  [[nodiscard]] const tier_limits& limits_of(const task_state& t) const noexcept;

  const options options_;
  const bool one_thread_;
  const bool watched_;
  const timing::clock_kind clock_;
  const hint_source hints_from_;
  const tier_limits limits_;
  const tier_limits unnamed_limits_;
  const timing::ticks quantum_;
  const timing::ticks min_slice_;
  const timing::ticks check_interval_;
  const std::uint64_t number_;
  const std::unique_ptr<instruments> instruments_;
  hooks::registry hooks_;
  report_limiter limiter_;
  tier_metrics metrics_;
  std::atomic<std::uint32_t> references_{1};
  std::atomic<std::uint32_t> workers_{0};
  std::atomic<std::uint64_t> next_id_{1};
  std::atomic<std::uint64_t> yields_{0};
  std::atomic<std::uint64_t> strand_breaks_{0};
  std::atomic<std::uint64_t> checkpoint_yields_{0};
  std::atomic<std::uint64_t> isolated_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<std::uint64_t> callback_errors_{0};
  std::atomic<std::uint64_t> stalls_{0};
  std::atomic<std::uint64_t> stalls_spinning_{0};
  std::atomic<std::uint64_t> stalls_blocked_{0};
  std::atomic<std::uint64_t> stall_reports_{0};
  std::atomic<std::uint64_t> spares_started_{0};
  std::atomic<std::uint64_t> spares_{0};
  std::atomic<std::uint64_t> hints_{0};
  std::atomic<std::uint64_t> hints_lost_{0};
  std::atomic<std::uint64_t> deferrals_{0};
  std::atomic<timing::clock_kind> clock_in_use_{timing::clock_kind::none};
  /// Set while a thread that gives no notice of leaving may be polling.
  std::atomic<bool> strangers_{false};
  std::atomic<bool> closed_{false};

  mutable std::mutex mutex_;  ///< below: guarded by it
  asio_port* port_ = nullptr;
  task_state* tasks_ = nullptr;
  std::uint64_t task_count_ = 0;
  std::uint64_t ended_polls_ = 0;  ///< of tasks that are no more
  std::uint64_t ended_cost_ = 0;
  task_state* ring_ = nullptr;  ///< tasks with parked work, next to be served first
  task_state* ring_back_ = nullptr;
  std::uint64_t parked_ = 0;
  bool driver_posted_ = false;
  std::unordered_map<const void*, task_state*> places_;  ///< one reference each

  task_state* unnamed_;
};

/// One reference to a core.
class core_ref {
 public:
  core_ref() noexcept = default;
  explicit core_ref(context_core* adopted) noexcept : core_(adopted) {}
  core_ref(core_ref&& other) noexcept : core_(other.core_) { other.core_ = nullptr; }
  core_ref& operator=(core_ref&&) = delete;
  ~core_ref() {
    if (core_ != nullptr) core_->release();
  }
  context_core* operator->() const noexcept { return core_; }
  context_core& operator*() const noexcept { return *core_; }

 private:
  context_core* core_ = nullptr;
};

}  // namespace asio_pulse::detail
