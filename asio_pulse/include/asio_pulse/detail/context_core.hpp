// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/accepted_connection.hpp>
#include <asio_pulse/admission.hpp>
#include <asio_pulse/changes.hpp>
#include <asio_pulse/detail/asio_port.hpp>
#include <asio_pulse/detail/counters.hpp>
#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/detail/live_options.hpp>
#include <asio_pulse/detail/shards/shard_figures.hpp>
#include <asio_pulse/detail/task_list.hpp>
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
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace asio_pulse {
struct recording;
}  // namespace asio_pulse

namespace asio_pulse::detail {

class context_companion;
struct stalled_poll;
class parking;
class task_groups;
struct chosen_policy;

class context_core;

/// Runs an operation on a fiber, as hooks::path_arbiter::run_on_fiber(). preemptible.hpp sets it: it
/// needs Boost.Context, which most programs do without. Relaxed: it is set before main(), or while a
/// library is being loaded.
using operation_runner = bool (*)(context_core&, hooks::tracked_operation&, void* operation,
                                  void* owner, const hooks::site&);
extern constinit std::atomic<operation_runner> the_operation_runner;

/// An address that identifies this copy of the library: modules that use the same copy get the same
/// one, and other modules get another.
[[nodiscard]] const void* this_copy() noexcept;

/// The part of a context that does not know Asio: its tasks, tiers, reports and hooks. The context
/// and its tasks share it, so that a task may outlive its context.
///
/// \par Thread safety  As stated at each member. The poll path calls it from any worker.
class context_core final : public hooks::path_arbiter {
 public:
  /// \par Errors  std::invalid_argument naming the field and the rule (see validate()).
  context_core(options opts, bool one_thread);
  /// For tests: uses `companion` instead of the one of process.cpp.
  context_core(options opts, bool one_thread, std::unique_ptr<context_companion> companion);

  ~context_core() override;

  void acquire() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept;

  /// The options that the context was made with. Those that can change (changes.hpp) are here as
  /// they were then: use live() for them.
  [[nodiscard]] const options& opts() const noexcept { return options_; }
  /// The options that can change, as they are now.
  [[nodiscard]] const live_options& live() const noexcept { return live_; }
  [[nodiscard]] bool shadow() const noexcept { return live_.shadow(); }
  /// All options, as they are now.
  ///
  /// \par Blocking  Waits for an update that is in progress.
  /// \par Errors    std::bad_alloc.
  [[nodiscard]] options current() const;

  /// Why an update was refused; the text is empty if it was not.
  struct refusal {
    error what{};
    std::string text{};
  };
  /// Changes the options, all or none of them; see io_context::update().
  ///
  /// \par Blocking      Waits for other updates. Workers do not wait for it.
  /// \par Thread safety Any thread; not with a lock of the library held, because it calls hooks.
  /// \par Errors        std::bad_alloc; then nothing has changed.
  [[nodiscard]] refusal update(const changes& what);
  /// An update that was made, and whose hooks have to be called.
  struct made_update {
    std::uint64_t number = 0;  ///< 0: nothing has changed
    std::string changed{};
    std::string group{};
  };
  /// As update(), but calls no hooks: the caller calls announce() where it holds no lock.
  [[nodiscard]] refusal update(const changes& what, made_update& made);
  void announce(const made_update& made) noexcept;
  /// Changes the weight of a group of this context. Calls no hooks, either.
  ///
  /// \par Errors  std::bad_alloc; then nothing has changed.
  [[nodiscard]] made_update set_weight(group_state& g, unsigned weight);
  /// The same, to these options.
  [[nodiscard]] refusal update_to(const options& to);
  /// Changes the budget of a declared task of this context; see task::update().
  [[nodiscard]] refusal update(task_state& t, const task_options& to);
  using classifier = std::function<group_ref(const accepted_connection&)>;
  /// Replaces options::classify; see io_context::classify().
  void classify_by(classifier chooses);
  [[nodiscard]] hooks::registry& hooks() noexcept { return hooks_; }
  [[nodiscard]] statistics stats() const noexcept;
  /// The context is a shard, with these figures; null: it is none.
  ///
  /// \pre  It is called once, before threads run the context.
  void be_shard(std::shared_ptr<const shard_figures> figures) noexcept {
    shard_owner_ = std::move(figures);
    // Release: pairs with shard(), which an inspector's thread may call by now.
    shard_.store(shard_owner_.get(), std::memory_order_release);
  }
  [[nodiscard]] const shard_figures* shard() const noexcept {
    return shard_.load(std::memory_order_acquire);
  }
  /// Whether the program has promised that only one thread runs the context.
  [[nodiscard]] bool one_thread() const noexcept { return one_thread_; }

