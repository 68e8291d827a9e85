// SPDX-License-Identifier: BSL-1.0
//
// Replays of recordings that are so small that the expected result is computed by hand.

#include "sample.hpp"

#include <asio_pulse/options.hpp>
#include <asio_pulse/replay.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace asio_pulse {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using test::poll_at;
using testing::HasSubstr;

constexpr std::uint32_t a = 1;
constexpr std::uint32_t b = 2;
constexpr std::uint32_t c = 3;

// A and C get a tenth of a CPU, and are over budget for 60 ms after a poll of 25 ms: 250 ms at that
// rate, of which a debt of two windows is kept. B is unlimited.
recording three_tasks(std::vector<recorded_event> events) {
  recording r;
  r.settings = {.stall_threshold = 5ms,
                .yield_threshold = 20ms,
                .isolate_threshold = 0ms,
                .tiers = {.isolate_after = 0}};
  r.tasks = {{a, "a", 6ms, 60ms, 6ms}, {b, "b", 0ms, 3ms, 0ms}, {c, "c", 6ms, 60ms, 6ms}};
  r.workers = {{1, 0, std::move(events)}};
  return r;
}

replay_result replay_as_recorded(const recording& r) { return replay(r, r.settings); }

const replayed_task& find(const replay_result& r, std::uint64_t id) {
  for (const replayed_task& t : r.tasks) {
    if (t.id == id) return t;
  }
  throw std::out_of_range("no such task");
}

TEST(replay, of_nothing_is_nothing) {
  const replay_result r = replay_as_recorded({});
  EXPECT_EQ(r, replay_result{});
}

// a: 0-25, a: 25-50, b: 50-51. The second one is put back, so b runs at 25 and it at 26.
TEST(replay, saves_others_the_time_of_what_is_put_back) {
  const replay_result r = replay_as_recorded(
      three_tasks({poll_at(0ms, a, 25ms), poll_at(25ms, a, 25ms), poll_at(50ms, b, 1ms)}));
  EXPECT_EQ(r.polls, 3U);
  EXPECT_EQ(r.length, 51ms);
  EXPECT_EQ(r.tasks_touched, 1U);
  EXPECT_EQ(r.put_back, 1U);
  EXPECT_EQ(r.others_before.p99, 50ms);
  EXPECT_EQ(r.others_after.p99, 25ms);
  EXPECT_EQ(r.others_after.durations.count, 1U);
  EXPECT_EQ(r.touched_before.longest, 25ms);
  EXPECT_EQ(r.touched_after.longest, 26ms);
  EXPECT_EQ(r.touched_after.p50, 0ms);

  const replayed_task& t = r.tasks.at(0);
  EXPECT_EQ(t.id, a);
  EXPECT_EQ(t.name, "a");
  EXPECT_EQ(t.polls, 2U);
  EXPECT_EQ(t.cpu, 50ms);
  EXPECT_EQ(t.offences, 2U);
  EXPECT_EQ(t.warns, 0U);  // from Monitor to Yield at once
  EXPECT_EQ(t.put_back, 1U);
  EXPECT_EQ(t.in_tier, (std::array<nanoseconds, 4>{25ms, 0ms, 26ms, 0ms}));
  EXPECT_EQ(t.waited_before, 25ms);
  EXPECT_EQ(t.waited_after, 26ms);
}

// a 0-25, c 25-50, a 50-75, c 75-100, a 100-125, b 125-126: all ready at 0. From a's second poll on
// all of a and c are put back: b runs at 50, then a, c, a in turn.
TEST(replay, goes_round_robin_over_what_is_put_back) {
  const replay_result r = replay_as_recorded(
      three_tasks({poll_at(0ms, a, 25ms), poll_at(25ms, c, 25ms), poll_at(50ms, a, 25ms),
                   poll_at(75ms, c, 25ms), poll_at(100ms, a, 25ms), poll_at(125ms, b, 1ms)}));
  EXPECT_EQ(r.put_back, 3U);
  EXPECT_EQ(r.tasks_touched, 2U);
  EXPECT_EQ(find(r, b).waited_before, 125ms);
  EXPECT_EQ(find(r, b).waited_after, 50ms);
  EXPECT_EQ(find(r, a).waited_before, 0ms + 50ms + 100ms);
  EXPECT_EQ(find(r, a).waited_after, 0ms + 51ms + 101ms);
  EXPECT_EQ(find(r, c).waited_before, 25ms + 75ms);
  EXPECT_EQ(find(r, c).waited_after, 25ms + 76ms);
}

