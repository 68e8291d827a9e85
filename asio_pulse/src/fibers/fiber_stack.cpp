// SPDX-License-Identifier: BSL-1.0
#include "fiber_threads.hpp"
#include "thread_exit.hpp"
#include "threads/signal_stack.hpp"
#include "threads/thread_usage.hpp"

#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/fiber_stacks.hpp>
#include <asio_pulse/hooks/assert.hpp>

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <mutex>
#include <new>
#include <utility>

namespace asio_pulse {
namespace detail {

constinit std::atomic<const fiber_region*> the_fiber_region{nullptr};
constinit thread_local fiber_thread this_fiber_thread ASIO_PULSE_DETAIL_TLS_MODEL;

namespace {

constexpr std::uint32_t none = ~std::uint32_t{0};

// How many unused stacks of one size keep their memory. A guess: a fresh stack costs a dozen page
// faults; 64 stacks of the default size with two pages in use keep half a megabyte.
constexpr std::size_t most_idle = 64;

// Of the stacks that keep their memory, those of at least `large` bytes keep this much of it: a handler that
// has used a megabyte once must not cost a megabyte for ever. The bounds are guesses. Trimming is a system
// call.
constexpr std::size_t large = std::size_t{256} << 10;
constexpr std::size_t kept_of_large = std::size_t{64} << 10;

// How many stacks lose their memory until one is measured before. Whether a seccomp filter may
// forbid that has to be asked each time, which takes about 60 us: 1 us for each stack.
constexpr std::size_t measured_of = 64;

// For each size 32 GiB of addresses are reserved, which take no memory. A GiB holds 8192 stacks of
// the default size with their guards. Less is reserved if the process may not have that much.
constexpr unsigned most_part_bits = 35;
constexpr unsigned least_part_bits = 26;

std::size_t slot_size(unsigned size_class) noexcept { return 2 * fiber_stack_size(size_class); }

struct pool {
  std::mutex mutex;
  // The mutex guards the members below. They are lists of slots; `links` has each slot's successor.
  std::uint32_t* links = nullptr;
  std::uint32_t warm = none;  ///< slots with memory, and perhaps with a waiting fiber
  std::uint32_t cold = none;  ///< slots without memory
  std::uint32_t bare = none;  ///< slots without memory that are still protected
  std::size_t warm_count = 0;
  std::size_t in_use = 0;  ///< includes those that threads have at hand
  std::size_t made = 0;
  std::size_t dropped = 0;  ///< how often a stack has lost its memory
  std::size_t high_water = 0;
};

// Never destroyed, because fibers may outlive static objects.
struct all_pools {
  pool of[fiber_sizes];
  std::mutex threads_mutex;
  fiber_thread* threads = nullptr;  ///< guarded by threads_mutex
  fiber_region region{};
};

all_pools* reserve() noexcept;

// Stored with release and loaded with acquire: a thread that finds the pools finds them complete.
constinit std::atomic<all_pools*> made{nullptr};

/// A lock that a forked child may take, even if another thread of its parent held it.
class fork_safe_lock {
 public:
  void lock() noexcept {
    const pid_t here = ::getpid();
    pid_t holder = 0;
    while (!holder_.compare_exchange_weak(holder, here, std::memory_order_acquire)) {
      if (holder == here) {
        holder = 0;
        ::sched_yield();
      }
    }
  }
  void unlock() noexcept { holder_.store(0, std::memory_order_release); }

