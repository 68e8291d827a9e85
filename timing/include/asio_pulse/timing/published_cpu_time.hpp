// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::timing {

/// A thread's CPU time as a scheduler publishes it, for a reader on the same thread.
///
/// It is a seqlock. Whenever the thread is switched in, the writer makes the sequence odd, stores
/// both values, and makes the sequence even again. While the sequence does not change, the thread
/// has not been switched, and poll_clock only needs the TSC difference. If it has changed, the CPU
/// time is run_ns + (CLOCK_MONOTONIC - run_start_ns). Zero means that nothing was ever published. A
/// writer that stops publishing leaves the sequence odd; laps are then inexact (occupancy).
///
/// \par Layout         Three 64-bit words, the sequence first. It is fixed, because the scheduler
///                     in the kernel uses it as well.
/// \par Thread safety  One writer; any number of readers.
struct published_cpu_time {
  std::atomic<std::uint64_t> sequence{0};
  std::atomic<std::uint64_t> run_ns{0};        ///< CPU time consumed before the current run
  std::atomic<std::uint64_t> run_start_ns{0};  ///< CLOCK_MONOTONIC at the start of the current run

  /// Publishes values as the scheduler in the kernel does; for tests and for writers in user space.
  ///
  /// \par Memory order  The values are stored with release: a reader that sees a new value also
  ///                    sees the odd sequence that was stored before, and discards what it has
  ///                    read.
  void publish(std::uint64_t run, std::uint64_t run_start) noexcept {
    const std::uint64_t before = sequence.load(std::memory_order_relaxed) & ~std::uint64_t{1};
    sequence.store(before + 1, std::memory_order_relaxed);
    run_ns.store(run, std::memory_order_release);
    run_start_ns.store(run_start, std::memory_order_release);
    sequence.store(before + 2, std::memory_order_release);
  }

  struct snapshot {
    std::uint64_t sequence = 0;
    std::uint64_t run_ns = 0;
    std::uint64_t run_start_ns = 0;
    bool consistent = false;
  };

  /// Tries once to read consistent values.
  ///
  /// \par Memory order  The values are loaded with acquire, so that the sequence is read again
  ///                    after them. It is odd or newer if one of the values is new.
  [[nodiscard]] snapshot try_read() const noexcept {
    snapshot result;
    result.sequence = sequence.load(std::memory_order_acquire);
    result.run_ns = run_ns.load(std::memory_order_acquire);
    result.run_start_ns = run_start_ns.load(std::memory_order_acquire);
    result.consistent = result.sequence != 0 && (result.sequence & 1U) == 0 &&
                        sequence.load(std::memory_order_relaxed) == result.sequence;
    return result;
  }
};

static_assert(sizeof(published_cpu_time) == 24);
static_assert(offsetof(published_cpu_time, sequence) == 0);
static_assert(offsetof(published_cpu_time, run_ns) == 8);
static_assert(offsetof(published_cpu_time, run_start_ns) == 16);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace asio_pulse::timing
