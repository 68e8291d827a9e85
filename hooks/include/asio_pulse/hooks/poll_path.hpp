// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/thread_state.hpp>

#include <cstdint>
#include <iterator>
#include <utility>

/// \file
/// The poll path: what every operation carries, and what happens when it is created, before it
/// runs, while it runs and when it ends. tracking.hpp connects this with Asio; nothing here knows
/// Asio.

namespace asio_pulse::hooks {

/// Stands for the owner of an operation that completes inside another one, without a scheduler
/// (channels; immediate completions).
inline char no_scheduler;

/// The base class of every operation: eight bytes, which hold the task that the operation belongs
/// to and where it was created.
///
/// Asio derives two kinds of classes from it: operations in which a handler waits, and internal
/// objects that pass through the same queues (the state of a descriptor, the queues of io_uring, a
/// legacy strand, the reactor's entry). Asio announces only the first kind
/// (BOOST_ASIO_HANDLER_CREATION). An object that was never announced belongs to no task: it holds
/// no reference, and is never parked, swept or charged, with any back end and any version of Asio.
///
/// Layout of the word: bits 0–5 flags (a task is aligned to 64 bytes), 6–47 the task's address,
/// 48–63 the number of the source location. User space ends below 2^47 on x86-64 and 2^48 on
/// AArch64 unless a program asks for more.
///
/// \par Cost  Creation: three loads, a compare and two stores while the worker has a cached
///            reference.
class tracked_operation {
 public:
  static constexpr std::uintptr_t accepts = 1;  ///< completes with a new connection
  static constexpr std::uintptr_t held_once =
      2;                                         ///< has been put back once (always-preempt builds)
  static constexpr std::uintptr_t released = 4;  ///< was put back, and is released now
  static constexpr std::uintptr_t resumes = 8;   ///< the first of the rest of a broken strand batch
  static constexpr std::uintptr_t names = 16;    ///< of a task's executor: if it drains a strand,
                                                 ///< the strand's handlers belong to its task
  static constexpr std::uintptr_t inside =
      32;  ///< it completes inside a poll that was begun for it
  static constexpr std::uintptr_t flag_bits = 63;
  static constexpr std::uintptr_t task_bits = ((std::uintptr_t{1} << 48) - 1) & ~flag_bits;

  [[nodiscard]] static task_record* task_in(std::uintptr_t word) noexcept {
    return reinterpret_cast<task_record*>(word & task_bits);
  }
  [[nodiscard]] std::uintptr_t word() const noexcept { return word_; }
  [[nodiscard]] task_record* task() const noexcept { return task_in(word_); }
  void set(std::uintptr_t flag) noexcept { word_ |= flag; }
  [[nodiscard]] bool has(std::uintptr_t flag) const noexcept { return (word_ & flag) != 0; }
  /// Hands the operation's reference to the caller.
  [[nodiscard]] std::uintptr_t take() noexcept {
    const std::uintptr_t w = word_;
    word_ = 0;
    return w;
  }
  /// Called once for a new operation in which a handler waits: it belongs to the current task from
  /// now on.
  ASIO_PULSE_DETAIL_INLINE void announce() noexcept { word_ = capture(this_thread()); }
  /// Replaces the task. Takes over the caller's reference to `t`, and releases the old one.
  void assign(task_record* t) noexcept;

 protected:
  tracked_operation() noexcept = default;
  tracked_operation(const tracked_operation& other) noexcept : word_(other.word_) {
    if (task_record* t = task()) acquire(*t);
  }
  tracked_operation& operator=(const tracked_operation&) = delete;
  ASIO_PULSE_DETAIL_INLINE ~tracked_operation() {
    if (word_ & task_bits) drop();
  }

 private:
  ASIO_PULSE_DETAIL_INLINE static std::uintptr_t capture(thread_state& ts) noexcept {
    task_record* t = ts.current;
    if (t != nullptr) {
      if (t == ts.account && ts.cached_refs > 0) [[likely]] {
        --ts.cached_refs;
      } else {
        capture_slow(ts, *t);
      }
    }
    return reinterpret_cast<std::uintptr_t>(t) | ts.where;
  }
  ASIO_PULSE_DETAIL_NOINLINE static void capture_slow(thread_state& ts, task_record& t) noexcept;
  ASIO_PULSE_DETAIL_NOINLINE void drop() noexcept;