// What becomes ready while one that was put back runs comes before the next such one.
TEST(replay, lets_what_becomes_ready_pass_what_is_put_back) {
  recording r = three_tasks({poll_at(0ms, a, 25ms), poll_at(25ms, a, 25ms), poll_at(50ms, a, 25ms),
                             poll_at(75ms, b, 1ms), poll_at(76ms, b, 1ms)});
  // A probe that was ready at 40 ran at 75, the next at once: so b was ready at 40, and at 76.
  r.workers[0].events.push_back(recorded_event::make(
      event_kind::queue_delay, 40ms, recorded_event::no_site, 0, nanoseconds{35ms}));
  r.workers[0].events.push_back(recorded_event::make(event_kind::queue_delay, 76ms,
                                                     recorded_event::no_site, 0, nanoseconds{0ms}));
  const replay_result result = replay_as_recorded(r);
  // On a straight line from 0 to 35 at 75: a was ready at 25 - 35/3, and at 50 - 70/3.
  EXPECT_EQ(find(result, b).waited_before, 35ms + 0ms);
  EXPECT_NEAR(static_cast<double>(find(result, a).waited_before.count()), 35e6, 2.0);
  // a 0-25, then a is put back: a 25-50 alone, a third time from 50 after b, which came at 40.
  EXPECT_EQ(find(result, b).waited_after, 10ms + 0ms);
}

TEST(replay, takes_the_delay_of_the_last_probe_for_what_follows_it) {
  recording r = three_tasks({poll_at(0ms, b, 10ms), poll_at(10ms, b, 10ms), poll_at(20ms, b, 10ms),
                             poll_at(30ms, b, 10ms)});
  r.workers[0].events.push_back(recorded_event::make(event_kind::queue_delay, 16ms,
                                                     recorded_event::no_site, 0, nanoseconds{4ms}));
  const replay_result result = replay_as_recorded(r);
  EXPECT_EQ(find(result, b).waited_before, 0ms + 2ms + 4ms + 4ms);
  EXPECT_EQ(find(result, b).waited_after, find(result, b).waited_before);
}
// a: 0-25, then 5 ms in which no poll ran, b: 30-31. A probe that was ready at 10 ran at 30: there
// was no idle time, and b had waited as long as it.
TEST(replay, takes_no_gap_for_idle_in_which_a_probe_waited) {
  const auto gap = [](std::vector<recorded_event> more) {
    std::vector<recorded_event> events{poll_at(0ms, a, 25ms), poll_at(30ms, b, 1ms)};
    events.insert(events.end(), more.begin(), more.end());
    return replay_as_recorded(three_tasks(std::move(events)));
  };
  EXPECT_EQ(gap({}).others_before.longest, 0ms);
  const auto probe = recorded_event::make(event_kind::queue_delay, 10ms, recorded_event::no_site, 0,
                                          nanoseconds{20ms});
  EXPECT_EQ(gap({probe}).others_before.longest, 20ms);
}

TEST(replay, knows_no_wait_after_idle_time) {
  const replay_result r = replay_as_recorded(
      three_tasks({poll_at(0ms, a, 25ms), poll_at(26ms, a, 25ms), poll_at(52ms, b, 1ms)}));
  EXPECT_EQ(r.put_back, 1U);
  EXPECT_EQ(find(r, b).waited_before, 0ms);
  EXPECT_EQ(find(r, b).waited_after, 0ms);
}

TEST(replay, changes_nothing_where_nothing_is_put_back) {
  const replay_result r = replay_as_recorded(
      three_tasks({poll_at(0ms, a, 1ms), poll_at(1ms, b, 50ms), poll_at(51ms, c, 1ms)}));
  EXPECT_EQ(r.put_back, 0U);
  EXPECT_EQ(r.others_before, r.others_after);
  EXPECT_EQ(r.others_before.durations.count, 3U);
  EXPECT_EQ(r.others_before.durations.sum, 0ms + 1ms + 51ms);
  EXPECT_EQ(r.others_before.p50, 1ms);
  EXPECT_EQ(r.others_before.p99, 51ms);
  EXPECT_EQ(find(r, b).offences, 1U);  // unlimited: slow, in Yield, and never over budget
}

