// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/detail/sanitizers.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <chrono>
#include <cstdint>
#include <source_location>

namespace asio_pulse {

namespace detail {

/// Reads the clock and decides; refuels.
///
/// Like everything below, it looks the thread's state up itself: a fiber goes from thread to thread
/// between two checkpoints, and the compiler may keep an address that it computed before.
[[nodiscard]] bool should_yield_slow() noexcept;

#if defined(__x86_64__) && defined(__linux__) && !defined(ASIO_PULSE_DETAIL_ASAN) && \
    !defined(ASIO_PULSE_DETAIL_TSAN)
/// Whether there may be a reason to yield: it is time to read the clock, or a hint has come.
/// Relative to %fs throughout: there is no address to keep.
ASIO_PULSE_DETAIL_INLINE bool may_be_wanted() noexcept {
  const bool hinted = hooks::this_thread_state.hint->load(std::memory_order_relaxed) !=
                      hooks::this_thread_state.hint_seen;
  return (--hooks::this_thread_state.fuel <= 0) | hinted;
}
#else
[[nodiscard]] bool may_be_wanted() noexcept;
#endif

/// A checkpoint that should yield asks this first. True: it is dealt with, by suspending the fiber
/// that it runs on, or by a refusal. False: whoever can yield by other means may do so.
[[nodiscard]] bool yield_here();

/// The same for a coroutine, which suspends itself and nothing else, whatever stack it runs on: a
/// fiber that is destroyed is unwound by an exception, and a coroutine's frames keep exceptions.
/// True: it may not, under a lock, and that has been reported.
[[nodiscard]] bool refuse_yield() noexcept;

/// A poll, as far as one can be told from another after its end: by where its frame lay and when it
/// started.
struct poll_mark {
  const hooks::poll_frame* frame = nullptr;  ///< null: outside handlers, where nothing yields
  timing::ticks started = 0;
};

/// Counts a lock or scope under which this poll is not to be suspended.
[[nodiscard]] poll_mark enter_no_yield() noexcept;
/// False: it was entered in another poll, whose end has settled the count.
bool leave_no_yield(const poll_mark& entered) noexcept;
/// Reports that `what` was left in another poll than it was entered in.
void tell_misuse(const char* what) noexcept;

/// Makes a task the one that operations created now belong to; returns the one before. Out of line:
/// for scopes that a fiber may be suspended in.
hooks::task_record* exchange_current(hooks::task_record* t) noexcept;

}  // namespace detail

/// Whether the handler that runs on this thread had better let others go first: its poll has lasted
/// a quantum, or its task's budget is spent, or the kernel has hinted that others wait (hints.hpp).
///
/// A plain handler saves its state and posts itself again; a coroutine says `co_await
/// checkpoint()`. False outside handlers, inside a critical_section, and where nobody listens.
///
/// \par Cost           A decrement, two loads and a branch; every so often (at most every 32nd
/// call,
///                     and rarer than every 20 us in between) one TSC read. The same with a control
///                     block and without.
/// \par Thread safety  Any thread; speaks for the calling thread only. Not in signal handlers.
/// \par Errors         None (noexcept).
/// \par Memory order   None: thread-local, read and written by its own thread.
/// \par Source         Seastar, need_preempt(): the price of asking must vanish, or nobody asks.
[[nodiscard]] ASIO_PULSE_DETAIL_INLINE bool should_yield() noexcept {
  if (!detail::may_be_wanted()) [[likely]] {
    return false;
  }
  return detail::should_yield_slow();
}

namespace this_fiber {

/// Lets others go first, if the handler has had its share, by suspending the whole handler: a
/// preemptible() one, or a coroutine of asio_pulse::spawn(), at any call depth. On a thread's own
/// stack it does nothing.
///
/// What asio_pulse::checkpoint() does as a plain statement, by a name that every Boost has: before
/// 1.81 checkpoint() is a coroutine, and can only be awaited.
///
/// \par Cost           As should_yield() when nothing is wanted.
/// \par Thread safety  The handler may go on on another thread: see preemptible().
/// \par Errors         Throws what is no std::exception where the suspended handler is destroyed
///                     with its context. In a coroutine of spawn() that was cancelled, what Asio
///                     throws then.
ASIO_PULSE_DETAIL_INLINE void checkpoint() {
  if (should_yield()) (void)detail::yield_here();
}

}  // namespace this_fiber

/// No yield in this scope: checkpoints do nothing. An over-stay (options::max_critical) of the
/// outermost one is reported when it ends.
///
/// It belongs to the handler that entered it: in a coroutine it must not live across a suspension.
/// Leaving it in another handler, or on another thread, is reported (report_kind::misuse) and
/// changes nothing: the end of the handler that entered it has left it. Nests.
///
/// \par Cost           One TSC read on entering and one on leaving.
/// \par Thread safety  Distinct objects: Safe. Enter and leave on the same thread.
/// \par Errors         None (noexcept).
class critical_section {
 public:
  critical_section() noexcept;
  ~critical_section();
  critical_section(const critical_section&) = delete;
  critical_section& operator=(const critical_section&) = delete;