  std::uintptr_t word_ = 0;
};

/// Identifies a poll, also after its end: by the address of its frame, and by its start, since the next
/// poll can have the same address.
struct poll_mark {
  const poll_frame* frame = nullptr;  ///< null outside polls
  timing::ticks started = 0;

  /// The innermost poll on the thread.
  [[nodiscard]] static poll_mark of(const thread_state& ts) noexcept;
  /// Whether this is a poll, and is the innermost one on the thread.
  [[nodiscard]] bool is_on(const thread_state& ts) const noexcept;
};

/// The task that was in force before a scope put another one in its place. If it was that of the
/// poll, and the poll has got another task inside the scope (poll_frame::reassign()), the last
/// reference to it may have been released: then the poll's present task takes its place.
///
/// \par Cost  Four loads and a compare; two loads and a branch at the end.
class label_before {
 public:
  label_before() noexcept = default;
  label_before(thread_state& ts, task_record* t) noexcept;
  void restore(thread_state& ts) const noexcept;

 private:
  task_record* task_ = nullptr;
  poll_mark poll_;  ///< whose task it was; none if it was not that of the poll
};

/// A poll. It lives on the stack of the operation's completion function, from before the handler is
/// moved out of the operation until after the handler is destroyed. Its destructor restores
/// everything that it changed, also after an exception.
///
/// The destructor looks up the thread's state again and does not keep its address: that takes one
/// instruction and saves a register during the handler.
class poll_frame {
 public:
  enum class mode : std::uint8_t {
    outermost,   ///< the fast path: only its own state has to be undone
    drain,       ///< the drain of a strand or a queue: its time belongs to its handlers
    unobserved,  ///< nothing to do
    drained,     ///< a handler in a drain, where only its own state has to be undone
    measured,    ///< time is charged, and more has to be undone
    labelled,    ///< only the current task is set: not on a worker of ours, or completed inside
                 ///< another handler
    destroyed,   ///< the operation is being destroyed without being run
    named,       ///< as labelled, with the account's task, in a context that is switched off
    taskless     ///< as named, without a task
  };

  ASIO_PULSE_DETAIL_INLINE poll_frame(void* owner, tracked_operation& op,
                                      const site& what) noexcept {
    thread_state& ts = this_thread();
    const std::uintptr_t word = op.take();
    word_ = word;
    const std::uintptr_t t = word << 16 >> 16;  // includes the flags, if any are set
    if (owner == ts.owner && ts.top.load(std::memory_order_relaxed) == nullptr &&
        (what.drains ? t == 0 : t == reinterpret_cast<std::uintptr_t>(ts.account)) &&
        ts.state->load(std::memory_order_relaxed) == ts.token && ts.clock.undisturbed())
        [[likely]] {
      mode_ = what.drains ? mode::drain : mode::outermost;
      task_ = reinterpret_cast<task_record*>(t);
      accrued_ = 0;
      inner_polls_ = 0;
      if (!what.drains) ++ts.cached_refs;  // the operation's reference; unused if there is no task
      ts.current = task_;
      ts.top.store(this, std::memory_order_relaxed);
      ts.fuel = 0;
      ts.poll_site.store(&what, std::memory_order_relaxed);
    } else if (owner == ts.plain_owner && t == 0 && ts.current == nullptr &&
               ts.plain_epoch == arbiter_epoch.load(std::memory_order_relaxed)) {
      mode_ = mode::unobserved;
    } else if (!what.drains && t == ts.label && owner != nullptr) {
      ++ts.cached_refs;  // the operation's reference
      name(ts, reinterpret_cast<task_record*>(t));
    } else {
      begin_slow(owner, what);
    }
  }

