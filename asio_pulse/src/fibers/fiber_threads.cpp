// SPDX-License-Identifier: BSL-1.0
//
// What a fiber and its thread have to do with each other, for automatic checkpoints: the locks that
// are held, the signals that are blocked, and which thread has to resume a fiber.
#include "fiber_threads.hpp"

#include "threads/lock_count.h"

#include <asio_pulse/detail/fiber_stack.hpp>

#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstring>

// Weak: asio_pulse::lock_count replaces them.
extern "C" {
__attribute__((
    weak, visibility("default"))) constinit __thread asio_pulse_held_locks asio_pulse_locks_held = {
    0, 0};
__attribute__((weak, visibility("default"))) constinit __thread const void* asio_pulse_lock_taken =
    nullptr;
__attribute__((weak, visibility("default"))) int asio_pulse_locks_are_counted = 0;
}

namespace asio_pulse::detail {
namespace {

// Threads that run handlers on fibers at a time; those without a cell are not suspended by automatic
// checkpoints while several threads run their context. 16 KiB.
constexpr std::uint32_t most_cells = 2048;

struct cell {
  std::atomic<bool> taken{false};
  /// Grows when the thread leaves a run function, and when it ends.
  std::atomic<std::uint32_t> stay{0};
};
constinit std::array<cell, most_cells> cells{};

}  // namespace

asio_pulse_held_locks* counted_locks() noexcept { return &asio_pulse_locks_held; }

std::uint32_t take_cell() noexcept {
  for (std::uint32_t n = 1; n < most_cells; ++n) {
    bool taken = false;
    if (!cells[n].taken.load(std::memory_order_relaxed) &&
        cells[n].taken.compare_exchange_strong(taken, true, std::memory_order_relaxed)) {
      return n;
    }
  }
  return 0;
}

void give_cell(std::uint32_t number) noexcept {
  if (number == 0) return;
  cells[number].stay.fetch_add(1, std::memory_order_relaxed);
  cells[number].taken.store(false, std::memory_order_relaxed);
}

thread_pin pin_here() noexcept {
  const std::uint32_t number = this_fiber_thread.cell;
  // Relaxed: nothing is published by it. Others change it only when this thread rests, whose pins hold
  // no handler then.
  return {.number = number,
          .stay = number == 0 ? 0 : cells[number].stay.load(std::memory_order_relaxed)};
}

bool pinned_elsewhere(const thread_pin& pin) noexcept {
  if (pin.number == 0 || pin.number == this_fiber_thread.cell) return false;
  // Relaxed: an old value sends the fiber on once more. What the fiber has written comes with the
  // operation that resumes it.
  return cells[pin.number].stay.load(std::memory_order_relaxed) == pin.stay;
}

void unpin_this_thread() noexcept {
  const std::uint32_t number = this_fiber_thread.cell;
  // Relaxed: see pinned_elsewhere().
  if (number != 0) cells[number].stay.fetch_add(1, std::memory_order_relaxed);
}

void unpin_thread(const thread_pin& pin) noexcept {
  if (pin.number == 0) return;
  // Relaxed, as above. If the value is another one, the thread has gone elsewhere, where it may have new
  // pins, or another thread has the cell.
  std::uint32_t stay = pin.stay;
  cells[pin.number].stay.compare_exchange_strong(stay, stay + 1, std::memory_order_relaxed);
}

std::uint64_t blocked_signals() noexcept {
  sigset_t set;
  std::uint64_t signals = 0;
  static_assert(sizeof set >= sizeof signals);
  if (pthread_sigmask(SIG_BLOCK, nullptr, &set) == 0) std::memcpy(&signals, &set, sizeof signals);
  return signals;
}

void remember_signals() noexcept {
  this_fiber_thread.signals = blocked_signals();
  this_fiber_thread.signals_differed = false;
}

}  // namespace asio_pulse::detail
