// SPDX-License-Identifier: BSL-1.0

#include "sample.hpp"

#include <asio_pulse/options.hpp>
#include <asio_pulse/replay.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace asio_pulse {
namespace {

using namespace std::chrono_literals;
using test::poll_at;
using testing::HasSubstr;

constexpr std::uint32_t storm = 1;

// Every 100 ms one task has 20 polls of 2 ms ready, and after them 20 others have one of 50 us
// each. No task has been held back: budgets are all of a CPU.
recording storms(int rounds) {
  recording r;
  r.settings = {.stall_threshold = 5ms, .yield_threshold = 20ms, .isolate_threshold = 50ms};
  r.length = rounds * 100ms;
  r.workers.resize(1);
  for (std::uint32_t id = storm; id <= 21; ++id) {
    r.tasks.push_back({id, "task " + std::to_string(id), 100ms, 100ms, 0ms});
  }
  for (int round = 0; round < rounds; ++round) {
    std::chrono::nanoseconds at = round * 100ms;
    for (int i = 0; i < 20; ++i, at += 2ms) r.workers[0].events.push_back(poll_at(at, storm, 2ms));
    for (std::uint32_t id = 2; id <= 21; ++id, at += 50us) {
      r.workers[0].events.push_back(poll_at(at, id, 50us));
    }
  }
  return r;
}

TEST(tune, proposes_what_holds_back_the_storm_and_nobody_else) {
  const recording r = storms(30);
  const auto found = tune(r, {.others_p99 = 30ms});
  ASSERT_FALSE(found.empty());
  const proposal& best = found.front();
  EXPECT_TRUE(best.reaches_goal);
  EXPECT_EQ(best.present.tasks_touched, 0U);
  EXPECT_EQ(best.present.others_p99, 40ms + 19 * 50us);
  EXPECT_EQ(best.proposed.tasks_touched, 1U);
  EXPECT_LE(best.proposed.others_p99, 30ms);
  // What it promises is what a replay of it gives.
  const replay_result again =
      replay(r, best.settings, {.budget = best.budget, .per = best.per, .burst = 0ns});
  EXPECT_EQ(again.others_after.p99, best.proposed.others_p99);
  EXPECT_EQ(again.tasks_touched, best.proposed.tasks_touched);
  EXPECT_EQ(again.put_back, best.proposed.put_back);
  for (const proposal& p : found) EXPECT_EQ(invalid_reason(p.settings), "");
}

TEST(tune, comes_as_near_as_it_can_where_the_goal_is_out_of_reach) {
  const auto found = tune(storms(30), {.others_p99 = 0ns});
  ASSERT_FALSE(found.empty());
  EXPECT_FALSE(found.front().reaches_goal);
  EXPECT_LT(found.front().proposed.others_p99, found.front().present.others_p99);
  for (std::size_t i = 1; i < found.size(); ++i) {
    EXPECT_GE(found[i].proposed.others_p99, found[i - 1].proposed.others_p99);
  }
  EXPECT_LE(found.size(), 3U);
}

TEST(tune, leaves_alone_what_is_good_enough) {
  EXPECT_TRUE(tune(storms(30), {.others_p99 = 50ms}).empty());
}

TEST(tune, holds_back_fewer_where_fewer_will_do) {
  recording r = storms(30);
  for (recorded_task& t : r.tasks) t.budget = 1ms;  // 1 %: the storm, and it alone, is put back
  const auto found = tune(r, {.others_p99 = 50ms});
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found.front().present.tasks_touched, 1U);
  EXPECT_EQ(found.front().proposed.tasks_touched, 0U);
}

TEST(tune, says_the_same_each_time) {
  EXPECT_EQ(tune(storms(30), {.others_p99 = 10ms}), tune(storms(30), {.others_p99 = 10ms}));
}

TEST(tune, leaves_tasks_without_a_budget_without_one) {
  recording r = storms(30);
  for (recorded_task& t : r.tasks) t.budget = 0ms;
  EXPECT_TRUE(tune(r, {.others_p99 = 1ms}).empty());
}

TEST(tune, does_not_judge_by_too_little) {
  EXPECT_EQ(too_short(storms(30)), "");
  EXPECT_EQ(too_short(storms(9)),
            "the recording is too short to judge: it must last for 10 clean windows of 100ms (got "
            "900ms)");
  EXPECT_EQ(too_short(storms(20)),
            "the recording is too short to judge: it must hold 1000 polls (got 800)");
  recording r = storms(30);
  r.workers[0].lost = 133;
  EXPECT_EQ(too_short(r), "");
  r.workers[0].lost = 134;
  EXPECT_EQ(too_short(r),
            "the recording is incomplete: at most a tenth of its events may be lost (got 134 of "
            "1334)");
  EXPECT_TRUE(tune(r).empty());
  r.workers[0].lost = ~0ULL;
  EXPECT_THAT(too_short(r), HasSubstr("is incomplete"));
}

TEST(tune, refuses_what_makes_no_sense) {
  EXPECT_THROW((void)tune(storms(30), {.others_p99 = -1ns}), std::invalid_argument);
  recording r = storms(30);
  r.settings.yield_threshold = 1ms;
  EXPECT_THROW((void)tune(r), std::invalid_argument);
}

// What is printed is what is compiled here.
TEST(to_cpp, gives_lines_that_compile_and_mean_the_proposal) {
  const options pasted = asio_pulse::options{
      .stall_threshold = 5ms,
      .yield_threshold = 1500us,
      .isolate_threshold = 0ns,
      // The same budget and per for the program's own tasks.
      .accepted = {.name = "connection", .budget = 300us, .per = 3ms},
      .tiers = {
          .yield_after = 2, .isolate_after = 3, .clean_window = 100ms, .isolate_clean_window = 1s}};
  proposal p;
  p.settings = {.stall_threshold = pasted.stall_threshold,
                .yield_threshold = pasted.yield_threshold,
                .isolate_threshold = pasted.isolate_threshold,
                .tiers = pasted.tiers};
  p.budget = pasted.accepted.budget;
  p.per = pasted.accepted.per;
  EXPECT_EQ(to_cpp(p),
            "asio_pulse::options{\n"
            "    .stall_threshold = 5ms,\n"
            "    .yield_threshold = 1500us,\n"
            "    .isolate_threshold = 0ns,\n"
            "    // The same budget and per for the program's own tasks.\n"
            "    .accepted = {.name = \"connection\", .budget = 300us, .per = 3ms},\n"
            "    .tiers = {.yield_after = 2,\n"
            "              .isolate_after = 3,\n"
            "              .clean_window = 100ms,\n"
            "              .isolate_clean_window = 1s}}");
  p.budget.reset();
  EXPECT_THAT(to_cpp(p), testing::Not(HasSubstr("accepted")));
}

}  // namespace
}  // namespace asio_pulse
