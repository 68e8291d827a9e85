// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/thread_state.hpp>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

/// \file
/// The stacks of fibers: pooled, guarded, and found by the stack pointer.
///
/// All stacks lie in one big reservation of addresses, cut into parts of one stack size each and
/// those into slots. Where the stack pointer is tells whether this is a fiber, and which: no
/// thread-local can say that, for a fiber goes from thread to thread, and compilers keep the
/// address of a thread-local across the call in which that happens.

namespace asio_pulse {

/// What has become of the fiber stacks of one size.
struct fiber_stacks {
  std::size_t size = 0;    ///< of each, in bytes
  std::size_t in_use = 0;  ///< under a handler that runs, or is suspended
  std::size_t idle = 0;    ///< kept at hand with its memory; as many threads as use fibers, and 64
  std::size_t made = 0;    ///< so far; what is neither in use nor idle holds addresses, no memory
  /// The most that any of them has used, in bytes, to whole pages.
  std::size_t high_water = 0;
};

/// The fiber stacks of this process, one entry for each size that was ever used.
///
/// \par Cost           A system call for each stack that holds memory, about a microsecond: for a
/// status page, not
///                     for a handler.
/// \par Thread safety  Any thread; a figure may be old by what happened meanwhile.
/// \par Errors         std::bad_alloc.
/// \par Source         mincore(2): a page that was touched once stays resident until its stack is
/// given back.
[[nodiscard]] std::vector<fiber_stacks> fiber_stack_usage();

namespace detail {

/// Sizes are powers of two, 16 KiB to 8 MiB; below each stack lies a guard of its own size.
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

/// At the top of every slot: what runs on it.
struct alignas(64) fiber_block {
  /// Suspends what runs here: true when it goes on after that, false where it cannot be. Null: not
  /// now. Must be called on this very stack.
  bool (*suspend)(fiber_block&) = nullptr;
  void* suspension = nullptr;  ///< for `suspend`: on this stack
  /// Whoever resumed it, so that the fiber itself need not look for its thread.
  hooks::thread_state* thread = nullptr;
  /// The task that the handler started with; one reference, from the first suspension on: scopes on
  /// this stack remember it.
  hooks::task_record* task = nullptr;
  /// Ends the fiber that waits for its next handler here; null: there is none.
  void (*discard)(fiber_block&) noexcept = nullptr;
  std::uint32_t slot = 0;
  std::uint8_t size_class = 0;
  /// Its context is being destroyed: it is resumed once more, to be unwound.
  bool unwinding = false;
  /// For whoever switches (fiber.hpp).
  alignas(16) unsigned char machine[128] = {};

  [[nodiscard]] std::uintptr_t top() const noexcept {
    return reinterpret_cast<std::uintptr_t>(this);
  }
  [[nodiscard]] std::uintptr_t bottom() const noexcept {
    return top() + sizeof(fiber_block) - fiber_stack_size(size_class);
  }
  [[nodiscard]] std::size_t size() const noexcept { return top() - bottom(); }
  /// Whether the object lies on this stack: it would go where the fiber goes.
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

/// Null until the first fiber. Acquire, pairs with the release of whoever reserves: the region is
/// complete.
extern constinit std::atomic<const fiber_region*> the_fiber_region;

[[nodiscard]] inline fiber_block* fiber_at(std::uintptr_t stack_pointer) noexcept {
  const fiber_region* const region = the_fiber_region.load(std::memory_order_acquire);
  if (region == nullptr || !region->contains(stack_pointer)) return nullptr;
  return reinterpret_cast<fiber_block*>(region->slot_end(stack_pointer) - sizeof(fiber_block));
}

/// The fiber that this code runs on; null: it runs on a thread's own stack, or on one that is none
/// of ours.
///
/// \par Cost  A few instructions, no thread-local.
[[nodiscard]] inline fiber_block* fiber_here() noexcept {
  return fiber_at(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)));
}

/// What the C++ runtime keeps of exceptions on a thread, as the Itanium C++ ABI lays it out: those
/// being handled, and how many are on their way. Whose fiber goes, takes it along.
struct exception_state {
  void* caught = nullptr;
  unsigned int uncaught = 0;
#if defined(__ARM_EABI_UNWINDER__)
  void* propagating = nullptr;
#endif
};

/// What a thread keeps of fibers.
struct fiber_thread {
  /// The thread's own: two calls less a switch. Null until it is made ready.
  exception_state* exceptions = nullptr;
  int* error_number = nullptr;
  /// One fiber that ended here, for the next. Written by its thread alone; relaxed, so that
  /// fiber_stack_usage() may count it.
  std::atomic<fiber_block*> at_hand{nullptr};
  /// The thread has a stack for the overflow's message, and gives back what is at hand when it
  /// ends.
  bool ready = false;
  fiber_thread* previous = nullptr;
  fiber_thread* next = nullptr;
};
extern constinit thread_local fiber_thread this_fiber_thread ASIO_PULSE_DETAIL_TLS_MODEL;

/// Out of line: never inlined into code that a fiber runs.
fiber_block* take_fiber_slow(unsigned size_class) noexcept;
void give_fiber_slow(fiber_block& b) noexcept;
void ready_fiber_thread() noexcept;
/// Gives the fiber's task back.
void forget_fiber_task(fiber_block& b) noexcept;

/// A slot, with a fiber that waits in it or without. Null: no memory, or no more slots. Not on a
/// fiber that may migrate.
[[nodiscard]] inline fiber_block* take_fiber(unsigned size_class) noexcept {
  fiber_thread& mine = this_fiber_thread;
  fiber_block* const b = mine.at_hand.load(std::memory_order_relaxed);
  if (b != nullptr && b->size_class == size_class) [[likely]] {
    mine.at_hand.store(nullptr, std::memory_order_relaxed);
    return b;
  }
  return take_fiber_slow(size_class);
}

/// Gives it back, with the fiber that waits in it if `discard` is set.
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

/// Says what a fault in a guard is, on stderr. Installed with the first fiber; whoever handled the
/// signal before gets it next.
void install_overflow_message() noexcept;
/// Gives the calling thread a signal stack, if it has none; takes it away again.
void* make_signal_stack() noexcept;
void drop_signal_stack(void* stack) noexcept;

}  // namespace detail
}  // namespace asio_pulse
