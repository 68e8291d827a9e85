// SPDX-License-Identifier: BSL-1.0
#include "statistics.hpp"

#include <gmock/gmock.h>

#include <numeric>
#include <stdexcept>

namespace pulse_bench {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pair;

std::vector<double> up_to(int count) {
  std::vector<double> values(static_cast<std::size_t>(count));
  std::iota(values.rbegin(), values.rend(), 1.0);  // not sorted
  return values;
}

TEST(bench_statistics, median_of_even_and_odd_counts) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_THROW(median({}), std::invalid_argument);
}

TEST(bench_statistics, quantile_is_the_nearest_rank) {
  const std::vector<double> ten{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  EXPECT_EQ(quantile(ten, 0), 1);
  EXPECT_EQ(quantile(ten, 0.5), 5);
  EXPECT_EQ(quantile(ten, 0.51), 6);
  EXPECT_EQ(quantile(ten, 0.99), 10);
  EXPECT_EQ(quantile(ten, 1), 10);
  EXPECT_THROW(quantile({}, 0.5), std::invalid_argument);
}

// The ranks of the textbooks' table for 95 %: 6 and 8 values: the range; 9: 2nd and 8th; 20: 6th
// and 15th.
TEST(bench_statistics, interval_by_order_statistics) {
  EXPECT_EQ(median_interval(up_to(6)), (interval{3.5, 1, 6}));
  EXPECT_EQ(median_interval(up_to(8)), (interval{4.5, 1, 8}));
  EXPECT_EQ(median_interval(up_to(9)), (interval{5, 2, 8}));
  EXPECT_EQ(median_interval(up_to(20)), (interval{10.5, 6, 15}));
  EXPECT_NEAR(coverage(6), 0.96875, 1e-9);
  EXPECT_NEAR(coverage(9), 0.9609375, 1e-9);
}

TEST(bench_statistics, below_six_values_the_range_and_its_small_coverage) {
  EXPECT_EQ(median_interval({2}), (interval{2, 2, 2}));
  EXPECT_EQ(median_interval({3, 1, 2}), (interval{2, 1, 3}));
  EXPECT_NEAR(coverage(3), 0.75, 1e-9);
  EXPECT_NEAR(coverage(5), 0.9375, 1e-9);
  EXPECT_EQ(coverage(1), 0);
}

// Exact: of the C(6,3) = 20 ways one is as far out on each side.
TEST(bench_statistics, mann_whitney_of_small_samples_is_exact) {
  EXPECT_NEAR(mann_whitney({1, 2, 3}, {4, 5, 6}), 0.1, 1e-9);
  EXPECT_NEAR(mann_whitney({4, 5, 6}, {1, 2, 3}), 0.1, 1e-9);
  // U = 2 of 4 x 5: 4 of the 126 ways have U <= 2, so 2 * 4 / 126.
  EXPECT_NEAR(mann_whitney({1, 2, 3, 6}, {4, 5, 7, 8, 9}), 8.0 / 126, 1e-9);
  EXPECT_EQ(mann_whitney({1, 1, 1}, {1, 1, 1}), 1);
  EXPECT_EQ(mann_whitney({}, {1}), 1);
}

TEST(bench_statistics, mann_whitney_of_large_samples_agrees_with_the_exact_one) {
  // 50 and 50 are exact, 51 and 51 are not; the same shift.
  const auto shifted = [](int count, double by) {
    std::vector<double> values;
    for (int n = 0; n < count; ++n) values.push_back(n + by);
    return values;
  };
  const double exact = mann_whitney(shifted(50, 0), shifted(50, 10.5));
  const double normal = mann_whitney(shifted(51, 0), shifted(51, 10.5));
  EXPECT_LT(exact, 0.05);
  EXPECT_NEAR(normal, exact, 0.003);
  EXPECT_NEAR(mann_whitney(shifted(60, 0), shifted(60, 0)), 1, 1e-9);
}

TEST(bench_statistics, buckets_are_exact_to_one_percent) {
  const std::vector<double> values{0, 1, 1.001, 5, 5000};
  std::size_t counted = 0;
  double before = -1;
  for (const auto& [upper, count] : buckets(values)) {
    EXPECT_GT(upper, before);
    before = upper;
    counted += count;
  }
  EXPECT_EQ(counted, values.size());
  EXPECT_THAT(buckets({5}), ElementsAre(Pair(DoubleNear(5.025, 0.026), 1U)));
}

}  // namespace
}  // namespace pulse_bench
