// SPDX-License-Identifier: BSL-1.0
//
// Statistics of a few repetitions, and of many samples. Pure functions.

#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace pulse_bench {

/// A median with a confidence interval around it.
struct interval {
  double median = 0;
  double low = 0;
  double high = 0;
  friend bool operator==(const interval&, const interval&) = default;
};

double median(std::vector<double> values);

/// The value that a share of \p sorted does not exceed: the nearest rank. \p share is in [0, 1].
double quantile(const std::vector<double>& sorted, double share);

/// The median with its 95 % confidence interval by order statistics, which assumes nothing about
/// the distribution. Below six values no such interval exists: then low and high are the range, and
/// coverage() says how little that is.
interval median_interval(std::vector<double> values);

/// The probability that median_interval() of this many values contains the true median.
double coverage(std::size_t count);

/// The two-sided p value of the Mann-Whitney U test: exact, ties included, up to 100 values in all,
/// else by the normal approximation. 1 if either is empty.
double mann_whitney(const std::vector<double>& a, const std::vector<double>& b);

/// Counts of samples in buckets 1 % wide: [upper bound, count], ascending, none empty.
std::vector<std::pair<double, std::size_t>> buckets(const std::vector<double>& values);

}  // namespace pulse_bench
