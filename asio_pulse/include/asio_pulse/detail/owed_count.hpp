// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::detail {

/// Turns of the scheduler that spares took, for the callers' counts.
///
/// \par Thread safety  All members, from any thread.
/// \par Memory order   Relaxed: the last caller to leave must see everything, and it has waited for
///                     the spares under their mutex; what another caller takes is as good as what
///                     it leaves.
class owed_count {
 public:
  /// A turn: `ran` handlers, and `none` to be subtracted as io_context::net() does.
  void add(std::size_t ran, std::size_t none) noexcept {
    const auto net = static_cast<std::int64_t>(ran) - static_cast<std::int64_t>(none);
    if (net != 0) owed_.fetch_add(net, std::memory_order_relaxed);
  }
  /// `n` and what is owed, which is owed no more. Where more is to be subtracted than was added,
  /// the rest stays.
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
