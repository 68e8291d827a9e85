// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/hooks/location.hpp>
#include <asio_pulse/hooks/site.hpp>
#include <asio_pulse/hooks/task_record.hpp>
#include <asio_pulse/timing/poll_clock.hpp>
#include <asio_pulse/timing/slice_extension.hpp>

#include <atomic>
#include <cstdint>

#if defined(__GNUC__) && defined(__linux__)
// The TLS model for a single %fs-relative access, which is used in programs and in our own shared
// libraries. Other position-independent code may become a plugin with its own copy of the library.
// The static TLS block may have no room for it, and then it would not load. If such code is linked
// into a program, the linker relaxes it to the faster form.
#if !defined(__PIC__) || defined(__PIE__) || defined(ASIO_PULSE_DETAIL_SHARED)
#define ASIO_PULSE_DETAIL_TLS_MODEL __attribute__((tls_model("initial-exec")))
#else
#define ASIO_PULSE_DETAIL_TLS_MODEL
#endif
#define ASIO_PULSE_DETAIL_COLD __attribute__((noinline, cold))
#define ASIO_PULSE_DETAIL_NOINLINE __attribute__((noinline))
#define ASIO_PULSE_DETAIL_INLINE __attribute__((always_inline)) inline
#else
#define ASIO_PULSE_DETAIL_TLS_MODEL
#define ASIO_PULSE_DETAIL_COLD
#define ASIO_PULSE_DETAIL_NOINLINE
#define ASIO_PULSE_DETAIL_INLINE inline
#endif

struct asio_pulse_scb;
namespace asio_pulse::detail {
struct hint_link;
}  // namespace asio_pulse::detail

/// \file
/// The state of each thread on the poll path, and the interface through which a context observes
/// it.

namespace asio_pulse::hooks {

class path_arbiter;
class poll_frame;
class poll_recorder;
class tracked_operation;

/// The poll-path word of an arbiter: a generation and flags. A worker chains its time stamps (the
/// end of one poll is the start of the next, so that one TSC read suffices) only while the word has
/// the value that it had at the last stamp.
namespace path_state {
/// Two or more threads poll: charges are atomic, and each poll takes two stamps.
inline constexpr std::uint32_t several_workers = charging_mode::shared;
/// Hooks of the program want to see every poll.
inline constexpr std::uint32_t poll_hooks = 2;
/// The watchdog sleeps, and the next poll has to wake it (path_arbiter::woken()).
inline constexpr std::uint32_t wake_watchdog = 4;
/// One generation; added whenever a worker enters or leaves.
inline constexpr std::uint32_t generation = 8;
}  // namespace path_state

/// An atomic that only its own thread writes. It can be copied together with the object that it is
/// a part of.
template <class T>
struct own_atomic : std::atomic<T> {
  constexpr own_atomic(T value) noexcept : std::atomic<T>(value) {}  // NOLINT: as std::atomic
  own_atomic(const own_atomic& other) noexcept
      : std::atomic<T>(other.load(std::memory_order_relaxed)) {}
  own_atomic& operator=(const own_atomic& other) noexcept {
    this->store(other.load(std::memory_order_relaxed), std::memory_order_relaxed);
    return *this;
  }
  using std::atomic<T>::operator=;
};

/// The state of the innermost run function on a thread. A run function that is called in a handler
/// starts with a new one, and restores the outer one when it returns (worker_scope).
struct run_state {
  /// No token has this value, so a thread without an arbiter never takes the fast path.
  static constinit const std::atomic<std::uint32_t> no_state;
  static constexpr std::uintptr_t label_closed = ~std::uintptr_t{0};
  static constexpr std::uintptr_t label_none = ~std::uintptr_t{1};

