// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/detail/sanitizers.hpp>
#include <asio_pulse/hooks/assert.hpp>

#include <boost/context/fiber.hpp>
#include <boost/context/preallocated.hpp>
#include <boost/context/stack_context.hpp>

#include <atomic>
#include <cerrno>
#include <exception>
#include <memory>
#include <new>
#include <utility>

// If the program enables Boost.Context's own annotations, those suffice.
#if !defined(BOOST_USE_ASAN) && !defined(BOOST_USE_TSAN)
#if defined(ASIO_PULSE_DETAIL_ASAN)
#define ASIO_PULSE_DETAIL_FIBER_ASAN 1
#elif defined(ASIO_PULSE_DETAIL_TSAN)
#define ASIO_PULSE_DETAIL_FIBER_TSAN 1
#endif
#endif
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

/// \file
/// Fibers that run one handler after the other, on the stacks of fiber_stack.hpp, switched by
/// Boost.Context.
///
/// Everything that belongs to a thread is exchanged by the code that resumes a fiber, since its
/// stack stays on its thread. The code on the fiber uses no thread-local at all.

namespace asio_pulse::detail {

/// A checkpoint throws this if its suspended handler is destroyed with the context. It is not a
/// std::exception; a `catch (...)` must rethrow it.
struct fiber_unwind {};

/// The exception state of the calling thread. Out of line, because the function is declared to
/// return the same at every call, which is not true on a fiber.
ASIO_PULSE_DETAIL_NOINLINE inline exception_state& exceptions_here() noexcept {
  asm volatile("");
  return *reinterpret_cast<exception_state*>(abi::__cxa_get_globals());
}
ASIO_PULSE_DETAIL_NOINLINE inline int& errno_here() noexcept {
  asm volatile("");
  return errno;
}

struct fiber_machine {
  boost::context::fiber inside;   ///< the fiber, while it does not run
  boost::context::fiber outside;  ///< the code that resumed it, while it runs
  void (*job)(fiber_block&, void*) = nullptr;
  void* argument = nullptr;
  /// What to do with the suspended fiber once it no longer runs. Returns whether its rest was
  /// queued somewhere. Null if the fiber has ended.
  bool (*park)(fiber_block&) = nullptr;
  std::exception_ptr error;  ///< the exception that it ended with
  exception_state exceptions;
  int error_number = 0;
  asio_pulse_held_locks locks{};  ///< of the code on it
  bool over = false;              ///< the fiber must end
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  void* fake_stack = nullptr;
  const void* outer_bottom = nullptr;
  std::size_t outer_size = 0;
#elif defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
  void* inner = nullptr;
  void* outer = nullptr;
#endif
};
static_assert(sizeof(fiber_machine) <= sizeof(fiber_block::machine));

inline fiber_machine& machine_of(fiber_block& b) noexcept {
  return *std::launder(reinterpret_cast<fiber_machine*>(b.machine));
}

/// Continues the fiber until it suspends or its job is done. Must be called on a stack that stays
/// on its thread, after ready_fiber_thread().
inline void enter_fiber(fiber_block& b) noexcept {
  fiber_machine& m = machine_of(b);
  hooks::thread_state& ts = hooks::this_thread();
  ASIO_PULSE_ASSERT(this_fiber_thread.exceptions != nullptr);  // ready_fiber_thread()
  ASIO_PULSE_ASSERT(!ts.switching);
  ASIO_PULSE_ASSERT(!b.holds(__builtin_frame_address(0)));
  ASIO_PULSE_ASSERT(m.inside);
  exception_state& exceptions = *this_fiber_thread.exceptions;
  int& error_here = *this_fiber_thread.error_number;
  asio_pulse_held_locks& locks_here = *this_fiber_thread.locks;
  const exception_state mine = std::exchange(exceptions, m.exceptions);
  const int error_number = std::exchange(error_here, m.error_number);
  const asio_pulse_held_locks locks = std::exchange(locks_here, m.locks);
  b.thread = &ts;
  // From here on the watchdog's signal cannot take this thread's stack.
  ts.switching = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, reinterpret_cast<void*>(b.bottom()), b.size());
#elif defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
  m.outer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(m.inner, 0);
#endif
  m.inside = std::move(m.inside).resume();
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  std::atomic_signal_fence(std::memory_order_seq_cst);
  ts.switching = false;
  m.exceptions = std::exchange(exceptions, mine);
  m.error_number = std::exchange(error_here, error_number);
  m.locks = std::exchange(locks_here, locks);
}