TEST(replay, counts_waits_in_buckets_of_an_eighth) {
  const replay_result r =
      replay_as_recorded(three_tasks({poll_at(0ms, b, 1ms), poll_at(1ms, b, 1ms)}));
  const histogram& h = r.others_before.durations;
  ASSERT_EQ(h.buckets.size(), 2U);
  EXPECT_EQ(h.buckets[0], (histogram::bucket{0ns, 1}));
  EXPECT_EQ(h.buckets[1].count, 1U);
  EXPECT_GE(h.buckets[1].upper, 1ms);
  EXPECT_LE(h.buckets[1].upper, 1ms + 125us);
}

// Yield from the end of the poll at 25 for a clean window, Warn for another one, then Monitor.
TEST(replay, tells_how_long_a_task_is_in_each_tier) {
  recording r = three_tasks({poll_at(0ms, a, 25ms)});
  r.length = 1s;
  const replayed_task t = replay_as_recorded(r).tasks.at(0);
  const auto ms = [&t](std::size_t tier) {
    return static_cast<double>(t.in_tier.at(tier).count()) / 1e6;
  };
  EXPECT_NEAR(ms(0), 800, 0.01);
  EXPECT_NEAR(ms(1), 100, 0.01);
  EXPECT_NEAR(ms(2), 100, 0.01);
  EXPECT_EQ(t.in_tier[3], 0ms);
  EXPECT_EQ(t.in_tier[0] + t.in_tier[1] + t.in_tier[2], 1s);
}

TEST(replay, climbs_by_overruns_as_the_policy_says) {
  // 1 ms of 10 in a row: over budget at the 7th; then an overrun for each 1.5 ms more.
  std::vector<recorded_event> events;
  for (int i = 0; i < 12; ++i) events.push_back(poll_at(i * 1ms, a, 1ms));
  recording r = three_tasks(events);
  r.settings.tiers.yield_after = 2;
  EXPECT_EQ(find(replay_as_recorded(r), a).warns, 1U);
  EXPECT_GT(find(replay_as_recorded(r), a).put_back, 0U);
  r.settings.tiers.yield_after = 0;
  EXPECT_EQ(find(replay_as_recorded(r), a).put_back, 0U);
}

TEST(replay, counts_isolations_that_are_wanted) {
  recording r = three_tasks({poll_at(0ms, a, 60ms)});
  r.settings.isolate_threshold = 50ms;
  const replay_result result = replay_as_recorded(r);
  EXPECT_EQ(result.isolations, 1U);
  EXPECT_EQ(find(result, a).isolations, 1U);
}

TEST(replay, never_puts_back_what_belongs_to_no_task) {
  const replay_result r = replay_as_recorded(
      three_tasks({poll_at(0ms, 0, 25ms), poll_at(25ms, 0, 25ms), poll_at(50ms, b, 1ms)}));
  EXPECT_EQ(r.put_back, 0U);
  EXPECT_EQ(find(r, 0).offences, 2U);
  EXPECT_EQ(find(r, 0).warns, 1U);
}

TEST(replay, says_the_same_in_shadow_mode) {
  recording r = three_tasks({poll_at(0ms, a, 25ms), poll_at(25ms, a, 25ms), poll_at(50ms, b, 1ms)});
  const replay_result enforced = replay_as_recorded(r);
  r.settings.shadow = true;
  EXPECT_EQ(replay_as_recorded(r), enforced);
}

TEST(replay, takes_other_budgets) {
  const recording r = three_tasks({poll_at(0ms, a, 25ms), poll_at(25ms, a, 25ms),
                                   poll_at(50ms, b, 25ms), poll_at(75ms, b, 1ms)});
  // With a budget of a whole CPU no task is over budget; b, which is unlimited, stays unlimited.
  EXPECT_EQ(replay(r, r.settings, {.budget = 60ms, .burst = 60ms}).put_back, 0U);
  EXPECT_EQ(replay(r, r.settings, {.budget = 1ms, .per = 10ms, .burst = 1ms}).put_back, 1U);
  // Of one task.
  const replay_options of_b{.tasks = {{b, "", 6ms, 60ms, 0ms}, {99, "", 0ms, 1ms, 0ms}}};
  EXPECT_EQ(find(replay(r, r.settings, of_b), b).put_back, 1U);
  EXPECT_EQ(find(replay(r, r.settings, of_b), a).put_back, 1U);
}

