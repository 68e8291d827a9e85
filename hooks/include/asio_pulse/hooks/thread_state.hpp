// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/location.hpp>
#include <asio_pulse/hooks/site.hpp>
#include <asio_pulse/hooks/task_record.hpp>
#include <asio_pulse/timing/poll_clock.hpp>
#include <asio_pulse/timing/slice_extension.hpp>
#include <atomic>
#include <cstdint>

#if defined(__GNUC__) && defined(__linux__)
// One %fs-relative access, also from a shared library: the state is small enough for the static TLS
// block.
#define ASIO_PULSE_DETAIL_TLS_MODEL __attribute__((tls_model("initial-exec")))
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
/// What each thread carries along the poll path, and the interface that a context plugs into it.

namespace asio_pulse::hooks {

class path_observer;
class poll_frame;
class poll_recorder;
class tracked_operation;

/// The poll-path word of an observer: a generation and flags. A worker chains its time stamps (the
/// end of one poll is the start of the next, one TSC read in all) only while the word is the one
/// that it saw when it last stamped.
namespace path_state {
inline constexpr std::uint32_t several_workers =
    1;  ///< two or more threads poll: charge atomically, stamp twice
inline constexpr std::uint32_t poll_hooks = 2;  ///< user hooks want to see every poll
inline constexpr std::uint32_t wake_watchdog =
    4;  ///< the watchdog sleeps for good: the next poll wakes it (path_observer::woken())
inline constexpr std::uint32_t generation =
    8;  ///< one step; added whenever a worker enters or leaves
}  // namespace path_state

/// Per-thread state of the poll path. Zero cost to start: constant-initialised, trivially
/// destructible.
///
/// \par Thread safety  Only its own thread writes it, `stall` excepted. The atomic members and
/// `clock.last()` may be read by another: the watchdog, which asks whether the thread is in the
/// poll that it saw a while ago. That is so while `top` is not null and `clock.last()` is the same:
/// each poll ends with a stamp, from which the next one starts.
struct thread_state {
  /// The task that operations created now will belong to; null for none. Kept alive by the frame,
  /// scope or handle that set it.
  task_record* current = nullptr;
  /// Number of the source location in force, for operations created now, where an operation's word
  /// has it.
  std::uintptr_t where = 0;

  /// The task polled last on this thread at this depth (null: none), of which this thread holds one
  /// reference plus `spare` more. What its polls cost is added up here first and handed to the
  /// task's record before long: when another task is polled, when `pending` has reached
  /// `settle_at`, and when the thread leaves. `flush_at` is the same, or 0 while a recorder is to
  /// see each poll.
  task_record* account = nullptr;
  std::int64_t spare = 0;
  timing::ticks pending = 0;
  timing::ticks flush_at = 0;
  timing::ticks settle_at = 0;
  std::uint64_t pending_polls = 0;
  timing::ticks longest_pending = 0;

  /// The scheduler whose handlers this thread runs under observation; null while it runs none.
  void* owner = nullptr;
  /// The innermost poll, null between polls. Relaxed, pairs with the watchdog's loads: it publishes
  /// nothing, the frame is read by its own thread alone.
  std::atomic<poll_frame*> top{nullptr};
  /// What `current` is between polls.
  task_record* base = nullptr;
  /// The observer's word, and its value when time stamps were last chained.
  const std::atomic<std::uint32_t>* state = &no_state;
  std::uint32_t token = 0;
  /// Checkpoints left before the next one reads the clock (see should_yield.hpp).
  std::int32_t fuel = 0;
  timing::poll_clock clock;
  /// The word that moves when somebody wants this thread to let others go first, and what it was
  /// when that was last acted upon. Without a source of hints a word that never moves, so that
  /// asking costs the same. Relaxed: it publishes nothing. Its own thread sets both.
  const std::atomic<std::uint64_t>* hint = &no_hint;
  std::uint64_t hint_seen = 0;
  /// The operation that was started last, for an observer on another thread (relaxed: pairs with
  /// nothing, a hint).
  std::atomic<const site*> poll_site{nullptr};