  /// Connects the core with Asio or, with null, disconnects it for good.
  void connect(asio_port* port) noexcept;
  /// The context is being destroyed. From now on nothing is held back or isolated. The destructors
  /// of its handlers may still use its tasks.
  void close() noexcept;
  /// \par Memory order  Relaxed: the thread that destroys a context has synchronised with its
  ///                    users.
  [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_relaxed); }

  enum class birth : std::uint8_t {
    declared,  ///< by the program
    accepted,  ///< `from` is the listener's task, which the new one keeps alive
    connected  ///< `from` is the task that opens the connection
  };
  /// Makes a task with one reference. `from` may be null.
  ///
  /// \par Errors  std::invalid_argument if its group is one of another context; std::bad_alloc.
  [[nodiscard]] task_state* make_task(const task_options& opts, birth how = birth::declared,
                                      task_state* from = nullptr);

  /// Makes a task that continues `from`, which is one of another context: with its name, what it may
  /// use and has used, its tier, and its rank. It is in the group of this context that has the path of
  /// the other's group; if there is none, one is made. If `from` is a connection's own task, its
  /// figures go on, otherwise they begin at zero: others may use `from` as well.
  ///
  /// \par Thread safety  Any thread. What another thread charges to `from` meanwhile stays there.
  /// \par Errors         std::bad_alloc.
  [[nodiscard]] task_state* continue_task(task_state& from);

  /// The task of an annotated place in the source. It is made at its first use, and kept until the
  /// context is destroyed. Null if there is no memory.
  [[nodiscard]] task_state* task_of_place(const void* place, const task_options& opts) noexcept;
  [[nodiscard]] asio_port* port() const noexcept { return port_; }

  [[nodiscard]] task_list& tasks() noexcept { return tasks_; }

  [[nodiscard]] task_groups& groups() noexcept { return *groups_; }
  /// Decides about a request of a group of this context.
  [[nodiscard]] admission admit(group_state& g) noexcept;

  /// Moves a task of this context to a group of this context, or to none.
  ///
  /// \par Thread safety  Any thread that has a reference to the task.
  /// \par Errors         std::bad_alloc.
  void move(task_state& t, const group_ref& to);

  /// Whether a declared task that is in Isolate may leave its context's threads.
  [[nodiscard]] bool may_isolate(const task_state& t) const noexcept {
    return wants_isolation(t) && isolation_there();
  }
  [[nodiscard]] bool isolation_there() const noexcept {
    return isolation_there_.load(std::memory_order_relaxed);
  }
  /// Whether the task needs an isolation pool.
  [[nodiscard]] bool wants_isolation(const task_state& t) const noexcept {
    return t.isolatable && !one_thread_ && options_.isolation_threads != 0 && !closed();
  }
  /// Records whether the isolation pool has threads.
  void show_isolation(bool there) noexcept {
    isolation_there_.store(there, std::memory_order_relaxed);
  }
  /// The counters for stats().
  [[nodiscard]] counters& counted() noexcept { return counters_; }

  /// Called in the driver's turn. Returns a parked operation to run, or null.
  [[nodiscard]] void* release_next() noexcept;
  /// Called when an operation has run that release_next() returned or requeue_overtaken() requeued.
  void released_ended(bool stopped) noexcept;
  /// For the run functions, in connection with stop(); see parking.
  void run_begins() noexcept;
  /// Whether a stop() was noted, so that run_begins() has to be called.
  [[nodiscard]] bool stop_noted() const noexcept;
  [[nodiscard]] bool requeue_overtaken() noexcept;
  /// Whether operations are held back. Other threads may be about to change that.
  [[nodiscard]] bool parks() const noexcept;
  /// Takes a parked operation, to be destroyed with the context; null if there is none.
  [[nodiscard]] void* take_any_parked() noexcept;