  /// The record that is charged for work of no task. It is never held back.
  task_record* unnamed = nullptr;
  path_arbiter* arbiter = nullptr;
  /// A copy of `arbiter` for the watchdog. Relaxed: the watchdog uses the value only if the poll
  /// is still the same afterwards.
  own_atomic<path_arbiter*> watched{nullptr};
  /// The number of turns of the scheduler that ran no handler, and of turns that broken strand
  /// batches have added, since the run function began.
  std::size_t phantom_turns = 0;
  std::size_t extra_turns = 0;
  /// The recorder of each poll, or null. Set by its own thread, between two polls or at the start
  /// of one.
  poll_recorder* recorder = nullptr;
  /// When the outermost critical section of this poll was entered. For the watchdog, as `watched`.
  own_atomic<timing::ticks> critical_since{0};
  /// Critical sections entered in this poll. Relaxed, pairs with the watchdog's load.
  own_atomic<std::uint32_t> critical{0};
  /// The number of locks and scopes in this poll that forbid a yield.
  std::uint32_t no_yield = 0;
  /// The run function was called in a handler.
  bool nested = false;
  /// path_arbiter::gates_all of the arbiter.
  bool gates_all = false;
  /// The thread is in run() or another function that runs handlers until it is stopped, so that
  /// another thread may take over. For the watchdog, as `watched`.
  own_atomic<bool> compensable{false};
  /// The run function is one of ours, and not that of the base class.
  bool wrapped = false;
  /// The run function does not wait for handlers: poll() or poll_one().
  bool polls = false;
  /// In its last turn it has put back what another thread has to run, and there was nothing else.
  bool waits_for_another = false;
  /// How the account is charged; see charging_mode.
  std::uint8_t charging = 0;
  /// arbiter_epoch when `plain_owner` was found out.
  std::uint32_t plain_epoch = 0;
  /// A scheduler that is not observed: that of a plain io_context, or of one that is switched off.
  void* plain_owner = nullptr;
  /// In a context that is switched off, a poll still makes its task the current one. In its run
  /// functions this is the address of the account, whose polls do that on a short path, or
  /// `label_none` before there is an account. Inside such a poll, and everywhere else, it is
  /// `label_closed`.
  std::uintptr_t label = label_closed;
  /// The site of the operation that was started last, for readers on other threads. Relaxed: it
  /// pairs with nothing, and may be out of date.
  own_atomic<const site*> poll_site{nullptr};
  /// The poll-path word of the arbiter; see thread_state::token.
  const std::atomic<std::uint32_t>* state = &no_state;
  /// The value of thread_state::current between polls.
  task_record* base = nullptr;
  /// The observed scheduler whose handlers this thread runs; null if there is none.
  void* owner = nullptr;
  /// The task that was polled last on this thread in this run function (null: none). The thread
  /// holds one reference to it and `cached_refs` cached ones. The cost of its polls is added up in
  /// thread_state::pending and charged to the task's record before long.
  std::int64_t cached_refs = 0;
  task_record* account = nullptr;
};

/// The state of a thread on the poll path. It is constant-initialised and trivially destructible,
/// so that it costs nothing until it is used.
///
/// \par Thread safety  Only its own thread writes it, except for `stall`. The watchdog reads the
///                     atomic members and `clock.last()`, to find out whether the thread is still
///                     in the poll that it saw before. That is the case if `top` is not null and
///                     `clock.last()` has not changed: each poll ends with a stamp, from which the
///                     next one starts.
struct thread_state : run_state {
  /// The task to which new operations belong; null for none. The frame, scope or handle that set it
  /// keeps it alive.
  task_record* current = nullptr;
  /// The number of the source location of new operations, shifted to its place in an operation's
  /// word.
  std::uintptr_t where = 0;

  /// The cost of polls of `account` that was not charged yet. It is charged when another task is
  /// polled, when `pending` reaches `settle_at`, and when the thread leaves. `flush_at` is the same
  /// as `settle_at`, or 0 while a recorder has to see each poll.
  timing::ticks pending = 0;
  timing::ticks flush_at = 0;
  timing::ticks settle_at = 0;
  std::uint64_t pending_polls = 0;
  timing::ticks longest_pending = 0;

  /// What this thread has charged to tasks so far. Only its own thread uses it.
  timing::ticks charged = 0;

  /// The innermost poll; null between polls. Relaxed, pairs with the watchdog's loads: it publishes
  /// nothing, since only its own thread reads the frame.
  std::atomic<poll_frame*> top{nullptr};
  /// The poll-path word of the arbiter at the last stamp.
  std::uint32_t token = 0;
  /// How many checkpoints are left until one reads the clock (see should_yield.hpp).
  std::int32_t fuel = 0;
  timing::poll_clock clock;
  /// The word that changes when a hint asks this thread to yield, and its value when the thread
  /// last reacted. Without a source of hints it is a word that never changes, so that reading it
  /// costs the same. Relaxed: it publishes nothing. Its own thread sets both.
  const std::atomic<std::uint64_t>* hint = &no_hint;
  std::uint64_t hint_seen = 0;
  std::int32_t fuel_step = 1;
  timing::ticks checked_at = 0;
  /// The numbers of recently used source locations, indexed by a few bits of the line.
  struct known_location {
    const char* file = nullptr;
    std::uint32_t line = 0;
    location_id id = 0;
  } locations[8] = {};

