// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process/process_wide.hpp"
#include "reports/stalled_poll.hpp"
#include "stack_capture.hpp"
#include "stall_watch.hpp"
#include "symbolizer.hpp"
#include "threads/thread_usage.hpp"
#include "watchdog.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/scoped_lock.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

/// \file
/// The watchdog itself. Private to watchdog.cpp (threads, contexts, sleep, fork), watchdog_look.cpp
/// (what it sees) and watchdog_act.cpp (what it does).

namespace asio_pulse::detail {

/// A reading of a thread's usage, with its time.
struct usage_sample {
  thread_usage usage{};
  timing::ticks at = 0;
};

/// The evidence of why a worker's poll has not ended.
struct poll_evidence {
  usage_sample latest;          ///< the last sample
  usage_sample before;          ///< the last sample before the poll was seen
  usage_sample first;           ///< the sample up to which `head` counts
  usage_sample since;           ///< the sample at the last event, for judging the next cause
  timing::ticks head = 0;       ///< excused time up to `first`
  timing::ticks overslept = 0;  ///< by how much the watchdog was late since `first`
  timing::ticks doubted = 0;    ///< start of a poll whose cause has to be looked for again
  int doubts = 0;               ///< how many times it was looked for
  timing::ticks told = 0;       ///< the poll's own time at the last event
  timing::ticks worked = 0;     ///< the CPU time in its own time since then
};

/// A stall that has begun and not ended.
struct open_stall {
  context_core* core = nullptr;  ///< holds a reference; null if there is no stall
  stalled_poll what;             ///< what.task holds a reference, or is null
  timing::ticks start = 0;
  timing::ticks excused = 0;  ///< excused time at the last look
  timing::ticks culpable = 0;
  bool shown = false;     ///< a report was sent
  bool to_climb = false;  ///< the task could not be promoted yet
  bool compensable = false;
  kernel_scheduling demoted{};
};

/// A thread that runs handlers.
struct watched_worker {
  /// Valid while it is not null. Null if the thread has ended, with its stall, at `end`.
  hooks::thread_state* state = nullptr;
  timing::ticks end = 0;
  pid_t number = 0;
  std::thread::id id;
  std::uint64_t serial = 0;  ///< unique; addresses and thread ids are reused
  thread_probe probe;
  bool kept = false;         ///< a file of the thread may be open
  bool small_stack = false;  ///< its stack may have no room for a signal handler
  stall_watch watch;
  poll_evidence evidence;
  open_stall stall;
  timing::ticks seen = 0;  ///< clock.last() at the last look
  bool at_rest = false;    ///< it cannot begin a poll without seeing the flag
  /// The watchdog uses it without the mutex, so its thread waits before it ends.
  bool pinned = false;
};

/// A context whose workers are watched.
struct watched_context {
  context_core* core = nullptr;  ///< valid while this is in the registry
  stall_watch::limits limits;
  int signal = 0;  ///< negative if none is wanted; 0 if none can be used
};

/// One thread that looks at all workers of all contexts, and sleeps while they are idle.
///
/// It does not look at fixed intervals but when the first poll could reach its threshold. So it
/// looks at a busy server once in each threshold, and finds a stall when it becomes one. When
/// several looks in a row have found all workers idle, it sets path_state::wake_watchdog in the
/// word that each poll compares anyway, looks again, and sleeps until a poll finds the flag.
///
/// Lock order: `section_`, `mutex_`, a core's mutex. The watchdog's thread holds `section_` except
/// while it sleeps and while it runs user code, so that a fork waits for it. Workers take only
/// `mutex_`.
class watchdog {
 public:
  static constexpr fork_handler::order fork_order = fork_handler::order::watchdog;

  static watchdog& get() noexcept;

  // See watchdog.hpp. add() may throw std::bad_alloc.
  void add(hooks::thread_state& ts);
  void remove(hooks::thread_state& ts) noexcept;
  void add(context_core& core, const options& o);
  void remove(context_core& core) noexcept;
  void wake() noexcept;
  /// The thread's function.
  void run() noexcept;
  /// See user_code_scope. Returns false if the process is ending.
  [[nodiscard]] bool begin_user_code() noexcept;
  void end_user_code() noexcept;
  /// Whether this thread may call code of the program. The watchdog's thread asks in a
  /// user_code_scope.
  [[nodiscard]] bool may_call_program() const noexcept;
  /// exit() has been called. From now on no user code is started on the watchdog's thread. Waits
  /// for user code that is running there, but at most for a second.
  void process_ends() noexcept;

 private:
  friend watchdog& process_wide<watchdog>() noexcept;

  /// What a look has found about a worker.
  struct event {
    std::uint64_t serial = 0;
    context_core* core = nullptr;  ///< has to be looked up again before it is used
    stall_watch::outcome outcome;
    timing::ticks now = 0;
    timing::ticks start = 0;
    timing::ticks stayed = 0;  ///< time in the critical section
    stall_cause cause = stall_cause::unknown;
    int fault = 0;                      ///< as in thread_usage
    std::uint64_t blocked_signals = 0;  ///< as in thread_usage
    int filters = 0;                    ///< as in thread_usage
    hooks::task_record* account = nullptr;
    const hooks::site* site = nullptr;
    bool critical = false;
    bool compensable = false;
  };
  struct verdict {
    bool for_good;     ///< sleep until notify() is called
    timing::ticks at;  ///< otherwise the time of the next look
  };
  class at_work;