  /// Whether the current poll should yield; should_yield() asks when its fuel is spent.
  [[nodiscard]] bool wants_yield(hooks::thread_state& ts) noexcept;
  /// Whether the time of the current poll is up at `now`, and why. For a thread inside a poll.
  struct slice_verdict {
    bool wanted = false;
    bool hinted = false;
    hooks::yield_reason why{};
  };
  /// `in_check`: in an automatic checkpoint, where nothing may wait or be freed.
  [[nodiscard]] slice_verdict judge_slice(const hooks::thread_state& ts, timing::ticks now,
                                          bool in_check = false) noexcept;
  /// The poll yields because of the verdict. Calls the program's hooks.
  void yields(hooks::thread_state& ts, const slice_verdict& verdict) noexcept;
  /// The size of the stacks of its handlers that run on fibers.
  [[nodiscard]] std::size_t fiber_bytes() const noexcept;
  /// Whether a handler that is suspended here, in a part of the program that does not expect it,
  /// can be resumed by the same thread.
  [[nodiscard]] bool returns_here(const hooks::thread_state& ts) const noexcept;
  /// Whether handlers may have to be resumed by the thread that they were suspended on.
  [[nodiscard]] bool pins_threads() const noexcept;
  /// Whether an operation that this pin's thread has to run, and another one of the context's has
  /// taken out of the queue, must be put back.
  [[nodiscard]] bool belongs_elsewhere(const thread_pin& pin) const noexcept;
  /// Whether the task is in Yield or above, and over budget at `now`.
  [[nodiscard]] bool overspent(task_state& t, timing::ticks now) noexcept;
  /// Whether the rest of a batch of the task should wait for other work; see parking::gives_way().
  [[nodiscard]] bool gives_way(task_state& t, const hooks::thread_state& ts) noexcept;
  /// Whether the turn of the task's executor, which this thread runs in the home context, has
  /// lasted long enough.
  [[nodiscard]] bool turn_is_over(task_state& t, timing::ticks now) noexcept;
  /// A turn of the task's executor, which this thread runs, ends because turn_is_over(). Calls the
  /// program's hooks if handlers are left.
  void turn_ends(task_state& t) noexcept;
  /// Sends a report about something other than a poll.
  void send_report(report_kind kind, task_state& t, const hooks::poll_frame* frame,
                   std::chrono::nanoseconds duration, std::string_view detail) noexcept;
  /// Makes the task's next operation go behind all others, once, if the gate can do that.
  void defer(task_state& t) noexcept;
  /// Where hints should come from; never `environment`.
  [[nodiscard]] hint_source hints_from() const noexcept { return hints_from_; }
  /// Called in the child after a fork: the other workers do not exist there.
  void forked() noexcept;
  /// Called around each fork, by core_list: no other thread has the locks with which the options and
  /// the groups are changed.
  void before_fork() noexcept;
  void after_fork(bool child) noexcept;

