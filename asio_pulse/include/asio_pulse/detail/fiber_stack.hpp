// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/thread_state.hpp>

#include <cxxabi.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(_LIBCPP_VERSION)
// libc++abi exports this function of the Itanium C++ ABI, and declares it in no installed header.
namespace __cxxabiv1 {
struct __cxa_eh_globals;
extern "C" __cxa_eh_globals* __cxa_get_globals();  // NOLINT(bugprone-reserved-identifier)
}  // namespace __cxxabiv1
#endif

/// The locks that the code on a thread holds, as far as they are counted (lock_count.h): how many, and
/// the sum of their addresses.
#ifndef ASIO_PULSE_HELD_LOCKS
#define ASIO_PULSE_HELD_LOCKS
extern "C" struct asio_pulse_held_locks {
  int count;
  std::uintptr_t sum;
};
#endif

/// \file
/// The stacks of fibers, which are pooled, guarded, and found by the stack pointer.
///
/// All stacks are in one large reservation of addresses, which is divided into a part for each
/// stack size, and each part into slots. So the stack pointer tells whether the code runs on a
/// fiber, and on which. A thread-local could not, because a fiber moves between threads, and
/// compilers keep the address of a thread-local across the call in which that happens.

namespace asio_pulse::detail {

/// Sizes are powers of two from 16 KiB to 8 MiB. Below each stack there is a guard of the same
/// size.
inline constexpr unsigned fiber_sizes = 10;
inline constexpr std::size_t smallest_fiber_stack = std::size_t{16} << 10;

/// The part for stacks of at least `bytes`.
[[nodiscard]] constexpr unsigned fiber_size_class(std::size_t bytes) noexcept {
  const auto n = static_cast<unsigned>(std::bit_width((bytes - 1) / smallest_fiber_stack));
  return n < fiber_sizes ? n : fiber_sizes - 1;
}
[[nodiscard]] constexpr std::size_t fiber_stack_size(unsigned size_class) noexcept {
  return smallest_fiber_stack << size_class;
}
static_assert(fiber_stack_size(fiber_size_class(65536)) == 65536);
static_assert(fiber_stack_size(fiber_size_class(65537)) == 131072);
static_assert(fiber_size_class(1) == 0 && fiber_size_class(std::size_t{8} << 20) == 9);

/// Names a thread for as long as it stays in its run functions. The number is that of a cell in a
/// table that is never freed, so that any thread may ask.
struct thread_pin {
  std::uint32_t number = 0;  ///< 0: none
  std::uint32_t stay = 0;    ///< the value of the cell while the thread stays
};
/// The calling thread's; number 0 if there is no cell left.
[[nodiscard]] thread_pin pin_here() noexcept;
/// Whether the pin names another thread than the calling one, and that thread is still in the run
/// functions that it was in when the pin was made.
[[nodiscard]] bool pinned_elsewhere(const thread_pin& pin) noexcept;
/// The calling thread enters or leaves its run functions: its pins bind no handler any more.
void unpin_this_thread() noexcept;
/// The same for the thread that the pin names, unless it has done so itself. Number 0: no thread.
void unpin_thread(const thread_pin& pin) noexcept;

/// The block at the top of every slot, which describes what runs on it.
struct alignas(64) fiber_block {
  /// Suspends what runs here, and returns true when it is resumed; returns false if it cannot be
  /// suspended. Null if it cannot be suspended now. Must be called on this stack.
  bool (*suspend)(fiber_block&) = nullptr;
  /// Whether an automatic checkpoint may call `suspend`, as far as the place decides that. Valid while
  /// `suspend` is not null. Changes nothing.
  bool (*may_suspend)(const fiber_block&) noexcept = nullptr;
  void* suspension = nullptr;  ///< an object on this stack, for `suspend`
  /// The state of the thread that resumed it, so that the fiber need not look it up.
  hooks::thread_state* thread = nullptr;
  /// The task that the handler started with. From the first suspension on it holds a reference,
  /// because scopes on this stack refer to it.
  hooks::task_record* task = nullptr;
  /// Ends the fiber that waits for its next handler here; null if there is none.
  void (*discard)(fiber_block&) noexcept = nullptr;
  std::uint32_t slot = 0;
  std::uint8_t size_class = 0;
  /// Its context is being destroyed, and it is resumed only to be unwound or, if it was suspended
  /// at an automatic checkpoint, to run to its end.
  bool unwinding = false;
  /// It is suspended, or about to be, at an automatic checkpoint. Nothing can be thrown there.
  bool automatic = false;
  /// An automatic checkpoint on this stack is being decided. Checks in the code that suspends it
  /// find this, and do nothing.
  bool checking = false;
  /// If `automatic`: the thread that has to resume it.
  thread_pin pinned{};
  /// If `automatic`: the operation in Asio's queue that resumes it; null if it is elsewhere.
  void* queued = nullptr;
  /// Storage for fiber.hpp.
  alignas(16) unsigned char machine[128] = {};

