// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/stack_capture.hpp>
#include <asio_pulse/detail/stall_watch.hpp>
#include <asio_pulse/detail/symbolizer.hpp>
#include <asio_pulse/detail/thread_usage.hpp>
#include <asio_pulse/detail/watchdog.hpp>
#include <asio_pulse/timing/timebase.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "process_wide.hpp"

/// \file
/// The watchdog itself. Private to watchdog.cpp (threads, contexts, sleep, fork), watchdog_look.cpp
/// (what is seen) and watchdog_act.cpp (what is done about it).

namespace asio_pulse::detail {

/// A reading of a thread's usage, and when.
struct usage_sample {
  thread_usage usage{};
  timing::ticks at = 0;
};

/// What is known of why a worker's poll has not ended.
struct poll_evidence {
  usage_sample latest;          ///< at the last look that took one
  usage_sample before;          ///< at the last look before the poll was seen
  usage_sample first;           ///< at the last look of which all before is in `head`
  usage_sample since;           ///< at the last event, which the next cause is judged from
  timing::ticks head = 0;       ///< excused of its age then
  timing::ticks overslept = 0;  ///< by the watchdog, since then
};

/// A stall that has begun and not ended.
struct open_stall {
  context_core* core = nullptr;  ///< one reference; null: none is open
  context_core::stall what;      ///< what.task: one reference, or null
  timing::ticks start = 0;
  timing::ticks excused = 0;  ///< when it was last looked at
  timing::ticks culpable = 0;
  bool shown = false;     ///< a report has been sent
  bool to_climb = false;  ///< the task could not be escalated yet
  bool compensable = false;
  scheduling demoted{};
};

/// A thread that runs handlers.
struct watched_worker {
  /// Alive while it is not null. Null: the thread has ended, and its stall with it, at `end`.
  hooks::thread_state* state = nullptr;
  timing::ticks end = 0;
  pid_t number = 0;
  std::thread::id id;
  std::uint64_t serial = 0;  ///< never used again, unlike the others
  thread_probe probe;        ///< the watchdog's alone
  bool probed = false;
  stall_watch watch;
  poll_evidence evidence;
  open_stall stall;
  timing::ticks seen = 0;  ///< clock.last() at the last look
  bool settled = false;    ///< it cannot be about to begin a poll without seeing the flag
  /// The watchdog works on it without the mutex: its thread waits before it ends.
  bool pinned = false;
};

/// A context whose workers are watched.
struct watched_context {
  context_core* core = nullptr;  ///< alive while this is in the registry
  stall_watch::limits limits;
  int signal = 0;  ///< negative: none
};

/// One thread that looks at all workers of all contexts, and sleeps while they do.
///
/// It looks when the first poll could reach its threshold, not at a fixed pace: a server that is
/// busy is looked at once per threshold, and a stall is found when it becomes one. When several
/// looks in a row have found every worker idle, it sets path_state::wake_watchdog in the word that
/// each poll compares anyway, looks again, and sleeps until a poll finds the flag.
///
/// Locks: `section_` is held by the watchdog's thread whenever it does anything but sleep and run
/// user code, so that a fork waits for it; then `mutex_`; then a core's mutex. Workers take
/// `mutex_` alone.
class watchdog {
 public:
  static watchdog& get() noexcept;

  // See watchdog.hpp. Errors: std::bad_alloc from add().
  void add(hooks::thread_state& ts);
  void remove(hooks::thread_state& ts) noexcept;
  void add(context_core& core);
  void remove(context_core& core) noexcept;
  void wake() noexcept;
  /// The thread's function.
  void run() noexcept;
  void leave_section() noexcept { section_.unlock(); }
  void enter_section() noexcept { section_.lock(); }

 private:
  friend watchdog& process_wide<watchdog>() noexcept;

  /// What one look found about one worker.
  struct event {
    std::uint64_t serial = 0;
    context_core* core = nullptr;  ///< to be found again before it is used
    stall_watch::outcome outcome;
    timing::ticks now = 0;
    timing::ticks start = 0;
    timing::ticks stayed = 0;  ///< in the critical section
    stall_cause cause = stall_cause::unknown;
    hooks::task_record* account = nullptr;
    const hooks::site* site = nullptr;
    bool critical = false;
    bool compensable = false;
  };
  struct verdict {
    bool for_good;     ///< sleep until somebody rings
    timing::ticks at;  ///< else look again then
  };
  class at_work;

  // watchdog.cpp
  void start() noexcept;
  void ring() noexcept;
  void wait(std::uint32_t seen, std::chrono::nanoseconds timeout) noexcept;
  void move_away(timing::ticks now) noexcept;
  void arm(context_core& core) noexcept;
  void arm_all(bool on) noexcept;
  void before_fork() noexcept;
  void after_fork(bool child) noexcept;
  [[nodiscard]] bool on_own_thread() const noexcept;
  [[nodiscard]] watched_context* find(const hooks::path_observer* observer) noexcept;
  [[nodiscard]] watched_worker* find(std::uint64_t serial) noexcept;
  static void drop(open_stall& s) noexcept;

  // watchdog_look.cpp
  verdict look(timing::ticks now, timing::ticks overslept, bool rung) noexcept;
  struct impression {
    bool active = false;      ///< a worker is in a poll, or has been
    bool suspicious = false;  ///< in one that may well be a stall soon, or is one
  };
  [[nodiscard]] timing::ticks look_at(watched_worker& w, timing::ticks now, timing::ticks overslept,
                                      impression& seen) noexcept;

  // watchdog_act.cpp
  void act(const event& e) noexcept;
  void begin_or_repeat(const event& e) noexcept;
  void finish(const event& e) noexcept;
  void overstay(const event& e) noexcept;
  void compensate_all() noexcept;
  [[nodiscard]] std::size_t stuck_in(const context_core& core) noexcept;
  [[nodiscard]] bool watches(const context_core& core) noexcept;

  std::mutex section_;
  std::mutex mutex_;  ///< below: guarded by it
  std::condition_variable done_;
  std::vector<std::unique_ptr<watched_worker>> workers_;
  std::vector<watched_context> contexts_;
  std::uint64_t last_serial_ = 0;
  /// The context that a report or a call is about, now.
  context_core* busy_ = nullptr;
  bool armed_ = false;  ///< the flag is set in every context's word

  // The watchdog's thread alone:
  std::vector<event> events_;  ///< has room for one of each worker
  std::unique_ptr<stack_capture> capture_;
  std::unique_ptr<symbolizer> symbolizer_;
  std::uint32_t last_bell_ = 0;
  int quiet_ = 0;            ///< looks in a row that found everybody idle
  bool in_the_way_ = false;  ///< a worker waits for the CPU that the watchdog is on
  timing::ticks moved_ = 0;

  /// Rung by whoever has something to look at.
  std::atomic<std::uint32_t> bell_{0};
  std::atomic<bool> running_{false};  ///< written with the mutex held
  std::atomic<std::thread::id> own_thread_{};
};

}  // namespace asio_pulse::detail