 private:
  detail::poll_mark entered_;
  timing::ticks since_ = 0;  ///< of the outermost one; else 0
};

namespace this_task {

/// The id of the task that operations created now belong to; 0 for none.
[[nodiscard]] std::uint64_t id() noexcept;

}  // namespace this_task

/// A place in the source that is annotated with a budget. Made by ASIO_PULSE_PREEMPTION_BUDGET.
struct budget_place {
  const char* function;
  const char* file;
  std::uint32_t line;
};

/// The rest of the enclosing block is a task of its own, named after the function, with a budget of
/// its own. All its runs share it, in every handler and coroutine of the context.
///
/// In a coroutine it lasts across suspensions: operations created inside belong to the task.
///
/// \par Cost           A look-up and two TSC reads, about 80 ns.
/// \par Thread safety  Distinct objects: Safe.
/// \par Errors         None (noexcept): without a context, or memory, it does nothing.
class preemption_budget {
 public:
  preemption_budget(const budget_place& place, std::chrono::nanoseconds budget) noexcept;
  ~preemption_budget();
  preemption_budget(const preemption_budget&) = delete;
  preemption_budget& operator=(const preemption_budget&) = delete;

 private:
  hooks::task_record* task_ = nullptr;
  hooks::task_record* before_ = nullptr;
};

}  // namespace asio_pulse

#define ASIO_PULSE_DETAIL_JOIN2(a, b) a##b
#define ASIO_PULSE_DETAIL_JOIN(a, b) ASIO_PULSE_DETAIL_JOIN2(a, b)

/// Gives the rest of the enclosing function or block a CPU budget: `duration` in every five times
/// as long. See asio_pulse::preemption_budget.
#define ASIO_PULSE_PREEMPTION_BUDGET(duration)                                                     \
  static constexpr auto ASIO_PULSE_DETAIL_JOIN(asio_pulse_here_, __LINE__) =                       \
      ::std::source_location::current();                                                           \
  static constexpr ::asio_pulse::budget_place ASIO_PULSE_DETAIL_JOIN(asio_pulse_place_, __LINE__){ \
      ASIO_PULSE_DETAIL_JOIN(asio_pulse_here_, __LINE__).function_name(),                          \
      ASIO_PULSE_DETAIL_JOIN(asio_pulse_here_, __LINE__).file_name(),                              \
      ASIO_PULSE_DETAIL_JOIN(asio_pulse_here_, __LINE__).line()};                                  \
  const ::asio_pulse::preemption_budget ASIO_PULSE_DETAIL_JOIN(asio_pulse_budget_, __LINE__)(      \
      ASIO_PULSE_DETAIL_JOIN(asio_pulse_place_, __LINE__), (duration))

#endif
