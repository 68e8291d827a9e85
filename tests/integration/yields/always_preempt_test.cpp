// SPDX-License-Identifier: BSL-1.0

// The switch for tests exists only in builds that enable it, and is set by the environment.

#include <support/scenario.hpp>

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

namespace {

using namespace pulse_test;

bool asked_for() {
#if defined(ASIO_PULSE_TESTABLE_PREEMPTION) && ASIO_PULSE_TESTABLE_PREEMPTION
  const char* const value = std::getenv("ASIO_PULSE_ALWAYS_PREEMPT");
  return value != nullptr && std::string_view(value) == "1";
#else
  return false;
#endif
}

TEST(always_preempt, is_as_the_environment_says) { EXPECT_EQ(always_preempt(), asked_for()); }

TEST(always_preempt, parks_each_operation_once_before_it_runs) {
  asio_pulse::io_context io(steady());
  const asio_pulse::task t(io, unlimited("t"));
  int ran = 0;
  for (int i = 0; i < 10; ++i) asio_pulse::post(t, [&] { ++ran; });
  EXPECT_EQ(io.run(), 10U);
  EXPECT_EQ(ran, 10);
  EXPECT_EQ(io.stats().yields, asked_for() ? 10U : 0U);
}

TEST(always_preempt, every_checkpoint_yields) {
  asio_pulse::io_context io(steady());
  const asio_pulse::task t(io, unlimited("t"));
  bool wanted = false;
  asio_pulse::post(t, [&] { wanted = asio_pulse::should_yield(); });
  io.run();
  EXPECT_EQ(wanted, asked_for());
}

}  // namespace
