// SPDX-License-Identifier: BSL-1.0

#include "hint_watch.hpp"
//
#include <gtest/gtest.h>

namespace {

using asio_pulse::determinism;
using asio_pulse::detail::hint_watch;
using asio_pulse::detail::tightened_quantum;

constexpr hint_watch::ticks calm = 100;

hint_watch started(std::uint64_t sequence = 0, std::uint32_t lost = 0) {
  hint_watch w(calm);
  w.start(sequence, lost);
  return w;
}

TEST(hint_watch, without_hints_pressure_and_time_change_nothing) {
  hint_watch w = started();
  for (hint_watch::ticks now = 0; now < 10'000; now += 37) {
    const auto o = w.look({.now = now, .pressure = 100});
    EXPECT_FALSE(o.hint);
    EXPECT_EQ(o.mode, determinism::deterministic);
    EXPECT_EQ(o.pressure, 0U);
    EXPECT_EQ(o.lost, 0U);
  }
}

TEST(hint_watch, what_came_before_the_start_is_no_hint) {
  hint_watch w = started(41, 7);
  const auto o = w.look({.now = 1, .sequence = 41, .lost = 7});
  EXPECT_FALSE(o.hint);
  EXPECT_EQ(o.mode, determinism::deterministic);
}

TEST(hint_watch, a_hint_is_told_once_and_presses_until_it_has_been_calm) {
  hint_watch w = started();
  const auto first = w.look({.now = 1000, .sequence = 1, .pressure = 30});
  EXPECT_TRUE(first.hint);
  EXPECT_EQ(first.mode, determinism::pressured);
  EXPECT_EQ(first.pressure, 30U);
  const auto second = w.look({.now = 1000 + calm - 1, .sequence = 1, .pressure = 40});
  EXPECT_FALSE(second.hint);
  EXPECT_EQ(second.mode, determinism::pressured);
  EXPECT_EQ(second.pressure, 40U);
  const auto over = w.look({.now = 1000 + calm, .sequence = 1, .pressure = 40});
  EXPECT_EQ(over.mode, determinism::deterministic);
  EXPECT_EQ(over.pressure, 0U);
}

TEST(hint_watch, each_hint_begins_the_calm_anew) {
  hint_watch w = started();
  for (std::uint64_t n = 1; n <= 10; ++n) {
    EXPECT_EQ(w.look({.now = n * (calm - 1), .sequence = n}).mode, determinism::pressured);
  }
}

TEST(hint_watch, lost_hints_make_defensive_and_back) {
  hint_watch w = started(5, 10);
  const auto lost = w.look({.now = 1000, .sequence = 6, .lost = 12, .pressure = 3});
  EXPECT_TRUE(lost.hint);
  EXPECT_EQ(lost.lost, 2U);
  EXPECT_EQ(lost.mode, determinism::defensive);
  EXPECT_EQ(lost.pressure, asio_pulse::detail::most_pressure);
  // A later hint that is not lost keeps it pressured when the loss is forgotten.
  EXPECT_EQ(w.look({.now = 1050, .sequence = 7, .lost = 12}).mode, determinism::defensive);
  EXPECT_EQ(w.look({.now = 1000 + calm, .sequence = 7, .lost = 12}).mode, determinism::pressured);
  EXPECT_EQ(w.look({.now = 1050 + calm, .sequence = 7, .lost = 12}).mode,
            determinism::deterministic);
}

TEST(hint_watch, the_count_of_lost_hints_may_wrap) {
  hint_watch w = started(0, ~std::uint32_t{0});
  EXPECT_EQ(w.look({.now = 1, .lost = 1}).lost, 2U);
}

TEST(hint_watch, a_clock_that_goes_back_ends_nothing_early) {
  hint_watch w = started();
  (void)w.look({.now = 1000, .sequence = 1});
  EXPECT_EQ(w.look({.now = 10, .sequence = 1}).mode, determinism::pressured);
}

TEST(hint_watch, pressure_is_clamped) {
  hint_watch w = started();
  EXPECT_EQ(w.look({.now = 1, .sequence = 1, .pressure = 255}).pressure, 100U);
}

TEST(hint_watch, a_quantum_shrinks_to_half_and_not_below_the_least) {
  EXPECT_EQ(tightened_quantum(10'000, 100, 0), 10'000U);
  EXPECT_EQ(tightened_quantum(10'000, 100, 50), 7'500U);
  EXPECT_EQ(tightened_quantum(10'000, 100, 100), 5'000U);
  EXPECT_EQ(tightened_quantum(10'000, 9'000, 100), 9'000U);
  EXPECT_EQ(tightened_quantum(100, 9'000, 100), 100U);  // never longer than without
}

}  // namespace
