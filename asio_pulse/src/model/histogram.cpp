// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/metrics.hpp>

#include <algorithm>

namespace asio_pulse {

std::chrono::nanoseconds histogram::quantile(double q) const noexcept {
  if (buckets.empty() || count == 0) return {};
  const double wanted = std::clamp(q, 0.0, 1.0) * static_cast<double>(count);
  std::uint64_t below = 0;
  for (const bucket& b : buckets) {
    below += b.count;
    if (static_cast<double>(below) >= wanted) return b.upper;
  }
  return buckets.back().upper;
}

std::uint64_t histogram::at_most(std::chrono::nanoseconds limit) const noexcept {
  std::uint64_t below = 0;
  for (const bucket& b : buckets) {
    // A bucket is at most an eighth of its end wide, which gives the earliest possible beginning.
    if (b.upper > limit && b.upper - b.upper / 8 >= limit) break;
    below += b.count;
  }
  return below;
}

histogram difference(const histogram& later, const histogram& earlier) {
  histogram d;
  auto before = earlier.buckets.begin();
  for (const histogram::bucket& b : later.buckets) {
    while (before != earlier.buckets.end() && before->upper < b.upper) ++before;
    const bool there = before != earlier.buckets.end() && before->upper == b.upper;
    const std::uint64_t had = there && before->count <= b.count ? before->count : 0;
    if (b.count == had) continue;
    d.buckets.push_back({b.upper, b.count - had});
    d.count += b.count - had;
  }
  d.sum = later.sum >= earlier.sum ? later.sum - earlier.sum : later.sum;
  return d;
}

}  // namespace asio_pulse
