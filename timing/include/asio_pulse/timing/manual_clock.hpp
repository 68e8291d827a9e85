// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace asio_pulse::timing {

/// A clock that a test moves by hand: wall time and CPU time apart.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe (relaxed atomics; a reader that
///                     must see both times move together meets the writer at a latch).
/// \par Resolution     A nanosecond: to_ns() of a cost gives back what was advanced.
class manual_clock {
 public:
  manual_clock() noexcept = default;
  manual_clock(const manual_clock&) = delete;
  manual_clock& operator=(const manual_clock&) = delete;

  /// Wall time passes and the thread does not run.
  void advance(std::chrono::nanoseconds by) noexcept { add(wall_ns_, by); }

  /// CPU time is consumed and wall time stands still. A lap of a manual clock is not cut to wall.
  void advance_cpu(std::chrono::nanoseconds by) noexcept { add(cpu_ns_, by); }

  /// The thread runs: both times move.
  void run(std::chrono::nanoseconds by) noexcept {
    add(wall_ns_, by);
    add(cpu_ns_, by);
  }

  /// Whether the laps that follow claim to be exact (the default).
  void set_exact(bool exact) noexcept { exact_.store(exact, std::memory_order_relaxed); }

  [[nodiscard]] ticks now() const noexcept { return timebase::get().from_ns(wall()); }
  [[nodiscard]] std::chrono::nanoseconds wall() const noexcept { return read(wall_ns_); }
  [[nodiscard]] std::chrono::nanoseconds cpu() const noexcept { return read(cpu_ns_); }
  [[nodiscard]] bool exact() const noexcept { return exact_.load(std::memory_order_relaxed); }

 private:
  using counter = std::atomic<std::int64_t>;
  static void add(counter& to, std::chrono::nanoseconds by) noexcept {
    to.fetch_add(by.count(), std::memory_order_relaxed);
  }
  static std::chrono::nanoseconds read(const counter& from) noexcept {
    return std::chrono::nanoseconds{from.load(std::memory_order_relaxed)};
  }

  // One second, not zero: "no stamp yet" and "stamped at the start" differ.
  counter wall_ns_{1'000'000'000};
  counter cpu_ns_{1'000'000'000};
  std::atomic<bool> exact_{true};
};

}  // namespace asio_pulse::timing
