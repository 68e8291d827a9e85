// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

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

/// The slow path of should_yield(): reads the clock, decides, and refills the fuel.
///
/// This function and those below look up the thread's state themselves. A fiber may move to another
/// thread between two checkpoints, and the compiler could keep an address that it computed before.
[[nodiscard]] bool should_yield_slow() noexcept;

/// Whether there may be a reason to yield: it is time to read the clock, or there is a hint. The
/// library always has this function, however it was compiled, because a program under a sanitizer
/// may link a library that is not.
[[nodiscard]] bool may_be_wanted_out_of_line() noexcept;

/// The same, inline if the compiler cannot keep the address of a thread-local variable.
ASIO_PULSE_DETAIL_INLINE bool may_be_wanted() noexcept {
#if defined(__x86_64__) && defined(__linux__) && !defined(ASIO_PULSE_DETAIL_ASAN) && \
    !defined(ASIO_PULSE_DETAIL_TSAN)
  // All accesses are relative to %fs, so there is no address that the compiler could keep.
  const bool hinted = hooks::this_thread_state.hint->load(std::memory_order_relaxed) !=
                      hooks::this_thread_state.hint_seen;
  return (--hooks::this_thread_state.fuel <= 0) | hinted;
#else
  return may_be_wanted_out_of_line();
#endif
}

/// Called by a checkpoint that should yield. Returns true if nothing is left to do: the fiber that
/// the checkpoint runs on was suspended, or the yield was refused. Returns false if the caller may
/// yield by other means.
[[nodiscard]] bool yield_here();

/// The same for a coroutine. It suspends only itself, even on a fiber: a fiber that is destroyed is
/// unwound by an exception, which the frames of a coroutine would catch. Returns true if the yield
/// was refused because of a lock; the refusal has then been reported.
[[nodiscard]] bool refuse_yield() noexcept;

/// Counts a lock or scope that prevents the suspension of this poll. Returns no poll outside handlers,
/// where nothing yields.
[[nodiscard]] hooks::poll_mark enter_no_yield() noexcept;
/// Undoes enter_no_yield(). Returns false if it was entered in another poll; then the end of that
/// poll has undone it.
bool leave_no_yield(const hooks::poll_mark& entered) noexcept;
/// Reports that `what` was left in another poll than the one that entered it.
void report_misuse(const char* what) noexcept;

}  // namespace detail

/// Whether the handler that runs on this thread should yield: its poll has lasted for
/// options::quantum, or for options::min_slice while its task's budget is spent, or the kernel has
/// sent a hint that other threads wait (hints.hpp).
///
/// A plain handler then saves its state and posts itself again; a coroutine uses `co_await
/// checkpoint()` instead. Returns false outside handlers, inside a critical_section, inside a hook,
/// in shadow mode, and in a context that is switched off.
///
/// \par Cost           A decrement, two loads and a branch. Now and then (at most at every 32nd
///                     call, and less often than every 20 us) one TSC read. A control block for
///                     hints adds nothing.
/// \par Thread safety  Any thread; refers to the calling thread only. Not in signal handlers.
/// \par Errors         None (noexcept).
/// \par Memory order   None: the state is thread-local.
/// \par Source         Seastar, need_preempt(): a check must cost almost nothing, so that it can be
///                     made often.
[[nodiscard]] ASIO_PULSE_DETAIL_INLINE bool should_yield() noexcept {
  if (!detail::may_be_wanted()) [[likely]] {
    return false;
  }
  return detail::should_yield_slow();
}

namespace this_fiber {

/// Yields to other handlers if the current one has used up its share of the CPU. It suspends the
/// whole handler, at any call depth: a preemptible() handler, or a coroutine of
/// asio_pulse::spawn(). On a thread's own stack it does nothing.
///
/// The plain statement `asio_pulse::checkpoint();` does the same from Boost 1.81 on. Before, that
/// function is a coroutine and can only be awaited.
///
/// \par Cost           If it need not yield, that of should_yield().
/// \par Thread safety  The handler may continue on another thread; see preemptible().
/// \par Errors         If the suspended handler is destroyed with its context, throws an object
///                     that is not a std::exception. In a coroutine of spawn() that was cancelled,
///                     throws what Asio throws in this case.
ASIO_PULSE_DETAIL_INLINE void checkpoint() {
  if (should_yield()) (void)detail::yield_here();
}

}  // namespace this_fiber

/// Suppresses yields in its scope: checkpoints do nothing. If the outermost section lasts longer
/// than options::max_critical, that is reported.
///
/// It belongs to the handler that entered it. In a coroutine it must not live across a suspension.
/// Leaving it in another handler or on another thread has no effect and is reported
/// (report_kind::misuse), because the section ends with the handler that entered it. Sections can
/// be nested.
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
  hooks::poll_mark entered_;
  timing::ticks since_ = 0;  ///< of the outermost one; else 0
};

namespace this_task {

/// The id of the task to which operations belong that are created now; 0 if there is none.
[[nodiscard]] std::uint64_t id() noexcept;

}  // namespace this_task

/// A place in the source that has a budget. ASIO_PULSE_PREEMPTION_BUDGET makes one.
struct budget_place {
  const char* function;
  const char* file;
  std::uint32_t line;
};

/// Makes the rest of the enclosing block a task of its own, named after the function, with its own
/// budget. All executions of the block in the context share the task.
///
/// In a coroutine it lasts across suspensions: operations created inside belong to the task.
///
/// \par Cost           A look-up and two TSC reads, about 80 ns.
/// \par Thread safety  Distinct objects: Safe.
/// \par Errors         None (noexcept). If there is no context, or no memory, it does nothing.
class preemption_budget {
 public:
  preemption_budget(const budget_place& place, std::chrono::nanoseconds budget) noexcept;
  ~preemption_budget();
  preemption_budget(const preemption_budget&) = delete;
  preemption_budget& operator=(const preemption_budget&) = delete;

 private:
  hooks::task_record* task_ = nullptr;
  hooks::task_record* before_ = nullptr;  // in force before
  hooks::task_record* polled_ = nullptr;  // what the poll was charged to before
};

}  // namespace asio_pulse

#define ASIO_PULSE_DETAIL_JOIN2(a, b) a##b
#define ASIO_PULSE_DETAIL_JOIN(a, b) ASIO_PULSE_DETAIL_JOIN2(a, b)

/// Gives the rest of the enclosing function or block a CPU budget: `duration` in every window of
/// five times `duration`. See asio_pulse::preemption_budget.
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