  /// A scheduler known not to be observed (a plain io_context, or switched off), and the age of
  /// that knowledge.
  void* plain_owner = nullptr;
  std::uint32_t plain_epoch = 0;
  std::int32_t fuel_step = 1;
  /// Where nothing is measured a poll still makes its task current. In a run function of a context
  /// that is switched off: the account as an address, whose polls take the short way to that, or
  /// `label_none` before there is one. `label_closed` inside such a poll, and everywhere else.
  std::uintptr_t label = label_closed;
  static constexpr std::uintptr_t label_closed = ~std::uintptr_t{0};
  static constexpr std::uintptr_t label_none = ~std::uintptr_t{1};
  timing::ticks checked_at = 0;
  /// True while a run function of ours is on the stack (and not the base class's).
  bool wrapped = false;
  /// Charge by atomic addition: another thread may be charging the same task.
  bool shared = false;
  /// Critical sections entered in this poll. Relaxed, pairs with the watchdog's load.
  std::atomic<std::uint32_t> critical{0};
  /// Takes the place of "no task": accounted for, never held back.
  task_record* unnamed = nullptr;
  path_observer* observer = nullptr;
  /// Turns of the scheduler that ran no handler, and turns that a broken strand batch adds, since
  /// the innermost run function began.
  std::size_t phantom_turns = 0;
  std::size_t extra_turns = 0;
  /// Numbers of the source locations used last, by a few bits of the line.
  struct known_location {
    const char* file = nullptr;
    std::uint32_t line = 0;
    location_id id = 0;
  } locations[8] = {};

  /// No token equals it: the fast path is closed to a thread with no observer.
  static constinit const std::atomic<std::uint32_t> no_state;
  static constinit const std::atomic<std::uint64_t> no_hint;

  /// Pressure that acts upon budgets and checkpoints, 0 to 100; 0 unless hints come.
  std::uint32_t pressure = 0;
  /// Hints have come, and what they led to is to be looked at again.
  bool pressured = false;
  /// service_epoch when this thread last looked what there is for it.
  std::uint32_t service_epoch = 0;
  /// Its control block, null without one; what else belongs to it; and its CPU time as a scheduler
  /// publishes it, null where none does. Its own thread's.
  ::asio_pulse_scb* block = nullptr;
  ::asio_pulse::detail::hint_link* link = nullptr;
  const timing::published_cpu_time* published = nullptr;
  /// By which it asks the kernel not to be interrupted in a critical section; null where that is
  /// not to be had, or nobody wants hints.
  timing::slice_control* slice = nullptr;
  /// Who wants to see each poll; null: nobody. Its own thread sets it, between polls of its own or
  /// at the start of one.
  poll_recorder* recorder = nullptr;

  /// A fiber switch is under way: this thread's stack is nobody's. Read by a signal handler on this
  /// thread.
  bool switching = false;
  /// Locks held and scopes entered in this poll that forbid a fiber to yield.
  std::uint32_t no_yield = 0;

  // For the watchdog, off the fast path. Relaxed: each stands for itself, and what was read counts
  // only if the poll is still the same afterwards.

  /// Copies of `observer` and `account`, which are this thread's own.
  std::atomic<path_observer*> watched{nullptr};
  std::atomic<task_record*> watched_account{nullptr};
  /// The thread is in run() or its like and stays there, so that another may take over for it.
  std::atomic<bool> compensable{false};
  /// The watchdog knows of this thread. Its own alone.
  bool registered = false;
  /// When the outermost critical section of this poll was entered.
  std::atomic<timing::ticks> critical_since{0};
  /// The start of the poll that the watchdog has found stalled; 0 for none. Set by the watchdog,
  /// and taken back by whoever comes first: the end of the poll, or the watchdog, should it have
  /// been mistaken. Release when the poll takes it, pairs with the watchdog's acquire: `stall_end`
  /// says when it ended.
  std::atomic<timing::ticks> stall{0};
  std::atomic<timing::ticks> stall_end{0};
};

extern constinit thread_local thread_state this_thread_state ASIO_PULSE_DETAIL_TLS_MODEL;

inline thread_state& this_thread() noexcept { return this_thread_state; }

/// Grows whenever an observer comes or goes. Relaxed: a thread that polls a scheduler has
/// synchronised with whoever created it, and so sees its epoch.
inline constinit std::atomic<std::uint32_t> observer_epoch{1};

/// Grows whenever a source of hints, or somebody who wants to see polls, comes or goes; each worker
/// then looks at its next poll. Relaxed: what there is to find is guarded by a mutex.
inline constinit std::atomic<std::uint32_t> service_epoch{0};

/// A whole poll, of which the last lap may be a part.
struct poll_sum {
  timing::ticks total;    ///< what it cost
  timing::ticks started;  ///< when it started, in ticks of the timebase
  bool over_budget;       ///< its task has used up its budget
  bool part;              ///< the poll goes on, for another task
  bool stalled = false;   ///< the watchdog has seen it, and tells of its end
};

/// What a context plugs into the poll path. Called on the slow path only.
class path_observer {
 public:
  path_observer() = default;
  virtual ~path_observer() = default;
  path_observer(const path_observer&) = delete;
  path_observer& operator=(const path_observer&) = delete;