/// Called on the fiber when it was resumed.
inline void arrived(fiber_block& b) noexcept {
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  fiber_machine& m = machine_of(b);
  __sanitizer_finish_switch_fiber(m.fake_stack, &m.outer_bottom, &m.outer_size);
#endif
  std::atomic_signal_fence(std::memory_order_seq_cst);
  b.thread->switching = false;
}

/// Switches back to the code that resumed this fiber. Returns when the fiber is resumed again,
/// perhaps on another thread.
ASIO_PULSE_DETAIL_NOINLINE inline void leave_fiber(fiber_block& b) noexcept {
  fiber_machine& m = machine_of(b);
  ASIO_PULSE_ASSERT(fiber_here() == &b);
  ASIO_PULSE_ASSERT(b.thread != nullptr && !b.thread->switching);
  b.thread->switching = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  __sanitizer_start_switch_fiber(&m.fake_stack, m.outer_bottom, m.outer_size);
#elif defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
  __tsan_switch_to_fiber(m.outer, 0);
#endif
  m.outside = std::move(m.outside).resume();
  arrived(b);
}

/// The function of a fiber. It runs one job after the other.
inline boost::context::fiber fiber_main(fiber_block& b, boost::context::fiber&& outside) {
  fiber_machine& m = machine_of(b);
  m.outside = std::move(outside);
  arrived(b);
  while (!m.over) {
    m.job(b, m.argument);
    m.park = nullptr;
    leave_fiber(b);
  }
  b.thread->switching = true;
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  __sanitizer_start_switch_fiber(nullptr, m.outer_bottom, m.outer_size);
#endif
  return std::move(m.outside);
}

/// A stack allocator for stacks that belong to the pool and not to the fiber.
struct pooled_slot {
  boost::context::stack_context allocate() noexcept { return {}; }  // not called: preallocated
  void deallocate(boost::context::stack_context&) noexcept {}
};

inline void discard_fiber(fiber_block& b) noexcept {
  fiber_machine& m = machine_of(b);
  b.discard = nullptr;
#if defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
  // Boost.Context would leave the fiber through calls whose ends TSan takes for those of the
  // thread. Nothing on its stack has to be destroyed, so the fiber is abandoned instead.
  __tsan_destroy_fiber(m.inner);
  new (b.machine) fiber_machine;
#else
  m.over = true;
  enter_fiber(b);
  std::destroy_at(&m);
#endif
}

/// Starts a fiber in the slot, which waits for its first job.
inline void make_fiber(fiber_block& b) noexcept {
  auto& m = *new (b.machine) fiber_machine;
  boost::context::stack_context where;
  where.sp = &b;
  where.size = b.size();
#if defined(ASIO_PULSE_DETAIL_FIBER_ASAN)
  __asan_unpoison_memory_region(reinterpret_cast<void*>(b.bottom()), b.size());
#elif defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
  m.inner = __tsan_create_fiber(0);
  m.outer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(m.inner, 0);
#endif
  m.inside = boost::context::fiber(
      std::allocator_arg, boost::context::preallocated(where.sp, where.size, where), pooled_slot{},
      [&b](boost::context::fiber&& outside) { return fiber_main(b, std::move(outside)); });
#if defined(ASIO_PULSE_DETAIL_FIBER_TSAN)
  __tsan_switch_to_fiber(m.outer, 0);
#endif
  b.discard = &discard_fiber;
}

/// The fiber's job is done. Returns the stack to the pool, and rethrows the exception of the job.
inline void finish_fiber(fiber_block& b) {
  std::exception_ptr error = std::move(machine_of(b).error);
  give_fiber(b);
  if (error) [[unlikely]] {
    std::rethrow_exception(std::move(error));
  }
}

/// Runs the fiber until it suspends or ends. If its rest cannot be queued, it continues at once.
inline void run_fiber(fiber_block& b) {
  for (;;) {
    enter_fiber(b);
    const auto park = machine_of(b).park;
    if (park == nullptr) return finish_fiber(b);
    if (park(b)) return;
  }
}

/// Ends a suspended fiber that will not be resumed, and destroys the objects on its stack. One that
/// is suspended at an automatic checkpoint, where nothing can be thrown, runs to its end.
inline void unwind_fiber(fiber_block& b) noexcept {
  b.unwinding = true;
  ready_fiber_thread();
  enter_fiber(b);
  b.unwinding = false;
  machine_of(b).error = nullptr;  // nothing could catch it
  give_fiber(b);
}

/// Suspends the fiber that this code runs on. `park` is called when the fiber no longer runs.
inline void suspend_fiber(fiber_block& b, bool (*park)(fiber_block&)) {
  machine_of(b).park = park;
  leave_fiber(b);
  if (b.unwinding && !b.automatic) throw fiber_unwind{};
}

}  // namespace asio_pulse::detail