  ASIO_PULSE_DETAIL_INLINE ~poll_frame() {
    thread_state& ts = this_thread();
    if (mode_ == mode::outermost) [[likely]] {
      ASIO_PULSE_ASSERT(ts.top.load(std::memory_order_relaxed) == this);
      timing::ticks cost;
      const bool known = ts.clock.try_take(cost);
      const timing::ticks pending = ts.pending + cost;
      if (!known || pending >= ts.flush_at) [[unlikely]] {
        end_noticed(known, cost);
      } else {
        ts.pending = pending;
        ++ts.pending_polls;
      }
      ts.current = ts.base;
      ts.top.store(nullptr, std::memory_order_relaxed);
    } else if (mode_ == mode::drain) {
      ASIO_PULSE_ASSERT(ts.top.load(std::memory_order_relaxed) == this);
      ts.current = ts.base;
      ts.top.store(nullptr, std::memory_order_relaxed);
    } else if (mode_ == mode::named) {
      ts.current = renamed().before;
      ts.label = reinterpret_cast<std::uintptr_t>(task_);
    } else if (mode_ != mode::unobserved) {
      end_slow();
    }
  }

  poll_frame(const poll_frame&) = delete;
  poll_frame& operator=(const poll_frame&) = delete;

  /// The task that the poll is charged to; null for none.
  [[nodiscard]] task_record* task() const noexcept { return task_; }
  [[nodiscard]] location where() const noexcept {
    return location_of(static_cast<location_id>(word_ >> 48));
  }
  /// The operation's word, as poll_recorder::key_of() takes it.
  [[nodiscard]] std::uintptr_t word() const noexcept { return word_; }
  /// The number of operations that completed inside this one, such as those of a strand's batch.
  [[nodiscard]] std::uint32_t inner_polls() const noexcept { return inner_polls_; }
  /// Whether this poll, whose type is not that of a drain, has run a handler of `strand`.
  [[nodiscard]] bool has_run(const void* strand) const noexcept {
    return inner_polls_ != 0 && inner_owner_ == strand;
  }
  /// Whether the poll runs in a task's executor.
  [[nodiscard]] bool names() const noexcept { return (word_ & tracked_operation::names) != 0; }
  /// What this poll has cost before its last segment, in ticks.
  [[nodiscard]] timing::ticks accrued() const noexcept { return accrued_; }
  /// When the poll started, in ticks of the timebase, if its last segment started at `segment`.
  [[nodiscard]] timing::ticks started(timing::ticks segment) const noexcept {
    return accrued_ == 0 ? segment : started_;
  }

  /// The poll has accepted a connection on this socket; no_descriptor if the socket is not known.
  void accepted_on(std::intptr_t socket) noexcept;
  [[nodiscard]] bool put_back_before() const noexcept {
    return (word_ & (tracked_operation::released | tracked_operation::held_once)) != 0;
  }

  /// Charges what the poll has cost until now, and starts a new segment, because work of another
  /// task begins on this thread.
  void split() noexcept;
  /// Makes the rest of this poll work of `t`. The poll takes a reference of its own.
  void reassign(task_record* t) noexcept;
  /// Whether reassign() has given it a task.
  [[nodiscard]] bool reassigned() const noexcept {
    return mode_ == mode::measured && measured().assigned != nullptr;
  }
  /// A critical section begins in this poll, at `now`. If it is not left before, it ends with the
  /// poll. Call this before the section is counted in thread_state::critical.
  void critical_entered(timing::ticks now) noexcept;

 private:
  /// Only makes `t`, which is the account, the current task. The account must not change until the
  /// poll ends.
  ASIO_PULSE_DETAIL_INLINE void name(thread_state& ts, task_record* t) noexcept {
    mode_ = mode::named;
    task_ = t;
    renamed().before = ts.current;
    ts.current = t;
    ts.label = thread_state::label_closed;
  }
  // What a mode needs at the end of the poll, in addition to what all modes have. Only the one of
  // the current mode exists, and functions take the one that they use as a parameter.