  /// The poll-path word; see path_state.
  std::atomic<std::uint32_t> state{0};

  /// A poll starts and poll hooks are installed.
  virtual void before_poll(const poll_frame& frame) noexcept = 0;
  /// A poll ended that the observer wanted to see: over budget, long, of a task under measures, or
  /// hooked.
  virtual void after_poll(const poll_frame& frame, task_record& t, const timing::lap& last,
                          const poll_sum& sum) noexcept = 0;
  /// The handler of an accept starts: returns the task of the new connection with one reference, or
  /// null for none.
  virtual task_record* accepted(task_record* listener) noexcept = 0;
  /// The task that accepted the connection whose task is `t`, or `t` itself where it was not born
  /// of an accept.
  virtual task_record* listener_of(task_record* t) noexcept = 0;
  /// Decides about an operation of a gated task: true if it was put back and must not run now.
  /// `operation` is Asio's scheduler operation, of which `op` is the base.
  virtual bool hold_back(thread_state& ts, tracked_operation& op, void* operation,
                         void* owner) noexcept = 0;
  /// The last reference is gone.
  virtual void destroy(task_record& t) noexcept = 0;
  /// The record to charge for handlers that belong to no task.
  virtual task_record& unnamed() noexcept = 0;
  /// A worker entered or left.
  virtual void attached(thread_state& ts) noexcept = 0;
  virtual void detached(thread_state& ts) noexcept = 0;
  /// A poll began and the flag path_state::wake_watchdog was set (it has been cleared), or one
  /// ended that the watchdog had found stalled.
  virtual void woken() noexcept {}
  /// A poll of `t` has ended on this thread at `now`, and a hint has come, or did lately.
  virtual void hinted(thread_state& /*ts*/, task_record& /*t*/, timing::ticks /*now*/) noexcept {}
  /// service_epoch has changed: this thread's source of hints may have, and its recorder.
  virtual void renew(thread_state& /*ts*/) noexcept {}
  /// The clock that workers of this observer measure with.
  virtual timing::clock_kind clock() const noexcept = 0;
};

/// Starts the thread's clock: what a scheduler publishes where it does, else its observer's.
void attach_clock(thread_state& ts) noexcept;

/// Makes the poll path of `scheduler` known to its observer, for threads that run it through a
/// base-class reference.
void add_observer(void* scheduler, path_observer& observer);
void remove_observer(void* scheduler) noexcept;

/// The calling thread polls `scheduler` for the lifetime of this object.
///
/// \par Cost  Entering or leaving ends the chain of time stamps of other workers once.
class worker_scope {
 public:
  /// `enabled` false: the thread is known to run unobserved, at the cost of a compare a poll.
  /// `compensable`: the caller goes on running handlers until it is stopped or out of work, so that
  /// another thread may do so in its place while a handler keeps it.
  worker_scope(void* scheduler, path_observer& observer, bool enabled,
               bool compensable = false) noexcept;
  ~worker_scope();
  worker_scope(const worker_scope&) = delete;
  worker_scope& operator=(const worker_scope&) = delete;

  /// Turns that ran no handler, and turns added by broken strand batches, since construction.
  [[nodiscard]] std::size_t phantom_turns() const noexcept { return ts_.phantom_turns; }
  [[nodiscard]] std::size_t extra_turns() const noexcept { return ts_.extra_turns; }
  void reset_turns() noexcept { ts_.phantom_turns = ts_.extra_turns = 0; }

 private:
  thread_state& ts_;
  struct saved {
    task_record* account;
    std::int64_t spare;
    void* owner;
    poll_frame* top;
    task_record* base;
    const std::atomic<std::uint32_t>* state;
    task_record* unnamed;
    path_observer* observer;
    const site* poll_site;
    void* plain_owner;
    std::uintptr_t label;
    std::size_t phantom_turns;
    std::size_t extra_turns;
    std::uint32_t plain_epoch;
    timing::ticks critical_since;
    poll_recorder* recorder;
    std::uint32_t critical;
    std::uint32_t no_yield;
    bool wrapped;
    bool shared;
    bool compensable;
  } saved_;
};

}  // namespace asio_pulse::hooks
