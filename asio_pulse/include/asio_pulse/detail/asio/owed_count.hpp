// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::detail {

/// Counts the handlers that spares have run, to be added to what the callers' run functions return.
///
/// \par Thread safety  All members may be called from any thread.
/// \par Memory order   Relaxed: only the last caller that leaves must see everything, and it has
///                     waited for the spares under their mutex. It does not matter how much each of
///                     the other callers takes.
class owed_count {
 public:
  /// Adds a turn with `ran` handlers, of which `none` are subtracted as io_context::net() does.
  void add(std::size_t ran, std::size_t none) noexcept {
    const auto net = static_cast<std::int64_t>(ran) - static_cast<std::int64_t>(none);
    if (net != 0) owed_.fetch_add(net, std::memory_order_relaxed);
  }
  /// Takes what is owed, and returns the sum of it and `n`. If more has to be subtracted than was
  /// added, the rest stays.
  [[nodiscard]] std::size_t added_to(std::size_t n) noexcept {
    const std::int64_t sum =
        static_cast<std::int64_t>(n) + owed_.exchange(0, std::memory_order_relaxed);
    if (sum >= 0) return static_cast<std::size_t>(sum);
    owed_.fetch_add(sum, std::memory_order_relaxed);
    return 0;
  }

 private:
  std::atomic<std::int64_t> owed_{0};
};

}  // namespace asio_pulse::detail
