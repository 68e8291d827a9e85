// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/assert.hpp>

#include <gtest/gtest.h>

namespace {

TEST(assertions, what_holds_is_evaluated_once_where_they_are_on) {
  int evaluated = 0;
  ASIO_PULSE_ASSERT(++evaluated > 0);
#if defined(ASIO_PULSE_ASSERTIONS) && ASIO_PULSE_ASSERTIONS
  EXPECT_EQ(evaluated, 1);
#else
  EXPECT_EQ(evaluated, 0) << "the condition is not evaluated if assertions are off";
#endif
}

#if defined(ASIO_PULSE_ASSERTIONS) && ASIO_PULSE_ASSERTIONS
TEST(assertions_death, what_does_not_hold_is_named_and_aborts) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto pair = [](int a, int b) { return a == b; };
  EXPECT_DEATH(ASIO_PULSE_ASSERT(pair(1, 2)),
               "asio_pulse: assertion failed: pair\\(1, 2\\), in .* at .*assert_test.cpp:[0-9]+\n");
}
#endif

}  // namespace