  [[nodiscard]] std::uintptr_t top() const noexcept {
    return reinterpret_cast<std::uintptr_t>(this);
  }
  [[nodiscard]] std::uintptr_t bottom() const noexcept {
    return top() + sizeof(fiber_block) - fiber_stack_size(size_class);
  }
  [[nodiscard]] std::size_t size() const noexcept { return top() - bottom(); }
  /// Whether the object is on this stack, and so moves with the fiber.
  [[nodiscard]] bool holds(const void* object) const noexcept {
    return reinterpret_cast<std::uintptr_t>(object) - bottom() < size();
  }
};

/// Where the stacks are.
struct fiber_region {
  std::uintptr_t base;
  unsigned part_bits;  ///< a part is 2^part_bits bytes

  [[nodiscard]] bool contains(std::uintptr_t address) const noexcept {
    return address - base < std::uintptr_t{fiber_sizes} << part_bits;
  }
  [[nodiscard]] unsigned size_class(std::uintptr_t address) const noexcept {
    return static_cast<unsigned>((address - base) >> part_bits);
  }
  /// The end of the slot that the address is in.
  [[nodiscard]] std::uintptr_t slot_end(std::uintptr_t address) const noexcept {
    const std::uintptr_t slot = std::uintptr_t{2 * smallest_fiber_stack} << size_class(address);
    return ((address - base) | (slot - 1)) + 1 + base;
  }
};

/// Null until the first fiber. Loaded with acquire, which pairs with the release of the thread that
/// makes the reservation.
extern constinit std::atomic<const fiber_region*> the_fiber_region;

[[nodiscard]] inline fiber_block* fiber_at(std::uintptr_t stack_pointer) noexcept {
  const fiber_region* const region = the_fiber_region.load(std::memory_order_acquire);
  if (region == nullptr || !region->contains(stack_pointer)) return nullptr;
  return reinterpret_cast<fiber_block*>(region->slot_end(stack_pointer) - sizeof(fiber_block));
}

/// The fiber that this code runs on; null on a thread's own stack, and on stacks that are not ours.
///
/// \par Cost  A few instructions, no thread-local.
[[nodiscard]] inline fiber_block* fiber_here() noexcept {
  return fiber_at(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
}

/// The state of exceptions that the C++ runtime keeps for each thread, in the layout of the Itanium
/// C++ ABI: the exceptions being handled, and the number of uncaught ones. A fiber takes its own
/// along.
struct exception_state {
  void* caught = nullptr;
  unsigned int uncaught = 0;
#if defined(__ARM_EABI_UNWINDER__)
  void* propagating = nullptr;
#endif
};

/// What a thread keeps for fibers.
struct fiber_thread {
  /// A pointer to the thread's exception state, which saves two calls in each switch. Null until
  /// ready_fiber_thread().
  exception_state* exceptions = nullptr;
  int* error_number = nullptr;
  /// The locks that the code on this thread holds. A fiber takes its own along.
  asio_pulse_held_locks* locks = nullptr;
  /// The signals that this thread blocks outside of signal handlers.
  std::uint64_t signals = 0;
  /// An automatic checkpoint has found other signals blocked: remember_signals() has to look again.
  bool signals_differed = false;
  /// The thread's cell, see thread_pin; 0 for none.
  std::uint32_t cell = 0;
  /// A fiber that ended here, kept for the next one. Only its own thread writes it. Relaxed:
  /// fiber_stack_usage() reads it in order to count it.
  std::atomic<fiber_block*> at_hand{nullptr};
  /// The thread has a stack for the message about an overflow, and returns `at_hand` when it ends.
  bool ready = false;
  fiber_thread* previous = nullptr;
  fiber_thread* next = nullptr;
};
extern constinit thread_local fiber_thread this_fiber_thread ASIO_PULSE_DETAIL_TLS_MODEL;

/// Out of line: never inlined into code that a fiber runs.
fiber_block* take_fiber_slow(unsigned size_class) noexcept;
void give_fiber_slow(fiber_block& b) noexcept;
void ready_fiber_thread() noexcept;
/// Notes which signals the thread blocks. Not to be called in a signal handler.
void remember_signals() noexcept;
/// The signals that are blocked now. A system call.
[[nodiscard]] std::uint64_t blocked_signals() noexcept;
/// Releases the fiber's reference to its task.
void forget_fiber_task(fiber_block& b) noexcept;

/// Takes a slot, with or without a fiber that waits in it. Null if there is no memory, or no slot
/// left. Must not be called on a fiber that may move to another thread.
[[nodiscard]] inline fiber_block* take_fiber(unsigned size_class) noexcept {
  fiber_thread& mine = this_fiber_thread;
  fiber_block* const b = mine.at_hand.load(std::memory_order_relaxed);
  if (b != nullptr && b->size_class == size_class) [[likely]] {
    mine.at_hand.store(nullptr, std::memory_order_relaxed);
    return b;
  }
  return take_fiber_slow(size_class);
}

/// Returns a slot, with the fiber that waits in it if `discard` is set.
inline void give_fiber(fiber_block& b) noexcept {
  if (b.task != nullptr) [[unlikely]] {
    forget_fiber_task(b);
  }
  fiber_thread& mine = this_fiber_thread;
  if (mine.ready && mine.at_hand.load(std::memory_order_relaxed) == nullptr) [[likely]] {
    mine.at_hand.store(&b, std::memory_order_relaxed);
    return;
  }
  give_fiber_slow(b);
}

/// Installs a handler that prints a message on stderr if a fault is in a guard. Called with the
/// first fiber. The previous handler of the signal is called afterwards.
void install_overflow_message() noexcept;

}  // namespace asio_pulse::detail