  static constinit const std::atomic<std::uint64_t> no_hint;

  /// The pressure that acts on budgets and checkpoints, from 0 to 100; 0 unless there are hints.
  std::uint32_t pressure = 0;
  /// Hints have come, and the reaction to them has to be checked again.
  bool pressured = false;
  /// A checkpoint has told this thread to yield because of a hint that was not acknowledged yet.
  bool yields_for_hint = false;
  /// service_epoch when this thread last looked for its services.
  std::uint32_t service_epoch = 0;
  /// Its control block, or null; the object that belongs to it; and its CPU time as published by a
  /// scheduler, or null. Only its own thread uses them.
  ::asio_pulse_scb* block = nullptr;
  ::asio_pulse::detail::hint_link* link = nullptr;
  const timing::published_cpu_time* published = nullptr;
  /// With this the thread asks the kernel not to interrupt it in a critical section. Null if the
  /// kernel does not support that, or hints are off.
  timing::slice_control* slice = nullptr;

  /// A fiber switch is in progress, so the stack cannot be taken now. Read by a signal handler on
  /// this thread.
  bool switching = false;
  /// The watchdog knows this thread. Only its own thread uses this.
  bool registered = false;
  /// A copy of `account` for the watchdog, as `watched`.
  std::atomic<task_record*> watched_account{nullptr};
  /// The start of the poll that the watchdog has found stalled; 0 for none. Set by the watchdog,
  /// and cleared by the end of the poll or, if it was mistaken, by the watchdog, whichever comes
  /// first. The poll clears it with release, which pairs with the watchdog's acquire: `stall_end`
  /// then says when the poll ended.
  std::atomic<timing::ticks> stall{0};
  std::atomic<timing::ticks> stall_end{0};

  /// The descriptor that a reactor registered last, until an accept takes it; -1 for none.
  std::intptr_t registered_descriptor = -1;

  /// The thread's id in path_arbiter::resting, which no other thread ever gets; 0 if it never
  /// rested.
  std::uint64_t rest_id = 0;
};

extern constinit thread_local thread_state this_thread_state ASIO_PULSE_DETAIL_TLS_MODEL;

inline thread_state& this_thread() noexcept { return this_thread_state; }

/// The same after code that may have been suspended, and continued on another thread. A call, since
/// compilers keep the address of a thread-local.
ASIO_PULSE_DETAIL_NOINLINE inline thread_state& this_thread_by_now() noexcept {
#if defined(__GNUC__)
  asm volatile("");  // so that two calls are not taken for one
#endif
  return this_thread_state;
}

/// Grows whenever an arbiter is added or removed. Relaxed: a thread that polls a scheduler has
/// synchronised with the thread that created it, and so sees its epoch.
inline constinit std::atomic<std::uint32_t> arbiter_epoch{1};

/// Grows whenever a source of hints or a reader of metrics comes or goes. Each worker then looks
/// for its services at its next poll. Relaxed: what it finds is guarded by a mutex.
inline constinit std::atomic<std::uint32_t> service_epoch{0};

/// How an operation was completed.
enum class completes : std::uint8_t {
  posted,  ///< it was submitted to an executor, and waited for nothing
  waited,  ///< it waited for an event, which has happened
  aborted  ///< it waited for an event, and the wait was cancelled
};

/// A poll as a whole, of which the last lap may be a part.
struct poll_sum {
  timing::ticks total;    ///< what it cost
  timing::ticks started;  ///< when it started, in ticks of the timebase
  bool over_budget;       ///< its task has used up its budget
  bool part;              ///< the poll goes on, for another task
  bool stalled = false;   ///< the watchdog has found it stalled, and reports its end
};

/// The interface through which a context observes the poll path and vetoes operations. It is called
/// on the slow path only.
class path_arbiter {
 public:
  path_arbiter() = default;
  virtual ~path_arbiter() = default;
  path_arbiter(const path_arbiter&) = delete;
  path_arbiter& operator=(const path_arbiter&) = delete;