  // ---- figures

  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  /// Makes the workers look for changes of their services at their next poll.
  void notify_workers() noexcept;
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] context_metrics metrics(const metrics_request& what);
  /// The events in the rings.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] recording trace();
  /// The port if a probe may be put into the queue now, otherwise null. A thread that runs the
  /// context through a base-class reference would count the probe as a handler.
  [[nodiscard]] asio_port* port_for_probe() const noexcept;
  /// Called when a probe runs that was put into the queue at `ready`.
  void probed(timing::ticks ready) noexcept;

  // ---- stalls: called on the watchdog's thread only, except for watched(). Only announce_stall(),
  // announce_escalation(), report_stall() and report_overstay() call user code.

  /// Whether the watchdog should watch this context's workers.
  [[nodiscard]] bool watched() const noexcept { return live_.watched(); }
  /// A stall begins. Counts it, and tells the companion.
  void stalled(const stalled_poll& s) noexcept;
  /// Calls the program's hooks for a stall.
  void announce_stall(const stalled_poll& s) noexcept;
  /// Promotes the task for a poll that has been stuck for `culpable` at `now`. If the result is not
  /// decided, another thread is deciding about the task because of another poll; try again.
  struct escalation {
    bool decided = false;
    tier_decision change{};  ///< has to be announced if changed()
  };
  [[nodiscard]] escalation escalate(const stalled_poll& s, timing::ticks now,
                                    timing::ticks culpable) noexcept;
  void announce_escalation(const stalled_poll& s, const tier_decision& change) noexcept;
  /// Whether reports of this kind are silenced. If they are, counts one silenced report.
  [[nodiscard]] bool silences(report_kind) noexcept;
  /// Whether the stall may be reported now. `shown`: it was reported before.
  [[nodiscard]] report_limiter::verdict admit_stall(const stalled_poll& s, bool shown) noexcept;
  /// Sets what the stuck thread is doing, for readers of the metrics.
  void describe_stall(const stalled_poll& s, std::string_view system_call,
                      std::span<const stack_frame> stack) noexcept;
  /// Whether the metrics are being read now.
  [[nodiscard]] bool observed() const noexcept;
  /// The stall is over.
  void stall_over(const stalled_poll& s) noexcept;
  /// A stall or its context has ended, and none of the stall's reports was admitted.
  void hold_back_stall(const stalled_poll& s) noexcept;
  /// Sends a report that was admitted.
  void report_stall(report_kind kind, const stalled_poll& s, std::uint64_t suppressed,
                    std::string_view system_call, std::span<const stack_frame> stack) noexcept;
  /// A critical section has lasted for `stayed` and has not ended.
  void report_overstay(const stalled_poll& s, std::chrono::nanoseconds stayed) noexcept;

  // hooks::path_arbiter
  void before_poll(const hooks::poll_frame& frame) noexcept override;
  void after_poll(const hooks::poll_frame& frame, hooks::task_record& record,
                  const timing::lap& last, const hooks::poll_sum& sum) noexcept override;
  hooks::task_record* accepted(hooks::task_record* listener) noexcept override;
  void classify(hooks::task_record& connection, std::intptr_t socket) noexcept override;
  hooks::task_record* listener_of(hooks::task_record* record) noexcept override;
  hooks::task_record* connecting(hooks::task_record* from) noexcept override;
  bool declared(const hooks::task_record& record) noexcept override;
  void connection_closed(hooks::task_record& record) noexcept override;
  bool hold_back(hooks::thread_state& ts, hooks::tracked_operation& op, void* operation,
                 void* owner, hooks::completes how, const hooks::site& what) noexcept override;
  bool wants_fiber(const hooks::thread_state& ts, const hooks::tracked_operation& op,
                   const void* operation, const void* owner,
                   const hooks::site& what) noexcept override;
  bool run_on_fiber(hooks::tracked_operation& op, void* operation, void* owner,
                    const hooks::site& what) override;
  bool drains_strand(void* owner) noexcept override;
  void next_in_batch(hooks::thread_state& ts, hooks::task_record& record,
                     void* strand) noexcept override;
  void charged(hooks::task_record& record, timing::ticks cost, bool alone) noexcept override;
  void destroy(hooks::task_record& record) noexcept override;
  hooks::task_record& unnamed() noexcept override { return *unnamed_; }
  void attached(hooks::thread_state& ts) noexcept override;
  void detached(hooks::thread_state& ts) noexcept override;
  void let_go() noexcept override;
  void woken() noexcept override;
  void hinted(hooks::thread_state& ts, hooks::task_record& record,
              timing::ticks now) noexcept override;
  void renew(hooks::thread_state& ts) noexcept override;
  timing::clock_kind clock() const noexcept override { return clock_; }
  const char* name_of(const hooks::task_record& t) const noexcept override {
    return static_cast<const task_state&>(t).name.get();
  }

 private:
  /// Whether this thread is the one that is alone with the task; see group_slot.
  [[nodiscard]] bool alone_with(const task_state& t) const noexcept;
  /// \par Errors  std::invalid_argument if options::preemptible cannot be followed.
  void set_fibers();
  /// Puts a new task into its group, and notes its rank.
  void join(task_state& t, const task_options& opts);
  static void leave_group(const task_state& t) noexcept;
  /// If a worker rests (see path_arbiter::resting), counts it as left.
  void let_go_of_resting() noexcept;
  /// One worker has left.
  void leave() noexcept;
  /// Whether the thread is in a run function of this context.
  [[nodiscard]] bool runs_handlers(const hooks::thread_state& ts) const noexcept;
  [[nodiscard]] static bool make_unnamed(task_state& t, hooks::tracked_operation& op) noexcept;
  /// Whether the policy decides now; see options::saturation.
  [[nodiscard]] bool saturated(timing::ticks now) noexcept;
  /// Demotes the task if it has been clean for long enough.
  void come_down(task_state& t, timing::ticks now) noexcept;
  void judge(const hooks::poll_frame& frame, task_state& t, const timing::lap& last,
             const hooks::poll_sum& sum) noexcept;
  void apply(task_state& t, const tier_decision& decision) noexcept;
  void announce(const task_state& t, const tier_decision& decision) noexcept;
  /// Calls the program's hooks for a yield, and for the end of a task. The caller holds no lock, and
  /// has a reference to the task, or is destroying it.
  void announce_yield(const task_state& t, std::string_view site, hooks::yield_reason why,
                      std::uint32_t operations = 1) noexcept;
  void announce_end(const task_state& t) noexcept;
  void refuse_isolation(task_state& t, const hooks::poll_frame* frame) noexcept;
  void send(report& r, task_state& t, const hooks::poll_frame* frame) noexcept;
  void deliver(report& r, task_state& t) noexcept;
  [[nodiscard]] report_slot& stall_slot(task_state& t) noexcept;
  [[nodiscard]] tier_limits limits_of(const task_state& t) const noexcept;
  /// Polls of a quiet task that cost less are not looked at. In a shard, those that block it always are.
  [[nodiscard]] timing::ticks quiet_below(const task_state& t) const noexcept;
  /// Sets the task's attention for the limits as they are now, which may be changing.
  void show_attention(task_state& t, bool quiet) noexcept;
  void prepare(task_state& t, const task_options& opts, birth how) noexcept;
  /// `next(before, to)` makes the options of an update, or says why it is refused.
  template <class Next>
  [[nodiscard]] refusal update_by(const Next& next, made_update& made);
  [[nodiscard]] made_update take_over(options now, chosen_policy policy,
                                      std::unique_lock<std::mutex> held);
  void show_update() noexcept;
  void note_turn() noexcept;
  [[nodiscard]] std::uint64_t count_update() noexcept {
    return updates_.fetch_add(1, std::memory_order_relaxed) + 1;
  }
  void retune_tasks(const changes& what) noexcept;
  void announce_update(std::uint64_t number, const task_state* t, std::string_view names,
                       std::string_view group = {}) noexcept;

  const options options_;
  const bool one_thread_;
  const timing::clock_kind clock_;
  const hint_source hints_from_;
  live_options live_;
  const std::uint64_t number_;
  const std::unique_ptr<context_companion> companion_;
  counters counters_;
  const std::unique_ptr<parking> gate_;  ///< has a reference to the counters
  const std::unique_ptr<task_groups> groups_;
  hooks::registry hooks_;
  report_limiter limiter_;
  report_slot
      common_reports_;  ///< for all tasks that have none of their own, because there is no memory
  /// One update at a time. No lock is held when it is taken.
  mutable std::mutex update_mutex_;
  options current_;  ///< guarded by it
  /// The number of updates. Relaxed: it publishes nothing.
  std::atomic<std::uint64_t> updates_{0};
  /// Reports that stderr did not take. Shared with the writer, which may outlive the core.
  const std::shared_ptr<std::atomic<std::uint64_t>> reports_dropped_;
  tier_metrics metrics_;
  std::atomic<std::uint32_t> references_{1};
  std::atomic<std::uint32_t> workers_{0};
  /// The last pin of a worker that was alone: its number in the upper half, and 0 for none. Relaxed:
  /// see let_go().
  mutable std::atomic<std::uint64_t> lone_pin_{0};
  std::atomic<std::uint64_t> next_id_{1};
  std::atomic<timing::clock_kind> clock_in_use_{timing::clock_kind::none};
  /// Set while a thread may be polling that does not announce when it leaves.
  std::atomic<bool> strangers_{false};
  std::atomic<bool> closed_{false};
  std::atomic<bool> isolation_there_{false};  ///< relaxed: checked again with the pool's lock held

  /// Written only while no other thread uses the context: before opened(), and after closing().
  asio_port* port_ = nullptr;
  std::unique_ptr<task_state> unnamed_;
  task_list tasks_;
  place_tasks places_;
  /// The program's function, and one that refers to it, which can be copied with a mutex held.
  [[nodiscard]] static std::shared_ptr<const classifier> keep(classifier chooses,
                                                              classifier& refers);
  [[nodiscard]] std::string_view join_chosen(task_state& t, const group_ref& chosen) noexcept;
  std::mutex classify_mutex_;  ///< guards classifier_; taken alone, or inside update_mutex_
  std::shared_ptr<const classifier> classifier_;  ///< null: connections are not classified
  // If the context is a shard.
  std::shared_ptr<const shard_figures> shard_owner_;
  std::atomic<const shard_figures*> shard_{nullptr};
};

/// One reference to a core.
class core_ref {
 public:
  core_ref() noexcept = default;
  explicit core_ref(context_core* adopted) noexcept : core_(adopted) {}
  core_ref(core_ref&& other) noexcept : core_(other.core_) { other.core_ = nullptr; }
  core_ref& operator=(core_ref&& other) noexcept {
    std::swap(core_, other.core_);
    return *this;
  }
  ~core_ref() {
    if (core_ != nullptr) core_->release();
  }
  context_core* operator->() const noexcept { return core_; }
  context_core& operator*() const noexcept { return *core_; }

 private:
  context_core* core_ = nullptr;
};

}  // namespace asio_pulse::detail
