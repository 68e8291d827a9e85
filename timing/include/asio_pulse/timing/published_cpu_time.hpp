// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::timing {

/// A thread's CPU time as a scheduler publishes it, for a reader on that very thread.
///
/// A seqlock. The writer, whenever the thread is switched in: makes the sequence odd, stores both
/// values, makes it even. While the sequence stands still the thread has not been switched, so
/// poll_clock needs nothing but the TSC difference; when it has moved, the CPU time is
/// run_ns + (CLOCK_MONOTONIC - run_start_ns). Zero means that nothing was ever published. A writer
/// that stops publishing leaves the sequence odd: laps are then occupancy and say so.
///
/// \par Layout         Three 64-bit words, the sequence first: fixed, shared with the kernel side.
/// \par Thread safety  One writer; any number of readers.
struct published_cpu_time {
  std::atomic<std::uint64_t> sequence{0};
  std::atomic<std::uint64_t> run_ns{0};        ///< CPU time consumed before the present run
  std::atomic<std::uint64_t> run_start_ns{0};  ///< CLOCK_MONOTONIC at the start of the present run

  /// Publishes as the kernel side does; for tests and for writers in user space.
  ///
  /// \par Memory order  The value stores are releases: a reader that sees a new value also sees the
  ///                    odd sequence stored before it, and discards what it read.
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

  /// One attempt at a consistent reading.
  ///
  /// \par Memory order  The value loads are acquires: the second look at the sequence stays behind
  ///                    them, and sees odd or newer if a value was.
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
