// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>

namespace asio_pulse::timing {

/// A clock for tests, which advance wall time and CPU time separately.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe. The atomics are relaxed: a
///                     reader that must see both times change together has to synchronise with the
///                     writer, for example with a latch.
/// \par Resolution     A nanosecond: to_ns() of a cost is exactly what was advanced.
class manual_clock {
 public:
  manual_clock() noexcept = default;
  manual_clock(const manual_clock&) = delete;
  manual_clock& operator=(const manual_clock&) = delete;

  /// Wall time passes and the thread does not run.
  void advance(std::chrono::nanoseconds by) noexcept { add(wall_ns_, by); }

  /// CPU time is consumed and wall time stands still. The cost of a lap of a manual clock may
  /// exceed the wall time.
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

  // One second and not zero, so that a stamp at the start differs from no stamp.
  counter wall_ns_{1'000'000'000};
  counter cpu_ns_{1'000'000'000};
  std::atomic<bool> exact_{true};
};

}  // namespace asio_pulse::timing
