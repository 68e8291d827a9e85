// SPDX-License-Identifier: BSL-1.0
#include "compare.hpp"

#include "documents.hpp"
#include "table.hpp"

#include <gmock/gmock.h>

namespace pulse_bench {
namespace {

using ::testing::HasSubstr;

const std::vector<double> base{10.0, 10.1, 9.9, 10.2, 9.8, 10.05};
const std::vector<double> slower{12.0, 12.1, 11.9, 12.2, 11.8, 12.05};
const std::vector<double> mixed{12.0, 9.7, 12.3, 9.95, 12.5, 12.2};

const difference& of_arm(const comparison& c, const std::string& arm) {
  for (const auto& d : c.differences) {
    if (d.arm == arm) return d;
  }
  throw std::logic_error("no such arm");
}

TEST(bench_compare, equal_results_are_no_regression) {
  const auto a = sample_document(base, base);
  const comparison c = compare(a, a, 10);
  EXPECT_FALSE(c.regression);
  EXPECT_EQ(c.differences.size(), 2U);
  EXPECT_EQ(of_arm(c, "pulse").is, verdict::same);
  EXPECT_TRUE(c.warnings.empty());
}

TEST(bench_compare, a_clear_slowdown_past_the_limit_is_a_regression) {
  const comparison c = compare(sample_document(base, base), sample_document(base, slower), 10);
  EXPECT_TRUE(c.regression);
  EXPECT_EQ(of_arm(c, "pulse").is, verdict::worse);
  EXPECT_NEAR(of_arm(c, "pulse").change, 20, 1);
  EXPECT_LT(of_arm(c, "pulse").p_value, 0.01);
  EXPECT_EQ(of_arm(c, "stock").is, verdict::same);
  EXPECT_THAT(table(c, 10), HasSubstr("WORSE"));
}

TEST(bench_compare, within_the_limit_it_is_none) {
  EXPECT_FALSE(compare(sample_document(base, base), sample_document(base, slower), 30).regression);
}

TEST(bench_compare, which_way_is_better_is_the_metric_s) {
  const auto a = sample_document(base, base, "higher");
  const auto b = sample_document(base, slower, "higher");
  EXPECT_EQ(of_arm(compare(a, b, 10), "pulse").is, verdict::better);
  EXPECT_TRUE(compare(b, a, 10).regression);
}

TEST(bench_compare, a_difference_that_may_be_chance_is_no_regression) {
  const comparison c = compare(sample_document(base, base), sample_document(base, mixed), 10);
  EXPECT_GT(of_arm(c, "pulse").change, 10);
  EXPECT_GT(of_arm(c, "pulse").p_value, 0.01);
  EXPECT_FALSE(c.regression);
}

TEST(bench_compare, plain_asio_that_got_slower_is_the_machine_s_doing) {
  const comparison c = compare(sample_document(base, base), sample_document(slower, base), 10);
  EXPECT_EQ(of_arm(c, "stock").is, verdict::worse);
  EXPECT_FALSE(c.regression);
  EXPECT_THAT(table(c, 10), HasSubstr("drift"));
}

TEST(bench_compare, too_few_repetitions_are_called_so) {
  const comparison c = compare(sample_document({1, 1.1, 1.2}, {1, 1.1, 1.2}),
                               sample_document({1, 1.1, 1.2}, {2, 2.1, 2.2}), 10);
  EXPECT_EQ(of_arm(c, "pulse").is, verdict::undecided);
  EXPECT_FALSE(c.regression);
  EXPECT_THAT(table(c, 10), HasSubstr("too few repetitions"));
}

TEST(bench_compare, what_only_one_has_and_other_machines_are_told) {
  auto a = sample_document(base, base);
  auto b = sample_document(base, base);
  a.at("machine").at("kernel") = "5.10";
  b.at("machine").at("noisy") = true;
  b.at("scenarios")
      .at(0)
      .at("variants")
      .at(0)
      .at("metrics")
      .at(0)
      .at("arms")
      .as_object()
      .erase("stock");
  const std::string text = table(compare(a, b, 10), 10);
  EXPECT_THAT(text, HasSubstr("kernel"));
  EXPECT_THAT(text, HasSubstr("the second was measured on a noisy machine"));
  EXPECT_THAT(text, HasSubstr("only the first has 1"));
}

}  // namespace
}  // namespace pulse_bench
