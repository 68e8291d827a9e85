// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/thread_state.hpp>
#include <cstdint>
#include <iterator>

/// \file
/// The poll path itself: what every operation carries, what happens when it is created, when it is
/// about to run, while it runs and when it ends. tracking.hpp wires this into Asio; nothing here
/// knows Asio.

namespace asio_pulse::hooks {

/// The owner of an operation that completes inside another one, without a scheduler (channels;
/// immediate completions).
inline char no_scheduler;

/// Base class of every operation: eight bytes, the task that the operation belongs to and where it
/// was created.
///
/// Layout of the word: bits 0–5 flags (a task is aligned to 64 bytes), 6–47 the task's address,
/// 48–63 the number of the source location. User space ends below 2^47 on x86-64 and 2^48 on
/// AArch64 unless a program asks for more.
///
/// \par Cost  Creation: three loads, a compare and a store while the worker has a reference to
/// spare.
class tracked_operation {
 public:
  static constexpr std::uintptr_t accepts = 1;  ///< completes with a new connection
  static constexpr std::uintptr_t held_once =
      2;                                         ///< has been put back once (always-preempt builds)
  static constexpr std::uintptr_t released = 4;  ///< was put back, and it is its turn now
  static constexpr std::uintptr_t resumes = 8;   ///< first of what is left of a broken strand batch
  static constexpr std::uintptr_t names = 16;    ///< a drain whose handlers belong to its own task
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
  /// Replaces the task; takes over the caller's reference to `t` and gives back the old one.
  void assign(task_record* t) noexcept;

 protected:
  ASIO_PULSE_DETAIL_INLINE tracked_operation() noexcept : word_(capture(this_thread())) {}
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
      if (t == ts.account && ts.spare > 0) [[likely]] {
        --ts.spare;
      } else {
        capture_slow(ts, *t);
      }
    }
    return reinterpret_cast<std::uintptr_t>(t) | ts.where;
  }
  ASIO_PULSE_DETAIL_NOINLINE static void capture_slow(thread_state& ts, task_record& t) noexcept;
  ASIO_PULSE_DETAIL_NOINLINE void drop() noexcept;

  std::uintptr_t word_;
};

/// One poll: lives on the stack of the operation's completion function, from before the handler is
/// moved out of the operation until after it is destroyed. Restores everything that it changed, on
/// an exception too.
///
/// The thread's state is looked up anew at the end, not kept: that is one register and one
/// instruction, and a handler cannot make the compiler doubt it.
class poll_frame {
 public:
  enum class mode : std::uint8_t {
    outermost,   ///< the fast path: nothing but its own state to undo
    drain,       ///< a strand's or a queue's drain: its time is its handlers'
    unobserved,  ///< nothing to do
    drained,     ///< a handler in a drain, where nothing but its own state is to be undone
    measured,    ///< time is charged, with something more to undo
    labelled,    ///< only the current task is set: not on a worker of ours, or completed inside
                 ///< another handler
    destroyed,   ///< the operation is being destroyed without being run
    named,       ///< as labelled, of the thread's account, in a context that is switched off
    nobodys      ///< the same, of no task
  };

  ASIO_PULSE_DETAIL_INLINE poll_frame(void* owner, tracked_operation& op,
                                      const site& what) noexcept {
    thread_state& ts = this_thread();
    const std::uintptr_t word = op.take();
    word_ = word;
    const std::uintptr_t t = word << 16 >> 16;  // with flags, should there be any
    if (owner == ts.owner && ts.top.load(std::memory_order_relaxed) == nullptr &&
        (what.drains ? t == 0 : t == reinterpret_cast<std::uintptr_t>(ts.account)) &&
        ts.state->load(std::memory_order_relaxed) == ts.token && ts.clock.undisturbed())
        [[likely]] {
      mode_ = what.drains ? mode::drain : mode::outermost;
      task_ = reinterpret_cast<task_record*>(t);
      accrued_ = 0;
      inner_polls_ = 0;
      if (!what.drains) ++ts.spare;  // the operation's reference; of no task, it is never looked at
      ts.current = task_;
      ts.top.store(this, std::memory_order_relaxed);
      ts.fuel = 0;
      ts.poll_site.store(&what, std::memory_order_relaxed);
    } else if (owner == ts.plain_owner && t == 0 && ts.current == nullptr &&
               ts.plain_epoch == observer_epoch.load(std::memory_order_relaxed)) {
      mode_ = mode::unobserved;
    } else if (!what.drains && t == ts.label && owner != nullptr) {
      ++ts.spare;  // the operation's reference
      name(ts, reinterpret_cast<task_record*>(t));
    } else {
      begin_slow(owner, what);
    }
  }