  /// named, taskless.
  struct renaming {
    task_record* before;  ///< the current task before
  };
  /// drained: a poll inside another one, whose account it continues to use.
  struct nesting {
    poll_frame* outer;
    const site* outer_site;
  };
  /// labelled, destroyed.
  struct labelling {
    label_before before;
    task_record* held;  ///< a reference that the frame owns; or null
  };
  struct measuring {
    task_record* before;  ///< the current task before
    poll_frame* outer;    ///< null for the outermost poll
    const site* outer_site;
    task_record* held;      ///< a reference that the frame owns if no account holds the task
    task_record* assigned;  ///< set by reassign(); one reference
    task_record* born;      ///< the task of the connection that this poll accepted; one reference
    task_record* outer_account;  ///< this and the next are valid if `account_saved`
    std::int64_t outer_cached_refs;
    timing::ticks judged;  ///< the part of the cost that was charged to tasks of earlier segments
    bool hooked;           ///< before_poll hooks were called for it
    bool account_saved;    ///< the thread's account belonged to the outer poll
    std::uint8_t outer_charging;
  };

  [[nodiscard]] renaming& renamed() noexcept {
    ASIO_PULSE_ASSERT(mode_ == mode::named || mode_ == mode::taskless);
    return more_.renamed;
  }
  [[nodiscard]] nesting& nested() noexcept {
    ASIO_PULSE_ASSERT(mode_ == mode::drained);
    return more_.nested;
  }
  [[nodiscard]] const nesting& nested() const noexcept {
    ASIO_PULSE_ASSERT(mode_ == mode::drained);
    return more_.nested;
  }
  [[nodiscard]] labelling& labelled() noexcept {
    ASIO_PULSE_ASSERT(mode_ == mode::labelled || mode_ == mode::destroyed);
    return more_.labelled;
  }
  [[nodiscard]] measuring& measured() noexcept {
    ASIO_PULSE_ASSERT(mode_ == mode::measured);
    return more_.measured;
  }
  [[nodiscard]] const measuring& measured() const noexcept {
    ASIO_PULSE_ASSERT(mode_ == mode::measured);
    return more_.measured;
  }

  /// Whether the poll's time is measured; such a poll was thread_state::top.
  [[nodiscard]] bool is_measured() const noexcept {
    return mode_ == mode::outermost || mode_ == mode::drain || mode_ == mode::drained ||
           mode_ == mode::measured;
  }
  /// The poll that this one runs in; null for the outermost.
  [[nodiscard]] poll_frame* outer() const noexcept {
    ASIO_PULSE_ASSERT(is_measured());
    return mode_ == mode::drained    ? nested().outer
           : mode_ == mode::measured ? measured().outer
                                     : nullptr;
  }

  // poll_frame_begin.cpp
  ASIO_PULSE_DETAIL_NOINLINE void begin_slow(void* owner, const site& what) noexcept;
  void begin_measured(thread_state& ts, void* owner, const site& what, poll_frame* outer,
                      const site* outer_site) noexcept;
  void start(thread_state& ts, const site& what, task_record* current) noexcept;
  void open_account(thread_state& ts, measuring& m) noexcept;
  [[nodiscard]] measuring& measure(thread_state& ts, task_record* before, poll_frame* outer,
                                   const site* outer_site) noexcept;
  void slow_down(thread_state& ts) noexcept;

  // poll_frame_end.cpp
  ASIO_PULSE_DETAIL_NOINLINE void end_slow() noexcept;
  ASIO_PULSE_DETAIL_NOINLINE void end_noticed(bool known, timing::ticks cost) noexcept;
  ASIO_PULSE_DETAIL_COLD void end_looked_at(bool known, timing::ticks cost) noexcept;
  void end_drained(thread_state& ts, const nesting& n) noexcept;
  void end_measured(thread_state& ts, measuring& m) noexcept;
  void end_poll(thread_state& ts, const timing::lap& last, bool look, bool part) noexcept;
  void close_account(thread_state& ts, measuring& m) noexcept;
  ASIO_PULSE_DETAIL_COLD static bool stall_ended(thread_state& ts,
                                                 const timing::lap& last) noexcept;
  [[nodiscard]] timing::ticks judged() const noexcept;
  void record(thread_state& ts, timing::ticks start, timing::ticks cost) const noexcept;
  void record_batch(thread_state& ts, timing::ticks cost) const noexcept;

