// SPDX-License-Identifier: BSL-1.0
#include "statistics.hpp"

#include <boost/math/distributions/binomial.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

namespace pulse_bench {

namespace {

/// How many of the least values lie outside the interval, on each side; and its coverage.
std::pair<std::size_t, double> order_statistics(std::size_t count) {
  if (count == 0) return {0, 0};
  // The number of values below the median: for each value the probability is 1/2.
  const boost::math::binomial below_median(static_cast<double>(count), 0.5);
  const auto both_sides = [&](std::size_t outside) {
    return 2 * cdf(below_median, static_cast<double>(outside));
  };
  std::size_t outside = 0;  // even the whole range has some probability on each side
  while (outside + 2 <= count / 2 && both_sides(outside + 1) <= 0.05) ++outside;
  return {outside, std::max(0.0, 1 - both_sides(outside))};
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) throw std::invalid_argument("the median of nothing");
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double quantile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) throw std::invalid_argument("a quantile of nothing");
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  const auto index = static_cast<std::size_t>(std::max(rank, 1.0)) - 1;
  return sorted[std::min(index, sorted.size() - 1)];
}

interval median_interval(std::vector<double> values) {
  const double middle = median(values);
  std::sort(values.begin(), values.end());
  const std::size_t outside = order_statistics(values.size()).first;
  return {middle, values[outside], values[values.size() - 1 - outside]};
}

double coverage(std::size_t count) { return order_statistics(count).second; }

double mann_whitney(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.empty() || b.empty()) return 1;
  std::vector<double> all(a);
  all.insert(all.end(), b.begin(), b.end());
  std::sort(all.begin(), all.end());
  // Twice the rank, for equal values share the mean of theirs and that may be a half.
  const auto twice_rank = [&all](double value) {
    const auto [first, last] = std::equal_range(all.begin(), all.end(), value);
    return static_cast<std::size_t>((first - all.begin()) + (last - all.begin()) + 1);
  };
  std::size_t observed = 0;
  for (const double value : a) observed += twice_rank(value);
  const std::size_t total = all.size();
  if (total > 100) {
    const auto n = static_cast<double>(a.size());
    const auto m = static_cast<double>(b.size());
    double ties = 0;
    std::map<double, double> groups;
    for (const double value : all) ++groups[value];
    for (const auto& [value, size] : groups) ties += size * size * size - size;
    const double sum = n + m;
    const double variance = n * m / 12 * (sum + 1 - ties / (sum * (sum - 1)));
    if (variance <= 0) return 1;
    const double distance = std::abs(static_cast<double>(observed) / 2 - n * (sum + 1) / 2) - 0.5;
    return std::min(1.0, std::erfc(std::max(0.0, distance) / std::sqrt(2 * variance)));
  }
  // How many ways there are to choose a.size() of the values with each sum of ranks.
  const std::size_t most = total * (total + 1);
  std::vector<std::vector<double>> ways(a.size() + 1, std::vector<double>(most + 1));
  ways[0][0] = 1;
  for (const double value : all) {
    const std::size_t rank = twice_rank(value);
    for (std::size_t chosen = a.size(); chosen > 0; --chosen) {
      for (std::size_t sum = most; sum >= rank; --sum) {
        ways[chosen][sum] += ways[chosen - 1][sum - rank];
      }
    }
  }
  double low = 0;
  double high = 0;
  double every = 0;
  for (std::size_t sum = 0; sum <= most; ++sum) {
    const double count = ways[a.size()][sum];
    every += count;
    if (sum <= observed) low += count;
    if (sum >= observed) high += count;
  }
  return std::min(1.0, 2 * std::min(low, high) / every);
}

std::vector<std::pair<double, std::size_t>> buckets(const std::vector<double>& values) {
  constexpr double least = 1e-6;  // a thousandth of the resolution of any clock here, in ms or us
  const double width = std::log(1.01);
  std::map<long, std::size_t> counts;
  for (const double value : values) {
    ++counts[value <= least ? 0 : static_cast<long>(std::ceil(std::log(value / least) / width))];
  }
  std::vector<std::pair<double, std::size_t>> result;
  for (const auto& [index, count] : counts) {
    result.emplace_back(least * std::exp(width * static_cast<double>(index)), count);
  }
  return result;
}

}  // namespace pulse_bench
