// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {

/// The CPU time that a group has used.
///
/// \par Thread safety  add_alone() is called by one thread at a time, such as the only worker of a
///                     context; it is no locked instruction. Any thread may call the others.
/// \par Memory order   Relaxed: it publishes nothing. A thread that takes over add_alone() has synchronised
///                     with the previous one (context_core::leave()).
class group_cost {
 public:
  void add_alone(timing::ticks cost) noexcept {
    alone_.store(alone_.load(std::memory_order_relaxed) + cost, std::memory_order_relaxed);
  }
  void add(timing::ticks cost) noexcept { others_.fetch_add(cost, std::memory_order_relaxed); }
  /// It never shrinks for one reader.
  [[nodiscard]] std::uint64_t load() const noexcept {
    return alone_.load(std::memory_order_relaxed) + others_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> alone_{0};
  std::atomic<std::uint64_t> others_{0};
};

}  // namespace asio_pulse::detail