  std::uintptr_t word_;
  task_record* task_;
  timing::ticks accrued_;
  std::uint32_t inner_polls_;
  mode mode_;
  timing::ticks started_;  ///< set when a second segment begins
  void* inner_owner_;  ///< owner of the last operation that completed inside; set by the first one
  union more {
    more() noexcept {}  // no member is active yet
    renaming renamed;
    nesting nested;
    labelling labelled;
    measuring measured;
  } more_;
};

inline poll_mark poll_mark::of(const thread_state& ts) noexcept {
  const poll_frame* const top = ts.top.load(std::memory_order_relaxed);
  if (top == nullptr) return {};
  return {.frame = top, .started = top->started(ts.clock.last())};
}

inline bool poll_mark::is_on(const thread_state& ts) const noexcept {
  // The address is compared first, because the frame may no longer exist, or be another thread's.
  return frame != nullptr && frame == ts.top.load(std::memory_order_relaxed) &&
         started == frame->started(ts.clock.last());
}

inline label_before::label_before(thread_state& ts, task_record* t) noexcept
    : task_(std::exchange(ts.current, t)) {
  const poll_frame* const top = ts.top.load(std::memory_order_relaxed);
  if (top != nullptr && task_ != nullptr && top->task() == task_) poll_ = poll_mark::of(ts);
}

inline void label_before::restore(thread_state& ts) const noexcept {
  const bool left = poll_.is_on(ts) && poll_.frame->reassigned();
  ts.current = left ? poll_.frame->task() : task_;
}

/// Makes a location that of the operations created in its scope. Asio starts operations of the
/// program's streams in such a scope, and these may suspend the handler: its end looks up the thread
/// again.
class location_scope {
 public:
  location_scope(const char* file, std::uint32_t line, const char* function) noexcept {
    thread_state& ts = this_thread();
    saved_ = ts.where;
    if (file == nullptr) return;
    auto& known = ts.locations[line % std::size(ts.locations)];
    if (known.file != file || known.line != line)
      known = {file, line, intern({file, line, function})};
    ts.where = std::uintptr_t{known.id} << 48;
  }
  ~location_scope() { this_thread_by_now().where = saved_; }
  location_scope(const location_scope&) = delete;
  location_scope& operator=(const location_scope&) = delete;

 private:
  std::uintptr_t saved_;
};

/// For the time in which a handler is suspended: takes the location of its new operations off the
/// thread, whose other handlers have their own, and puts it on the thread where the handler goes on.
class location_taken_along {
 public:
  location_taken_along() noexcept : where_(std::exchange(this_thread_by_now().where, 0)) {}
  ~location_taken_along() { this_thread_by_now().where = where_; }
  location_taken_along(const location_taken_along&) = delete;
  location_taken_along& operator=(const location_taken_along&) = delete;

 private:
  std::uintptr_t where_;
};

/// Sets the recorder of the thread's polls, or null for none. Called by that thread only.
inline void set_recorder(thread_state& ts, poll_recorder* recorder) noexcept {
  ts.recorder = recorder;
  ts.flush_at = recorder == nullptr ? ts.settle_at : 0;
}

/// Charges the sum that this thread has added up for the task that it polled last.
void charge_pending() noexcept;

/// The reactor has returned events on this thread. The time before belongs to no poll.
inline void reactor_returned() noexcept {
  thread_state& ts = this_thread();
  if (ts.arbiter != nullptr) ts.clock.waited();
}

/// An operation that accepts connections was created.
void accept_created(tracked_operation& op) noexcept;

/// The task for an outgoing connection on `scheduler` that work of `t` opens (null: work of no
/// task), with one reference; or null if it gets none. See path_arbiter::connecting().
[[nodiscard]] task_record* connecting(void* scheduler, task_record* t) noexcept;

/// What becomes of an operation whose turn it is.
enum class gate_verdict : std::uint8_t {
  runs,
  held,     ///< it was put back; see path_arbiter::hold_back()
  on_fiber  ///< path_arbiter::run_on_fiber() runs it
};
/// Asked for the operations of a gated task, and for all if thread_state::gates_all.
[[nodiscard]] gate_verdict gate(void* owner, void* operation, tracked_operation& op, completes how,
                                const site& what) noexcept;

}  // namespace asio_pulse::hooks