  // watchdog.cpp
  void start(const scoped_lock& lock) noexcept;
  void notify() noexcept;
  void wait(std::uint32_t seen, std::chrono::nanoseconds timeout) noexcept;
  void move_away(timing::ticks now) noexcept;
  void arm(context_core& core) noexcept;
  void arm_all(const scoped_lock& lock, bool on) noexcept;
  void remember_this_thread() noexcept;
  void hear_of_exit() noexcept;
  void before_fork() noexcept;
  void after_fork(bool child) noexcept;
  [[nodiscard]] bool on_own_thread() const noexcept;
  [[nodiscard]] watched_context* find(const scoped_lock& lock,
                                      const hooks::path_arbiter* arbiter) noexcept;
  [[nodiscard]] watched_worker* find(const scoped_lock& lock, std::uint64_t serial) noexcept;
  static void drop(open_stall& s) noexcept;

  // watchdog_look.cpp
  verdict look(timing::ticks now, timing::ticks overslept, bool rung) noexcept;
  struct impression {
    bool active = false;      ///< a worker is in a poll, or was since the last look
    bool suspicious = false;  ///< a worker is in a poll that is a stall, or may soon be one
  };
  [[nodiscard]] timing::ticks look_at(const scoped_lock& lock, watched_worker& w, timing::ticks now,
                                      timing::ticks overslept, impression& seen) noexcept;

  // watchdog_act.cpp
  void act(const event& e) noexcept;
  /// What was found out about a stuck poll, without any lock.
  struct examination {
    std::array<char, 64> call_text{};
    std::string_view call{};  ///< the system call that it is blocked in; refers to call_text
    stack_capture::result shot{};
    bool read = false;  ///< its stack was read from outside
    no_stack why_no_stack = no_stack::none;
    bool over = false;           ///< it has ended meanwhile, and there is nothing to report
    task_state* task = nullptr;  ///< the task of a new stall; holds a reference
    kernel_scheduling demoted{};
    [[nodiscard]] bool taken() const noexcept {
      return shot.how == stack_capture::result::status::taken;
    }
    examination() = default;
    examination(const examination&) = delete;  // because `call` refers to a member
    examination& operator=(const examination&) = delete;
  };
  void begin_or_repeat(const event& e) noexcept;
  [[nodiscard]] watched_worker* stalled_worker(const scoped_lock& lock, const event& e) noexcept;
  void examine(const event& e, watched_worker& w, int signal, examination& to) noexcept;
  void take_stack(const event& e, watched_worker& w, int signal, examination& to) noexcept;
  const open_stall& note(const scoped_lock& lock, const event& e, watched_worker& w,
                         const examination& seen) noexcept;
  void announce(context_core& core, const stalled_poll& what, std::size_t stuck) noexcept;
  void climb(const event& e, const stalled_poll& what) noexcept;
  void report(const event& e, stalled_poll what, bool shown, const examination& seen) noexcept;
  [[nodiscard]] open_stall* same_stall(const scoped_lock& lock, const event& e) noexcept;
  void finish(const event& e) noexcept;
  void overstay(const event& e) noexcept;
  void compensate_all() noexcept;
  [[nodiscard]] std::size_t stuck_in(const scoped_lock& lock, const context_core& core) noexcept;
  [[nodiscard]] bool watches(const context_core& core) noexcept;

  std::mutex section_;
  std::mutex mutex_;  ///< guards the members below
  std::condition_variable done_;
  std::vector<std::unique_ptr<watched_worker>> workers_;
  std::vector<watched_context> contexts_;
  std::uint64_t last_serial_ = 0;
  /// The context of the report or call that is in progress.
  context_core* busy_ = nullptr;
  bool armed_ = false;  ///< the flag is set in every context's word
  /// The thread that made the first context. In a program with one thread, it is the worker.
  struct first_thread {
    pid_t number = 0;
    int syscall = -1;   ///< its file in /proc, until files_ takes it over
    bool gone = false;  ///< the thread has ended, and files_ has to close the file
  } first_;

  // Used by the watchdog's thread only:
  thread_files files_;
  std::vector<event> events_;  ///< has capacity for one event of each worker
  std::unique_ptr<stack_capture> capture_;
  std::unique_ptr<symbolizer> symbolizer_;
  std::uint32_t last_bell_ = 0;
  int filters_ = 0;          ///< seccomp filters in force on this thread
  int quiet_ = 0;            ///< looks in a row that found all workers idle
  bool in_the_way_ = false;  ///< a worker waits for the CPU that the watchdog is on
  timing::ticks moved_ = 0;

  /// Incremented by notify(), to wake the watchdog.
  std::atomic<std::uint32_t> bell_{0};
  std::atomic<bool> running_{false};  ///< written with the mutex held
  /// `over_`: exit() has been called. Both are sequentially consistent: one thread sets the first
  /// and reads the second, and the other does the opposite, so at least one sees the other's store.
  std::atomic<bool> over_{false};
  std::atomic<bool> user_code_running_{false};
  std::atomic<int> exits_heard_of_{0};  ///< how many handlers are registered with atexit()
  std::atomic<std::thread::id> own_thread_{};
};

/// A scope in which user code runs on the watchdog's thread. No lock of the watchdog is held
/// meanwhile, so that a thread that forks does not wait for it. For the watchdog's thread only. If
/// it converts to false, the process is ending. The user code must not run then, because the
/// objects that it uses may have been destroyed.
class user_code_scope {
 public:
  user_code_scope() noexcept;
  ~user_code_scope();
  user_code_scope(const user_code_scope&) = delete;
  user_code_scope& operator=(const user_code_scope&) = delete;
  [[nodiscard]] explicit operator bool() const noexcept { return may_run_; }

 private:
  const bool may_run_;
};

}  // namespace asio_pulse::detail
