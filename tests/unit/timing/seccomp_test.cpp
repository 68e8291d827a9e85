// SPDX-License-Identifier: BSL-1.0
#include "../../../timing/src/seccomp.hpp"
//
#include <gtest/gtest.h>

namespace {

using asio_pulse::detail::names_filter;

TEST(seccomp, a_status_file_names_a_filter_if_its_mode_is_not_zero) {
  EXPECT_FALSE(names_filter("Name:\tserver\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
  EXPECT_TRUE(names_filter("Name:\tserver\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
  EXPECT_TRUE(names_filter("Name:\tserver\nSeccomp:\t1\n"));
}

TEST(seccomp, a_kernel_without_seccomp_has_no_filters) {
  EXPECT_FALSE(
      names_filter("Name:\tserver\nNoNewPrivs:\t0\nSpeculation_Store_Bypass:\tvulnerable\n"));
}

}  // namespace
