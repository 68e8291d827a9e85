// SPDX-License-Identifier: BSL-1.0
#include "stall_watch.hpp"
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

// The test sets the time, in ticks.

namespace {

using asio_pulse::detail::stall_watch;
using ticks = stall_watch::ticks;

constexpr ticks T = 1000;
constexpr stall_watch::limits limits{.threshold = T,
                                     .yield = 4 * T,
                                     .isolate = 10 * T,
                                     .longest_step = 50 * T,
                                     .glance = 8 * T,
                                     .max_critical = 300};

class stall_watch_test : public testing::Test {
 protected:
  stall_watch::outcome idle(ticks now) { return watch.look({.now = now}, limits); }
  /// As the watchdog does: it gives evidence when a look is due, and for a new poll.
  stall_watch::outcome poll(ticks now, ticks start, ticks excused = 0,
                            ticks culpable = stall_watch::off) {
    return watch.look({.now = now,
                       .polling = true,
                       .start = start,
                       .evidence = true,
                       .excused = excused,
                       .culpable = culpable},
                      limits);
  }
  stall_watch watch;
};

TEST_F(stall_watch_test, an_idle_worker_is_looked_at_when_a_poll_could_be_late) {
  const auto o = idle(5000);
  EXPECT_EQ(o.next, 5000 + T);
  EXPECT_FALSE(o.crossed || o.ended || o.repeat || o.escalate || o.overstay);
  EXPECT_FALSE(watch.stalled());
}

TEST_F(stall_watch_test, a_poll_is_next_looked_at_when_it_would_cross) {
  EXPECT_EQ(poll(5400, 5000).next, 5000 + T);
  EXPECT_FALSE(watch.due(5000 + T - 1, true, 5000, limits));
  EXPECT_TRUE(watch.due(5000 + T, true, 5000, limits));
  EXPECT_FALSE(poll(5000 + T - 1, 5000).crossed);
  const auto o = poll(5000 + T, 5000);
  EXPECT_TRUE(o.crossed);
  EXPECT_TRUE(o.escalate);
  EXPECT_FALSE(o.repeat);
  EXPECT_EQ(o.blamed, T);
  EXPECT_EQ(o.culpable, T);
  EXPECT_TRUE(watch.stalled());
}

TEST_F(stall_watch_test, a_poll_that_is_seen_late_crosses_at_once) {
  idle(5000);
  EXPECT_TRUE(watch.due(7000, true, 5500, limits));
  EXPECT_TRUE(poll(7000, 5500).crossed);
}

TEST_F(stall_watch_test, polls_that_follow_each_other_never_cross) {
  ticks now = 0;
  for (ticks start = 0; start < 100 * T; start += T * 8 / 10) {
    // A look at every instant. An event that was due in the last instant must be seen in this one.
    for (ticks age = 0; age < T * 8 / 10; age += 100) {
      now = start + age;
      const auto o = poll(now, start);
      EXPECT_FALSE(o.crossed || o.ended);
      EXPECT_GE(o.next, start + T);
    }
  }
}

TEST_F(stall_watch_test, reports_back_off_to_the_longest_step) {
  std::vector<ticks> at;
  ticks now = 0;
  for (int looks = 0; looks < 1000 && at.size() < 10; ++looks) {
    const auto o = poll(now, 0);
    if (o.crossed || o.repeat) at.push_back(now);
    EXPECT_GT(o.next, now);
    EXPECT_LE(o.next - now, watch.stalled() ? limits.glance : T);
    now = o.next;
  }
  EXPECT_EQ(at, (std::vector<ticks>{T, 2 * T, 4 * T, 8 * T, 16 * T, 32 * T, 64 * T, 114 * T,
                                    164 * T, 214 * T}));
}

TEST_F(stall_watch_test, limits_are_crossed_once_each_and_on_time) {
  std::vector<ticks> at;
  ticks now = 0;
  for (int looks = 0; looks < 1000 && now < 60 * T; ++looks) {
    const auto o = poll(now, 0);
    if (o.escalate) at.push_back(now);
    now = o.next;
  }
  EXPECT_EQ(at, (std::vector<ticks>{T, 4 * T, 10 * T}));
}

TEST_F(stall_watch_test, one_late_look_crosses_all_limits_as_one) {
  EXPECT_TRUE(poll(20 * T, 0).escalate);
  ticks now = 20 * T;
  for (int looks = 0; looks < 20; ++looks) {
    const auto o = poll(now, 0);
    EXPECT_TRUE(looks == 0 || !o.escalate);
    now = o.next;
  }
}

TEST_F(stall_watch_test, excused_time_puts_the_crossing_off_by_as_much) {
  // Descheduled for 700 of the first 1000.
  const auto o = poll(T, 0, 700);
  EXPECT_FALSE(o.crossed);
  EXPECT_EQ(o.blamed, 300U);
  EXPECT_EQ(o.next, T + 700);
  EXPECT_FALSE(watch.due(T + 699, true, 0, limits));
  EXPECT_TRUE(watch.due(T + 700, true, 0, limits));
  EXPECT_TRUE(poll(T + 700, 0, 700).crossed);
}

TEST_F(stall_watch_test, a_machine_that_stood_still_is_nobodys_fault) {
  poll(100, 0);
  const auto o = poll(1'000'000, 0, 999'900);
  EXPECT_FALSE(o.crossed);
  EXPECT_EQ(o.blamed, 100U);
  EXPECT_EQ(o.next, 1'000'000 + 900);
}

TEST_F(stall_watch_test, more_is_never_excused_than_the_poll_is_old) {
  const auto o = poll(5000, 4900, 1'000'000);
  EXPECT_EQ(o.blamed, 0U);
  EXPECT_EQ(o.next, 5000 + T);
}

TEST_F(stall_watch_test, without_new_evidence_the_old_holds) {
  poll(500, 0, 400);
  const auto o = watch.look({.now = 900, .polling = true, .start = 0}, limits);
  EXPECT_EQ(o.blamed, 500U);
}

TEST_F(stall_watch_test, what_is_not_its_own_doing_does_not_escalate) {
  ticks now = 0;
  for (int looks = 0; looks < 200; ++looks) {
    const auto o = poll(now, 0, 0, 0);
    EXPECT_FALSE(o.escalate);
    EXPECT_EQ(o.culpable, 0U);
    EXPECT_GT(o.next, now) << "the next look must be later";
    now = o.next;
  }
  EXPECT_TRUE(watch.stalled());
}

TEST_F(stall_watch_test, culpable_time_counts_from_when_it_is) {
  ticks now = T;
  poll(now, 0, 0, 0);                        // T of unknown cause
  EXPECT_FALSE(poll(2 * T, 0, 0).escalate);  // T of its own
  EXPECT_FALSE(poll(4 * T, 0, 0).escalate);  // 3 T
  EXPECT_TRUE(watch.due(5 * T, true, 0, limits));
  const auto o = poll(5 * T, 0, 0);
  EXPECT_TRUE(o.escalate);
  EXPECT_EQ(o.culpable, 4 * T);
}

TEST_F(stall_watch_test, half_of_the_blamed_time_may_be_culpable) {
  EXPECT_EQ(poll(T, 0, 0, T / 2).culpable, T / 2);
  EXPECT_FALSE(poll(4 * T, 0, 0, T).escalate);
  // At most the time up to the next event.
  EXPECT_EQ(poll(8 * T, 0, 0, 100 * T).culpable, T / 2 + T + 4 * T);
}

TEST_F(stall_watch_test, ends_once_when_the_worker_is_idle) {
  EXPECT_TRUE(poll(T, 0).crossed);
  const auto o = idle(3 * T);
  EXPECT_TRUE(o.ended);
  EXPECT_FALSE(o.crossed);
  EXPECT_FALSE(watch.stalled());
  EXPECT_FALSE(idle(4 * T).ended);
}

TEST_F(stall_watch_test, ends_and_begins_in_one_look) {
  EXPECT_TRUE(poll(T, 0).crossed);
  const auto o = poll(5 * T, 3 * T);
  EXPECT_TRUE(o.ended);
  EXPECT_TRUE(o.crossed);
  EXPECT_EQ(o.blamed, 2 * T);
  EXPECT_TRUE(o.escalate);
}

TEST_F(stall_watch_test, the_poll_outside_a_nested_one_starts_anew) {
  // The nested poll begins at 800, ends at 1500: stamps, both of them. Neither is old enough.
  EXPECT_FALSE(poll(700, 0).crossed);
  EXPECT_FALSE(poll(1400, 800).crossed);
  EXPECT_FALSE(poll(2400, 1500).crossed);
  EXPECT_TRUE(poll(2500, 1500).crossed);
}

TEST_F(stall_watch_test, a_dismissed_poll_is_let_be) {
  EXPECT_TRUE(poll(T, 0).crossed);
  watch.dismiss();
  EXPECT_FALSE(watch.stalled());
  EXPECT_FALSE(watch.due(50 * T, true, 0, limits));
  const auto o = poll(50 * T, 0);
  EXPECT_FALSE(o.crossed || o.repeat || o.ended || o.escalate);
  EXPECT_FALSE(idle(51 * T).ended);
  EXPECT_TRUE(poll(53 * T, 52 * T).crossed) << "the next poll is judged by itself";
}

TEST_F(stall_watch_test, the_counter_may_wrap_around) {
  constexpr ticks start = std::numeric_limits<ticks>::max() - 300;
  EXPECT_EQ(poll(start + 100, start).next, start + T);
  EXPECT_LT(start + T, start) << "wrapped";
  EXPECT_FALSE(poll(start + T - 1, start).crossed);
  EXPECT_TRUE(poll(start + T, start).crossed);
  EXPECT_TRUE(poll(start + 2 * T, start).repeat);
}

TEST_F(stall_watch_test, a_stamp_of_the_future_is_now) {
  const auto o = poll(5000, 5010);
  EXPECT_EQ(o.blamed, 0U);
  EXPECT_FALSE(o.crossed);
  EXPECT_EQ(o.next, 5000 + T);
}

TEST_F(stall_watch_test, thresholds_that_are_off_ask_for_nothing) {
  constexpr stall_watch::limits off;
  EXPECT_FALSE(watch.due(1'000'000, true, 0, off));
  const auto o = watch.look({.now = 1'000'000, .polling = true, .start = 0}, off);
  EXPECT_FALSE(o.crossed);
  EXPECT_GT(stall_watch::between(1'000'000, o.next), ticks{1} << 60);
}

TEST_F(stall_watch_test, a_critical_section_is_told_of_once) {
  const auto at = [this](ticks now, ticks since) {
    return watch.look({.now = now, .polling = true, .start = 100, .critical_since = since}, limits);
  };
  auto o = at(300, 250);
  EXPECT_FALSE(o.overstay);
  EXPECT_EQ(o.next, 550U);
  EXPECT_TRUE(at(550, 250).overstay);
  EXPECT_FALSE(at(600, 250).overstay);
  EXPECT_FALSE(at(700, 0).overstay);
  EXPECT_TRUE(at(1050, 750).overstay) << "another one";
}

// Invariants 1, 3 and 5, on random histories.
TEST_F(stall_watch_test, invariants_hold_whatever_happens) {
  std::mt19937_64 random(7);
  const auto below = [&random](ticks n) { return random() % n; };
  for (int run = 0; run < 200; ++run) {
    stall_watch w;
    ticks now = random();
    ticks start = now;
    bool polling = false;
    bool open = false;
    ticks culpable_before = 0;
    for (int look = 0; look < 200; ++look) {
      now += below(2 * T);
      if (below(5) == 0) {
        polling = below(2) == 0;
        start = now - below(T / 2);
        culpable_before = 0;
      }
      const bool due = w.due(now, polling, start, limits);
      const auto o = w.look({.now = now,
                             .polling = polling,
                             .start = start,
                             .evidence = due || !w.watches(start),
                             .excused = below(3 * T),
                             .culpable = due ? below(2 * T) : 0},
                            limits);
      EXPECT_LE(o.blamed, stall_watch::between(start, now));
      EXPECT_LE(o.culpable, stall_watch::between(start, now));
      EXPECT_GE(o.culpable, polling ? culpable_before : 0U);
      culpable_before = o.culpable;
      EXPECT_EQ(o.ended && !open, false) << "no stall that could end";
      if (o.ended) open = false;
      EXPECT_FALSE(o.crossed && open) << "twice";
      EXPECT_FALSE((o.repeat || o.escalate) && !open && !o.crossed);
      if (o.crossed) {
        EXPECT_GE(o.blamed, T);
        EXPECT_TRUE(due);
        open = true;
      }
      EXPECT_EQ(w.stalled(), open);
      EXPECT_GT(stall_watch::between(now, o.next), 0U);
    }
  }
}

}  // namespace
