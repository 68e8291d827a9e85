// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/statistics.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::detail {

/// The counters of a context: one cell for each row of statistic_table. A counter is named by its
/// member of statistics:
///
///     counters.add<&statistics::strand_breaks>();
///
/// \par Cost           One relaxed addition. The index of the cell is computed at compile time.
/// \par Thread safety  Any thread.
/// \par Memory order   Relaxed: the counters are independent of each other, and read() is not a
///                     consistent snapshot of them.
class counters {
 public:
  template <std::uint64_t statistics::*Member>
  void add(std::uint64_t n = 1) noexcept {
    cells_[row_of<Member>()].fetch_add(n, std::memory_order_relaxed);
  }
  /// For gauges only.
  template <std::uint64_t statistics::*Member>
  void subtract(std::uint64_t n = 1) noexcept {
    static_assert(statistic_table[row_of<Member>()].what == statistic::kind::gauge);
    cells_[row_of<Member>()].fetch_sub(n, std::memory_order_relaxed);
  }

  /// All counters. The members that context_core::stats() computes are zero.
  [[nodiscard]] statistics read() const noexcept {
    statistics s;
    for (std::size_t i = 0; i < statistic_table.size(); ++i) {
      const statistic& row = statistic_table[i];
      if (row.count != nullptr) s.*row.count = cells_[i].load(std::memory_order_relaxed);
    }
    return s;
  }

 private:
  template <std::uint64_t statistics::*Member>
  static consteval std::size_t row_of() {
    constexpr std::size_t row = [] {
      std::size_t i = 0;
      while (i < statistic_table.size() && statistic_table[i].count != Member) ++i;
      return i;
    }();
    static_assert(row < statistic_table.size(), "the member has no row in statistic_table");
    return row;
  }

  std::array<std::atomic<std::uint64_t>, statistic_table.size()> cells_{};
};

}  // namespace asio_pulse::detail