  /// The poll-path word; see path_state.
  std::atomic<std::uint32_t> state{0};

  /// The thread_state::rest_id of the worker that rests, or 0 if none does. A thread that was the
  /// only worker rests when it leaves: it is still counted as a worker, and may come back. For a
  /// program that calls poll() in a loop this is cheaper than to leave and join each time. Exactly
  /// one party exchanges the value for 0: the thread itself when it comes back, or a thread that
  /// needs the number of workers, which then calls let_go().
  ///
  /// Memory order: the store that publishes the value and the load of `state` after it are
  /// sequentially consistent. So are the setting of path_state::several_workers in `state` and the
  /// exchange after it. Hence of a worker that leaves and one that joins, at least one sees the
  /// other.
  std::atomic<std::uint64_t> resting{0};
  /// The scheduler whose workers may rest, or null if none may. Set before the first worker joins,
  /// and changed only while there is no worker.
  void* rests_on = nullptr;

  /// Until then, in ticks, operations with gate_flag::unless_calm run without asking. Relaxed: with
  /// an old value they ask once too often, or that much too late.
  std::atomic<timing::ticks> calm_until{0};

  /// Whether classify() has to be called for each accepted connection. Relaxed: it publishes
  /// nothing, and connections that are accepted meanwhile may be treated either way.
  std::atomic<bool> classifies{false};

  /// Whether wants_fiber() has to be asked for operations that pass the gate, and whether all
  /// operations pass the gate, those of no task included. Set before the first worker joins.
  bool uses_fibers = false;
  bool gates_all = false;

