// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace asio_pulse::detail {

/// Where a poll seems to run this much into the next one, two clocks differ; more is a poll inside
/// a poll. A guess, above what two readings of the clock take and below what a nested run does.
inline constexpr std::chrono::nanoseconds clocks_differ = std::chrono::microseconds{1};

/// Centuries: only a forged recording comes near, and sums of two stay in range.
inline constexpr std::chrono::nanoseconds latest_end{std::int64_t{1} << 60};

struct slice {
  std::chrono::nanoseconds start{0};
  std::chrono::nanoseconds end{0};
  bool inner = false;  ///< inside another one; set by fit()
};

/// What is inside one another must not stick out: with `costs_exclude_inner` the lengths of inner
/// ones are added to the outer one's (a poll's cost leaves out what polls inside it have cost),
/// else the outer one ends with the last of them. Slices come in the order of start.
inline void fit(std::vector<slice>& slices, bool costs_exclude_inner) {
  std::vector<std::size_t> open;
  const auto close = [&] {
    const slice inner = slices[open.back()];
    open.pop_back();
    if (open.empty()) return;
    std::chrono::nanoseconds& end = slices[open.back()].end;
    end = costs_exclude_inner ? std::min(end + (inner.end - inner.start), latest_end)
                              : std::max(end, inner.end);
  };
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const std::chrono::nanoseconds start = slices[i].start;
    while (!open.empty() && slices[open.back()].end <= start + clocks_differ) {
      slice& last = slices[open.back()];
      last.end = std::min(last.end, std::max(start, last.start));
      close();
    }
    slices[i].inner = !open.empty();
    open.push_back(i);
  }
  while (!open.empty()) close();
}

}  // namespace asio_pulse::detail
