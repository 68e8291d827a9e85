// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace asio_pulse::detail {

/// If a poll seems to overlap the next one by no more than this, the clocks differ; otherwise the
/// next one is inside it. A guess: more than two readings of the clock take, and less than a nested
/// run function takes.
inline constexpr std::chrono::nanoseconds clocks_differ = std::chrono::microseconds{1};

/// About 36 years. Only a forged recording has longer ones, and the sum of two is still in range.
inline constexpr std::chrono::nanoseconds latest_end{std::int64_t{1} << 60};

struct slice {
  std::chrono::nanoseconds start{0};
  std::chrono::nanoseconds end{0};
  bool inner = false;  ///< inside another one; set by fit()
};

/// Makes inner slices lie within the outer ones. With `costs_exclude_inner` the lengths of the
/// inner ones are added to that of the outer one, because a poll's cost does not include that of
/// polls inside it. Otherwise the outer one ends with the last inner one. The slices must be in the
/// order of their start.
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