TEST(replay, gives_tasks_that_have_ended_the_default_budget) {
  recording r = three_tasks({poll_at(0ms, a, 25ms), poll_at(25ms, a, 1ms)});
  r.tasks.clear();
  const replay_result result = replay_as_recorded(r);
  EXPECT_EQ(find(result, a).put_back, 1U);
  EXPECT_EQ(find(result, a).name, "");
}

TEST(replay, judges_polls_inside_polls_and_leaves_them_there) {
  // a's handler runs the loop: c's poll is inside, and a's cost leaves it out.
  const replay_result r = replay_as_recorded(
      three_tasks({poll_at(0ms, a, 10ms), poll_at(5ms, c, 25ms), poll_at(35ms, b, 1ms)}));
  EXPECT_EQ(r.polls, 3U);
  EXPECT_EQ(find(r, c).offences, 1U);
  EXPECT_EQ(find(r, c).waited_before, 0ms);
  EXPECT_EQ(find(r, b).waited_before, 35ms);
  EXPECT_EQ(r.others_before.durations.count, 2U);
}

TEST(replay, takes_each_worker_for_a_loop_and_a_task_for_one) {
  recording r = three_tasks({poll_at(0ms, a, 25ms)});
  r.workers.push_back({2, 0, {poll_at(26ms, a, 5ms), poll_at(31ms, b, 1ms)}});
  const replay_result result = replay_as_recorded(r);
  EXPECT_EQ(find(result, a).put_back, 1U);  // for what it did on the other worker
  EXPECT_EQ(find(result, b).waited_before, 5ms);
  EXPECT_EQ(find(result, b).waited_after, 0ms);
}

TEST(replay, refuses_settings_that_no_context_takes) {
  recording r = three_tasks({});
  r.settings.yield_threshold = 1ms;
  EXPECT_EQ(
      invalid_reason(r.settings),
      "asio_pulse::options.yield_threshold must not be below stall_threshold = 5ms (got 1ms)");
  EXPECT_THROW((void)replay_as_recorded(r), std::invalid_argument);
  r.settings.yield_threshold = 20ms;
  EXPECT_EQ(invalid_reason(r.settings), "");
  EXPECT_THAT(invalid_reason(r.settings, {.budget = 2ms, .per = 1ms}),
              HasSubstr("budget must not exceed per"));
  EXPECT_THAT(invalid_reason(r.settings, {.budget = -1ns}),
              HasSubstr("budget must not be negative"));
  EXPECT_EQ(invalid_reason(r.settings, {.budget = 20ms}), "");
  EXPECT_EQ(invalid_reason(r.settings, {.per = 100us}), "");
  EXPECT_THAT(invalid_reason(r.settings, {.tasks = {{1, "", 1ms, 0ms, 0ms}}}),
              HasSubstr("per must be positive"));
}

TEST(replay, of_forged_recordings_ends_and_is_the_same_each_time) {
  std::mt19937_64 random(7);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same each time
  for (int round = 0; round < 200; ++round) {
    recording r = three_tasks({});
    r.length = nanoseconds{static_cast<nanoseconds::rep>(random() >> 1)};
    r.tasks[0].budget = r.tasks[0].per = r.tasks[0].burst = nanoseconds::max();
    r.workers.resize(3);
    for (recorded_worker& w : r.workers) {
      w.lost = random();
      for (int i = 0; i < 60; ++i) {
        // Polls and delays, few tasks, crowded in time.
        w.events.push_back({(random() & ~std::uint64_t{0xf0000fffe0}) >> (round % 12) & ~8ULL,
                            (random() & 0x3fffffff'00000003ULL) >> (round % 5)});
      }
    }
    const replay_result first = replay_as_recorded(r);
    ASSERT_EQ(first, replay_as_recorded(r));
    for (const replayed_task& t : first.tasks) {
      for (const nanoseconds spent : t.in_tier) ASSERT_GE(spent, 0ns);
      ASSERT_GE(t.waited_after, 0ns);
      ASSERT_GE(t.waited_before, 0ns);
    }
  }
}

}  // namespace
}  // namespace asio_pulse