 private:
  std::atomic<pid_t> holder_{0};  ///< the process; 0 if the lock is free
};

/// Null if no addresses can be reserved. Later calls try again, at growing intervals.
all_pools* pools() noexcept {
  if (all_pools* const p = made.load(std::memory_order_acquire)) return p;
  static constinit fork_safe_lock reserving;
  static constinit std::uint64_t asked = 0;
  const std::lock_guard lock(reserving);
  if (all_pools* const p = made.load(std::memory_order_relaxed)) return p;
  if (!std::has_single_bit(++asked)) return nullptr;
  all_pools* const p = reserve();
  made.store(p, std::memory_order_release);
  return p;
}

// The handlers for a fork(). A child that was forked while the pools were being made may have them
// twice, so only the first call of each does something.
constinit thread_local bool forking = false;
constinit thread_local all_pools* locked = nullptr;  // by this thread, which forks

void before_fork() noexcept {
  if (std::exchange(forking, true)) return;
  locked = made.load(std::memory_order_acquire);
  if (locked == nullptr) return;
  locked->threads_mutex.lock();
  for (pool& one : locked->of) one.mutex.lock();
}
void unlock_all() noexcept {
  if (all_pools* const p = std::exchange(locked, nullptr)) {
    for (pool& one : p->of) one.mutex.unlock();
    p->threads_mutex.unlock();
  }
}
void after_fork() noexcept {
  if (std::exchange(forking, false)) unlock_all();
}
// In the child only the calling thread exists. What the others had at hand is lost.
void after_fork_in_child() noexcept {
  if (!std::exchange(forking, false)) return;
  if (locked == nullptr) {
    // If another thread has made pools since before_fork(), it may have been using them.
    made.store(nullptr, std::memory_order_relaxed);
    return;
  }
  fiber_thread& mine = this_fiber_thread;
  locked->threads = mine.ready ? &mine : nullptr;
  mine.previous = mine.next = nullptr;
  unlock_all();
}

void* map(std::size_t bytes, int protection) noexcept {
  void* const at =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? nullptr : at;
}

all_pools* reserve() noexcept {
  auto* const p = new (std::nothrow) all_pools;
  if (p == nullptr) return nullptr;
  // Slots are found by masking addresses, so the region starts at a multiple of the largest slot.
  const std::size_t alignment = slot_size(fiber_sizes - 1);
  for (unsigned bits = most_part_bits; bits >= least_part_bits; --bits) {
    const std::size_t bytes = (std::size_t{fiber_sizes} << bits) + alignment;
    void* const at = map(bytes, PROT_NONE);
    if (at == nullptr) continue;
    // With huge pages, whole stacks would become resident at the first access.
    (void)madvise(at, bytes, MADV_NOHUGEPAGE);
    const auto start = reinterpret_cast<std::uintptr_t>(at);
    p->region = {.base = (start + alignment - 1) / alignment * alignment, .part_bits = bits};
    the_fiber_region.store(&p->region, std::memory_order_release);
    install_overflow_message();
    (void)pthread_atfork(&before_fork, &after_fork, &after_fork_in_child);
    return p;
  }
  delete p;
  return nullptr;
}

std::uintptr_t slot_end(const all_pools& p, unsigned size_class, std::uint32_t slot) noexcept {
  return p.region.base + (std::uintptr_t{size_class} << p.region.part_bits) +
         (std::uintptr_t{slot} + 1) * slot_size(size_class);
}
fiber_block* block_of(const all_pools& p, unsigned size_class, std::uint32_t slot) noexcept {
  return reinterpret_cast<fiber_block*>(slot_end(p, size_class, slot) - sizeof(fiber_block));
}
std::byte* stack_of(const all_pools& p, unsigned size_class, std::uint32_t slot) noexcept {
  return reinterpret_cast<std::byte*>(slot_end(p, size_class, slot) - fiber_stack_size(size_class));
}

void push(pool& in, std::uint32_t& list, std::uint32_t slot) noexcept {
  ASIO_PULSE_ASSERT(slot < in.made && slot != list);
  in.links[slot] = list;
  list = slot;
}
std::uint32_t pop(pool& in, std::uint32_t& list) noexcept {
  const std::uint32_t slot = list;
  if (slot != none) list = in.links[slot];
  return slot;
}

/// Whether touched() may be called on this thread. Plain Asio does not call mincore(2).
bool may_measure() noexcept { return own_seccomp_filters() == 0; }

/// How much of the stack was touched.
std::size_t touched(std::byte* stack, std::size_t size) noexcept {
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  unsigned char resident[256];
  // From the low end, since the first resident page shows the deepest use.
  for (std::size_t at = 0; at < size;) {
    const std::size_t part = std::min(size - at, page * sizeof resident);
    if (mincore(stack + at, part, resident) != 0) return 0;
    for (std::size_t n = 0; n < part / page; ++n) {
      if ((resident[n] & 1) != 0) return size - at - n * page;
    }
    at += part;
  }
  return 0;
}

// Prepares a slot that has no memory yet.
fiber_block* furnish(const all_pools& p, unsigned size_class, std::uint32_t slot,
                     bool fresh) noexcept {
  if (fresh && mprotect(stack_of(p, size_class, slot), fiber_stack_size(size_class),
                        PROT_READ | PROT_WRITE) != 0) {
    return nullptr;
  }
  auto* const b = new (block_of(p, size_class, slot)) fiber_block;
  b->slot = slot;
  b->size_class = static_cast<std::uint8_t>(size_class);
  return b;
}

fiber_block* take_from_pool(unsigned size_class) noexcept {
  all_pools* const all = pools();
  if (all == nullptr) return nullptr;
  // Pages may be larger than the smallest stacks.
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  while (fiber_stack_size(size_class) < page) ++size_class;
  pool& from = all->of[size_class];
  const std::size_t limit = (std::size_t{1} << all->region.part_bits) / slot_size(size_class);
  std::uint32_t slot;
  bool fresh = false;
  {
    const std::lock_guard lock(from.mutex);
    if (from.links == nullptr) {
      from.links =
          static_cast<std::uint32_t*>(map(limit * sizeof(std::uint32_t), PROT_READ | PROT_WRITE));
      if (from.links == nullptr) return nullptr;
    }
    slot = pop(from, from.warm);
    ASIO_PULSE_ASSERT((slot != none) == (from.warm_count != 0));
    if (slot != none) {
      --from.warm_count;
      ++from.in_use;
      ASIO_PULSE_ASSERT(from.in_use <= from.made);
      return block_of(*all, size_class, slot);
    }
    slot = pop(from, from.cold);
    if (slot == none) {
      fresh = true;
      slot = pop(from, from.bare);
    }
    if (slot == none) {
      if (from.made == limit) return nullptr;
      slot = static_cast<std::uint32_t>(from.made++);
    }
    ++from.in_use;
    ASIO_PULSE_ASSERT(from.in_use <= from.made);
  }
  if (fiber_block* const b = furnish(*all, size_class, slot, fresh)) return b;
  // The kernel gives this process no more mappings (vm.max_map_count).
  const std::lock_guard lock(from.mutex);
  --from.in_use;
  push(from, from.bare, slot);
  return nullptr;
}

void give_to_pool(fiber_block& b) noexcept {
  all_pools& all = *pools();
  const unsigned size_class = b.size_class;
  const std::uint32_t slot = b.slot;
  ASIO_PULSE_ASSERT(&b == block_of(all, size_class, slot));
  ASIO_PULSE_ASSERT(b.suspend == nullptr && b.task == nullptr && !b.unwinding);
  ASIO_PULSE_ASSERT(!b.holds(__builtin_frame_address(0)));  // this code must not run on the stack
  pool& to = all.of[size_class];
  std::size_t deepest = 0;
  if (fiber_stack_size(size_class) >= large) {
    static constinit std::atomic<std::size_t> trimmed{0};
    std::byte* const stack = stack_of(all, size_class, slot);
    if (trimmed.fetch_add(1, std::memory_order_relaxed) % measured_of == 0 && may_measure()) {
      deepest = touched(stack, fiber_stack_size(size_class));
    }
    (void)madvise(stack, fiber_stack_size(size_class) - kept_of_large, MADV_DONTNEED);
  }
  bool measured = false;
  {
    const std::lock_guard lock(to.mutex);
    ASIO_PULSE_ASSERT(to.in_use != 0);
    to.high_water = std::max(to.high_water, deepest);
    if (to.warm_count < most_idle) {
      ++to.warm_count;
      --to.in_use;
      push(to, to.warm, slot);
      return;
    }
    measured = to.dropped++ % measured_of == 0;
  }
  if (b.discard != nullptr) b.discard(b);
  std::byte* const stack = stack_of(all, size_class, slot);
  const std::size_t used =
      measured && may_measure() ? touched(stack, fiber_stack_size(size_class)) : 0;
  (void)madvise(stack, fiber_stack_size(size_class), MADV_DONTNEED);
  const std::lock_guard lock(to.mutex);
  to.high_water = std::max(to.high_water, used);
  --to.in_use;
  push(to, to.cold, slot);
}

// At the thread's end, undoes what ready_fiber_thread() did.
constinit thread_local void* signal_stack = nullptr;
constinit thread_local thread_exit_hook at_exit{[]() noexcept {
  fiber_thread& mine = this_fiber_thread;
  if (!mine.ready) return;
  mine.ready = false;
  if (fiber_block* const b = mine.at_hand.exchange(nullptr, std::memory_order_relaxed))
    give_to_pool(*b);
  all_pools& all = *pools();
  {
    const std::lock_guard lock(all.threads_mutex);
    (mine.previous != nullptr ? mine.previous->next : all.threads) = mine.next;
    if (mine.next != nullptr) mine.next->previous = mine.previous;
  }
  drop_signal_stack(std::exchange(signal_stack, nullptr));
  give_cell(std::exchange(mine.cell, 0));
}};

}  // namespace

void ready_fiber_thread() noexcept {
  fiber_thread& mine = this_fiber_thread;
  if (mine.ready) return;
  mine.exceptions = reinterpret_cast<exception_state*>(abi::__cxa_get_globals());
  mine.error_number = &errno;
  mine.locks = counted_locks();
  remember_signals();
  if (mine.cell == 0) mine.cell = take_cell();
  all_pools* const all = pools();
  // If the end of the thread would not be noticed, nothing is kept for it.
  if (all == nullptr || !at_thread_exit(at_exit)) return;
  signal_stack = make_signal_stack();
  const std::lock_guard lock(all->threads_mutex);
  mine.previous = nullptr;
  mine.next = all->threads;
  if (mine.next != nullptr) mine.next->previous = &mine;
  all->threads = &mine;
  mine.ready = true;
}

fiber_block* take_fiber_slow(unsigned size_class) noexcept {
  ready_fiber_thread();
  return take_from_pool(size_class);
}

void give_fiber_slow(fiber_block& b) noexcept {
  ready_fiber_thread();
  fiber_thread& mine = this_fiber_thread;
  if (mine.ready && mine.at_hand.load(std::memory_order_relaxed) == nullptr) {
    mine.at_hand.store(&b, std::memory_order_relaxed);
  } else {
    give_to_pool(b);
  }
}

void forget_fiber_task(fiber_block& b) noexcept {
  ASIO_PULSE_ASSERT(b.task != nullptr);
  hooks::release(*std::exchange(b.task, nullptr));
}

static std::vector<fiber_stacks> usage_of_all_pools() {
  std::vector<fiber_stacks> usage;
  if (the_fiber_region.load(std::memory_order_acquire) == nullptr) return usage;
  all_pools& all = *pools();
  std::size_t at_hand[fiber_sizes] = {};
  {
    const std::lock_guard lock(all.threads_mutex);
    for (const fiber_thread* t = all.threads; t != nullptr; t = t->next) {
      const fiber_block* const b = t->at_hand.load(std::memory_order_relaxed);
      // The size is computed from the address, since another thread may use the block by now.
      if (b != nullptr) ++at_hand[all.region.size_class(reinterpret_cast<std::uintptr_t>(b))];
    }
  }
  const bool measured = may_measure();
  for (unsigned size_class = 0; size_class < fiber_sizes; ++size_class) {
    pool& one = all.of[size_class];
    const std::lock_guard lock(one.mutex);
    if (one.made == 0) continue;
    for (std::size_t slot = 0; measured && slot < one.made; ++slot) {
      const std::size_t used = touched(stack_of(all, size_class, static_cast<std::uint32_t>(slot)),
                                       fiber_stack_size(size_class));
      one.high_water = std::max(one.high_water, used);
    }
    const std::size_t kept = std::min(at_hand[size_class], one.in_use);
    usage.push_back({.size = fiber_stack_size(size_class),
                     .in_use = one.in_use - kept,
                     .idle = one.warm_count + kept,
                     .made = one.made,
                     .high_water = one.high_water});
  }
  return usage;
}

}  // namespace detail

std::vector<fiber_stacks> fiber_stack_usage() { return detail::usage_of_all_pools(); }

}  // namespace asio_pulse
