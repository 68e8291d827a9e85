// SPDX-License-Identifier: BSL-1.0
#include "../../../timing/src/perf_page.hpp"
//
#include <gtest/gtest.h>

#include <cstdint>

namespace {

using namespace asio_pulse::detail;

TEST(perf_page, conversion_follows_the_kernels_formula) {
  static_assert(perf_cpu_ns({.enabled_ns = 7, .offset_ns = 5, .multiplier = 1, .shift = 0}, 100) ==
                112);
  // 2.6 GHz: multiplier / 2^shift = 1 / 2.6
  const perf_times times{1'000, 0, 1'651'910'498U, 32};
  EXPECT_EQ(perf_cpu_ns(times, 0), 1'000U);
  EXPECT_NEAR(static_cast<double>(perf_cpu_ns(times, 2'600'000'000U)), 1e9 + 1'000, 2);
  // A counter that has run for years neither overflows nor loses precision.
  const std::uint64_t year = std::uint64_t{2'600'000'000U} * 86'400U * 365U;
  EXPECT_NEAR(static_cast<double>(perf_cpu_ns(times, year + 2'600'000U) - perf_cpu_ns(times, year)),
              1e6, 2);
}

TEST(perf_page, an_offset_below_zero_wraps_as_the_kernel_means_it) {
  const perf_times times{500, static_cast<std::uint64_t>(-300), 1, 0};
  EXPECT_EQ(perf_cpu_ns(times, 100), 300U);
}

TEST(perf_page, opens_or_says_what_is_missing) {
  const char* const missing = open_perf_page();
  if (missing != nullptr) {
    EXPECT_STRNE(missing, "");
    EXPECT_FALSE(read_perf_page().ok);
    GTEST_SKIP() << missing;
  }
  const auto first = read_perf_page();
  const auto second = read_perf_page();
  ASSERT_TRUE(first.ok && second.ok);
  EXPECT_LE(first.cpu_ns, second.cpu_ns);
}

}  // namespace