  /// A poll starts and poll hooks are installed.
  virtual void before_poll(const poll_frame& frame) noexcept = 0;
  /// A poll ended that the arbiter has to see: it was long, its task is over budget or above
  /// Monitor, or poll hooks are installed.
  virtual void after_poll(const poll_frame& frame, task_record& t, const timing::lap& last,
                          const poll_sum& sum) noexcept = 0;
  /// The handler of an accept starts. Returns the task of the new connection with one reference, or
  /// null for none.
  virtual task_record* accepted(task_record* listener) noexcept = 0;
  /// The connection whose task is `t`, made by accepted(), has this socket; -1 if it is not known.
  /// Called in the poll that has accepted it, before its handler, if `classifies` is set.
  virtual void classify(task_record& /*t*/, std::intptr_t /*socket*/) noexcept {}
  /// The task that accepted the connection whose task is `t`; `t` itself if it is not the task of
  /// an accepted connection.
  virtual task_record* listener_of(task_record* t) noexcept = 0;
  /// Work of `t` (null: of no task), which the program has not declared, opens an outgoing
  /// connection. Returns the task of the new connection with one reference, or null for none.
  virtual task_record* connecting(task_record* /*t*/) noexcept { return nullptr; }
  /// Whether the program declared this task. Constant.
  virtual bool declared(const task_record& /*t*/) noexcept { return true; }
  /// The socket whose operations belong to `t` is being closed. If `t` is the connection's own
  /// task, the work that it leaves behind belongs to no task from now on. Called on any thread.
  virtual void connection_closed(task_record& /*t*/) noexcept {}
  /// Decides about an operation of a gated task. Returns true if the operation was put back and
  /// must not run now. `operation` is Asio's scheduler operation, `op` its base, and `what` its
  /// type.
  virtual bool hold_back(thread_state& ts, tracked_operation& op, void* operation, void* owner,
                         completes how, const site& what) noexcept = 0;
  /// Whether the operation should be completed by run_on_fiber().
  virtual bool wants_fiber(const thread_state& /*ts*/, const tracked_operation& /*op*/,
                           const void* /*operation*/, const void* /*owner*/,
                           const site& /*what*/) noexcept {
    return false;
  }
  /// Begins the operation's poll, and completes it on a fiber. Returns false if it did not, because
  /// there is no memory for a fiber.
  ///
  /// \par Errors  What the handler throws.
  virtual bool run_on_fiber(tracked_operation& /*op*/, void* /*operation*/, void* /*owner*/,
                            const site& /*what*/) {
    return false;
  }
  /// Whether this thread is draining the strand that `owner` is, if it is one.
  virtual bool drains_strand(void* /*owner*/) noexcept { return false; }
  /// A handler of `t` is about to run in the drain of `strand`, which runs in the task's executor.
  /// The arbiter may put the handlers after it back into the strand.
  virtual void next_in_batch(thread_state& /*ts*/, task_record& /*t*/, void* /*strand*/) noexcept {}
  /// `cost` ticks were charged to `t`, which is grouped. Called on the thread that charges it.
  /// `alone`: the charge was a plain store, as this thread is the arbiter's only worker, and no other
  /// has polled the task.
  virtual void charged(task_record& /*t*/, timing::ticks /*cost*/, bool /*alone*/) noexcept {}
  /// The last reference was released.
  virtual void destroy(task_record& t) noexcept = 0;
  /// The record to charge for handlers that belong to no task.
  virtual task_record& unnamed() noexcept = 0;
  /// A worker entered or left.
  virtual void attached(thread_state& ts) noexcept = 0;
  virtual void detached(thread_state& ts) noexcept = 0;
  /// The worker that rested does not come back. It has been removed from `resting`.
  virtual void let_go() noexcept {}
  /// A poll began while the flag path_state::wake_watchdog was set (it is cleared now), or a poll
  /// ended that the watchdog had found stalled.
  virtual void woken() noexcept {}
  /// A poll of `t` has ended on this thread at `now`, and there is a hint, or was one recently.
  virtual void hinted(thread_state& /*ts*/, task_record& /*t*/, timing::ticks /*now*/) noexcept {}
  /// service_epoch has changed. This thread's source of hints or its recorder may have changed.
  virtual void renew(thread_state& /*ts*/) noexcept {}
  /// The clock that workers of this arbiter measure with.
  virtual timing::clock_kind clock() const noexcept = 0;
  /// The name of the task, null-terminated. For the message of a crash: async-signal-safe.
  virtual const char* name_of(const task_record& /*t*/) const noexcept { return ""; }
};

/// Starts the thread's clock: the CPU time that a scheduler publishes, if one does, otherwise the
/// clock of its arbiter.
void attach_clock(thread_state& ts) noexcept;

/// Shows in the thread's control block, if it has one, whether the thread is in a critical section.
void show_critical(thread_state& ts, bool inside) noexcept;

/// Registers the arbiter of `scheduler`, for threads that run it through a base-class reference.
void add_arbiter(void* scheduler, path_arbiter& arbiter);
void remove_arbiter(void* scheduler) noexcept;

/// The calling thread polls `scheduler` for the lifetime of this object.
///
/// \par Cost  Entering and leaving end the chain of time stamps of the other workers once.
class worker_scope {
 public:
  /// If `enabled` is false, the thread runs unobserved, at the cost of a compare for each poll.
  /// `compensable`: the caller runs handlers until it is stopped or out of work, so that another
  /// thread may do that in its place while it is stuck in a handler.
  worker_scope(void* scheduler, path_arbiter& arbiter, bool enabled,
               bool compensable = false) noexcept;
  ~worker_scope();
  worker_scope(const worker_scope&) = delete;
  worker_scope& operator=(const worker_scope&) = delete;

  /// The number of turns that ran no handler or were added by broken strand batches, since
  /// construction.
  [[nodiscard]] std::size_t phantom_turns() const noexcept { return ts_.phantom_turns; }
  [[nodiscard]] std::size_t extra_turns() const noexcept { return ts_.extra_turns; }
  void reset_turns() noexcept {
    ts_.phantom_turns = ts_.extra_turns = 0;
    ts_.waits_for_another = false;
  }
  void polls() noexcept { ts_.polls = true; }
  [[nodiscard]] bool waits_for_another() const noexcept { return ts_.waits_for_another; }

 private:
  [[nodiscard]] bool come_back(void* scheduler, path_arbiter& arbiter, bool compensable) noexcept;
  [[nodiscard]] bool rest() noexcept;

  thread_state& ts_;
  poll_frame* const outer_poll_;  ///< the poll in which the run function is called, or null
  /// Whether there is no outer run function. Then the state outside of all run functions is
  /// restored at the end, and `outer_` is not used.
  const bool outermost_;
  union {
    run_state outer_;  ///< the state of the outer run function; unused if `outermost_`
  };
};

}  // namespace asio_pulse::hooks