  ASIO_PULSE_DETAIL_INLINE ~poll_frame() {
    thread_state& ts = this_thread();
    if (mode_ == mode::outermost) [[likely]] {
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
      ts.current = ts.base;
      ts.top.store(nullptr, std::memory_order_relaxed);
    } else if (mode_ == mode::named) {
      ts.current = saved_current_;
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
  /// Operations that completed inside this one, as those of a strand's batch do.
  [[nodiscard]] std::uint32_t inner_polls() const noexcept { return inner_polls_; }
  /// Ticks that this poll has cost before its last segment.
  [[nodiscard]] timing::ticks accrued() const noexcept { return accrued_; }
  /// When the poll started, in ticks of the timebase, if its last segment started at `segment`.
  [[nodiscard]] timing::ticks started(timing::ticks segment) const noexcept {
    return accrued_ == 0 ? segment : started_;
  }

  /// Charges what the poll has cost until now and starts a new segment: somebody else's work begins
  /// on this thread.
  void split() noexcept;
  /// What follows in this poll belongs to `t`; the poll takes a reference of its own.
  void reassign(task_record* t) noexcept;
  /// A critical section begins in this poll, at `now`; what is left of it ends with the poll. To be
  /// called before it is counted in thread_state::critical.
  void critical_entered(timing::ticks now) noexcept;

 private:
  /// Nothing but to make `t`, which is the account, current. Until the end the account must stay.
  ASIO_PULSE_DETAIL_INLINE void name(thread_state& ts, task_record* t) noexcept {
    mode_ = mode::named;
    task_ = t;
    saved_current_ = ts.current;
    ts.current = t;
    ts.label = thread_state::label_closed;
  }
  ASIO_PULSE_DETAIL_NOINLINE void begin_slow(void* owner, const site& what) noexcept;
  ASIO_PULSE_DETAIL_NOINLINE void end_slow() noexcept;
  ASIO_PULSE_DETAIL_NOINLINE void end_noticed(bool known, timing::ticks cost) noexcept;
  ASIO_PULSE_DETAIL_COLD void end_looked_at(bool known, timing::ticks cost) noexcept;
  ASIO_PULSE_DETAIL_COLD static bool stall_ended(thread_state& ts,
                                                 const timing::lap& last) noexcept;
  void end_poll(thread_state& ts, const timing::lap& last, bool look, bool part) noexcept;
  void record(thread_state& ts, timing::ticks start, timing::ticks cost) const noexcept;
  void record_batch(thread_state& ts, timing::ticks cost) const noexcept;
  void enter(thread_state& ts, const site& what) noexcept;
  void start(thread_state& ts, const site& what, task_record* current) noexcept;
  void open_account(thread_state& ts) noexcept;
  void close_account(thread_state& ts) noexcept;
  void clear_extras(thread_state& ts) noexcept;
  void slow_down(thread_state& ts) noexcept;

  std::uintptr_t word_;
  task_record* task_;
  timing::ticks accrued_;
  std::uint32_t inner_polls_;
  mode mode_;
  // Below: set unless the mode is outermost, drain or unobserved (named, nobodys: saved_current_
  // only).
  bool hooked_;         ///< poll hooks saw it start
  bool saved_account_;  ///< the thread's account belonged to the poll outside
  bool outer_shared_;
  timing::ticks
      judged_;  ///< of what has accrued: charged to a task that the poll no longer runs for
  timing::ticks started_;  ///< set with the first segment, where there are several
  task_record* saved_current_;
  poll_frame* outer_;
  const site* outer_site_;
  task_record* assigned_;  ///< given by reassign(): one reference
  task_record* born_;      ///< the task of the connection that this poll accepted: one reference
  task_record* held_;      ///< a reference of this frame's own, where no account holds the task
  task_record* outer_account_;
  std::int64_t outer_spare_;
};

/// Makes a location the one that operations created in its scope carry.
class location_scope {
 public:
  location_scope(const char* file, std::uint32_t line, const char* function) noexcept
      : ts_(this_thread()), saved_(ts_.where) {
    if (file == nullptr) return;
    auto& known = ts_.locations[line % std::size(ts_.locations)];
    if (known.file != file || known.line != line)
      known = {file, line, intern({file, line, function})};
    ts_.where = std::uintptr_t{known.id} << 48;
  }
  ~location_scope() { ts_.where = saved_; }
  location_scope(const location_scope&) = delete;
  location_scope& operator=(const location_scope&) = delete;

 private:
  thread_state& ts_;
  std::uintptr_t saved_;
};

/// From now on `recorder` sees the thread's polls; null: nobody does. To be called by that thread.
inline void set_recorder(thread_state& ts, poll_recorder* recorder) noexcept {
  ts.recorder = recorder;
  ts.flush_at = recorder == nullptr ? ts.settle_at : 0;
}

/// The reactor has returned events on this thread: what went before is nobody's poll.
inline void reactor_returned() noexcept {
  thread_state& ts = this_thread();
  if (ts.observer != nullptr) ts.clock.waited();
}

/// The reactor made its own record of a descriptor. It is an operation, but nobody's work: it is
/// pooled, and would keep the task alive that happened to open the descriptor.
void reactor_registered(std::uintptr_t descriptor_data) noexcept;

/// An operation that accepts connections was created.
void accept_created(tracked_operation& op) noexcept;

/// Asks whether a gated task's operation must be put back; see path_observer::hold_back().
[[nodiscard]] bool gate(void* owner, void* operation, tracked_operation& op) noexcept;

}  // namespace asio_pulse::hooks
