// SPDX-License-Identifier: BSL-1.0
#include "screen/picture.hpp"
// Included first, to check that the header is self-contained.

#include "made.hpp"
#include "screen/tables.hpp"

#include <gtest/gtest.h>

namespace {

using namespace std::chrono_literals;
using namespace asio_pulse::top;  // NOLINT(google-build-using-namespace): what is tested

picture of(std::uint64_t earlier, std::uint64_t later) {
  const auto before = made::server(earlier);
  return make_picture(made::server(later), &before);
}

TEST(top_picture, rates_are_of_the_interval) {
  const picture p = of(0, 2);
  EXPECT_EQ(p.interval, 2s);
  ASSERT_EQ(p.contexts.size(), 1U);
  const context_view& c = p.contexts[0];
  EXPECT_DOUBLE_EQ(c.totals.polls.value(), 1000);
  EXPECT_DOUBLE_EQ(c.totals.load.value(), 0.5);
  EXPECT_DOUBLE_EQ(c.totals.of(&asio_pulse::statistics::yields).value(), 3);
  EXPECT_DOUBLE_EQ(c.totals.of(&asio_pulse::statistics::stalls).value(), 2);
  ASSERT_EQ(c.workers.size(), 2U);
  EXPECT_DOUBLE_EQ(c.workers[0].load.value(), 0.4);
  EXPECT_DOUBLE_EQ(c.workers[0].polls.value(), 600);
  ASSERT_EQ(c.sites.size(), 2U);
  EXPECT_DOUBLE_EQ(c.sites[0].load.value(), 0.45);
  EXPECT_EQ(c.sites[0].mean, 45ms);
  ASSERT_EQ(c.tasks.size(), 2U);
  EXPECT_DOUBLE_EQ(c.tasks[0].load.value(), 0.45);  // of the recent interval
  EXPECT_DOUBLE_EQ(c.tasks[1].polls.value(), 990);
  ASSERT_EQ(c.groups.size(), 2U);
  EXPECT_DOUBLE_EQ(c.groups[1].got.value(), 0.9);  // of what all groups have used recently
  EXPECT_DOUBLE_EQ(c.groups[1].asked.value(), 0.5);
  EXPECT_DOUBLE_EQ(c.groups[1].load.value(), 0.45);
  EXPECT_DOUBLE_EQ(c.groups[1].admitted.value(), 10);
  EXPECT_DOUBLE_EQ(c.groups[1].refused.value(), 73);  // for both reasons
}

TEST(top_picture, groups_that_cannot_be_told_apart_have_no_rates) {
  auto before = made::server(0);
  auto now = made::server(1);
  now.contexts[0].groups.push_back(now.contexts[0].groups[0]);  // a second one of that path
  picture p = make_picture(now, &before);
  EXPECT_FALSE(p.contexts[0].groups[0].admitted);
  EXPECT_TRUE(p.contexts[0].groups[1].admitted);
  now = made::server(1);
  now.contexts[0].groups[0].path = "fresh";
  p = make_picture(now, &before);
  EXPECT_DOUBLE_EQ(p.contexts[0].groups[0].admitted.value(), 198) << "all were listed: it is new";
  before.contexts[0].group_count = 3;
  EXPECT_FALSE(make_picture(now, &before).contexts[0].groups[0].admitted);
}

TEST(top_picture, without_use_there_are_no_shares) {
  auto now = made::server(0);
  now.contexts[0].group_recent = 0ns;
  const picture p = make_picture(now, nullptr);
  EXPECT_FALSE(p.contexts[0].groups[0].got);
  EXPECT_FALSE(p.contexts[0].groups[0].asked);
}

TEST(top_picture, percentiles_are_of_the_interval) {
  auto before = made::server(0);
  auto now = made::server(1);
  now.contexts[0].queue_delay = made::delays({{20us, 190}, {61ms, 10}});  // no long one since
  const picture p = make_picture(now, &before);
  EXPECT_EQ(p.contexts[0].queue_delay.count, 100U);
  EXPECT_EQ(p.contexts[0].queue_delay.p99, 20us);
  EXPECT_EQ(p.contexts[0].queue_delay.most, 20us);
  EXPECT_EQ(p.contexts[0].poll_duration.most, 60ms);
}

TEST(top_picture, without_an_earlier_reading_there_are_no_rates) {
  const picture p = make_picture(made::server(0), nullptr);
  EXPECT_FALSE(p.interval);
  EXPECT_FALSE(p.contexts[0].totals.polls);
  EXPECT_FALSE(p.contexts[0].workers[0].load);
  EXPECT_FALSE(p.contexts[0].sites[0].load);
  EXPECT_TRUE(p.contexts[0].tasks[0].load);  // has an interval of its own
  const auto same = made::server(0);
  EXPECT_FALSE(make_picture(same, &same).interval);  // no time has passed
  auto other = made::server(0);
  other.pid = 99;
  EXPECT_FALSE(make_picture(made::server(1), &other).interval);
}

TEST(top_picture, what_is_new_counts_from_zero_where_all_was_listed) {
  auto before = made::server(0);
  before.contexts[0].sites.clear();
  before.contexts[0].workers.clear();
  picture p = make_picture(made::server(1), &before);
  EXPECT_DOUBLE_EQ(p.contexts[0].sites[0].load.value(), 0.9);
  EXPECT_DOUBLE_EQ(p.contexts[0].workers[0].load.value(), 0.8);
  before.contexts[0].other_sites.polls = 5;  // it may have been among these
  before.contexts[0].uncollected_workers = 1;
  p = make_picture(made::server(1), &before);
  EXPECT_FALSE(p.contexts[0].sites[0].load);
  EXPECT_FALSE(p.contexts[0].workers[0].load);
}

TEST(top_picture, figures_that_shrink_start_again) {
  auto before = made::server(5);
  auto now = made::server(0);
  now.uptime = before.uptime + 1s;
  const picture p = make_picture(now, &before);
  EXPECT_DOUBLE_EQ(p.contexts[0].totals.polls.value(), 1000);
}

TEST(top_picture, a_worker_known_by_its_stall_alone_is_shown) {
  auto now = made::server(0);
  auto& stall = now.contexts[0].stalls[0];
  stall.ended = false;
  stall.thread = 777;
  const picture p = make_picture(now, nullptr);
  ASSERT_EQ(p.contexts[0].workers.size(), 3U);
  EXPECT_EQ(p.contexts[0].workers[2].now.thread, 777U);
  EXPECT_EQ(p.contexts[0].workers[2].now.running_for, 61ms);
}

TEST(top_picture, places_that_workers_have_left_are_not_shown) {
  auto now = made::server(0);
  now.contexts[0].workers[0].thread = 0;
  EXPECT_EQ(make_picture(now, nullptr).contexts[0].workers.size(), 1U);
}

std::string column_of(const table& t, std::size_t column) {
  std::string all;
  for (const table_row& row : t.rows) all += row.cells.at(column).text + ' ';
  return all;
}

TEST(top_tables, sorting_and_reversing) {
  const context_view c = of(0, 1).contexts[0];
  EXPECT_EQ(column_of(tasks_table(c, {}, charset::ascii), 6), "report session ");
  EXPECT_EQ(column_of(tasks_table(c, {.reverse = true}, charset::ascii), 6), "session report ");
  EXPECT_EQ(column_of(tasks_table(c, {.by = 2}, charset::ascii), 6), "session report ");  // polls
  EXPECT_EQ(column_of(tasks_table(c, {.by = 3}, charset::ascii), 5), "1 2 ");             // ids
  EXPECT_EQ(column_of(tasks_table(c, {.by = 4}, charset::ascii), 6), "report session ");  // names
  EXPECT_EQ(column_of(tasks_table(c, {.by = 5}, charset::ascii), 6), "report session ");  // again
  EXPECT_EQ(column_of(sites_table(c, {.by = 2}, charset::ascii), 6), "on_read build_report ");
  EXPECT_EQ(column_of(groups_table(c, {}, charset::ascii), 7), "flood small ");
  EXPECT_EQ(column_of(groups_table(c, {.by = 4}, charset::ascii), 7), "small flood ");  // admitted
  EXPECT_EQ(column_of(groups_table(c, {.by = 5}, charset::ascii), 7), "flood small ");  // refused
  EXPECT_EQ(column_of(groups_table(c, {.by = 6}, charset::ascii), 7), "flood small ");  // paths
}

TEST(top_tables, filter_is_by_what_is_shown) {
  const context_view c = of(0, 1).contexts[0];
  EXPECT_EQ(column_of(tasks_table(c, {.filter = "SESS"}, charset::ascii), 6), "session ");
  EXPECT_EQ(column_of(sites_table(c, {.filter = "report.cpp:42"}, charset::ascii), 6),
            "build_report ");
  EXPECT_EQ(column_of(groups_table(c, {.filter = "OOD"}, charset::ascii), 7), "flood ");
  EXPECT_TRUE(tasks_table(c, {.filter = "nothing"}, charset::ascii).rows.empty());
}

TEST(top_tables, cells_say_what_they_should) {
  const picture p = of(0, 1);
  const table sites = sites_table(p.contexts[0], {}, charset::ascii);
  const auto widths = widths_of(sites, 80);
  EXPECT_EQ(text_of(line_of(sites, sites.rows[0], widths, charset::ascii)),
            " 45.0%       10  45.0ms  !61.0ms     0% src/report.cpp:42 build_report");
  const table tasks = tasks_table(p.contexts[0], {}, charset::ascii);
  EXPECT_EQ(text_of(line_of(tasks, tasks.rows[0], widths_of(tasks, 80), charset::ascii)),
            " 45.0%     900ms       10 yield   yes         2 report");
  const table groups = groups_table(p.contexts[0], {}, charset::ascii);
  EXPECT_EQ(text_of(line_of(groups, groups.rows[0], widths_of(groups, 80), charset::ascii)),
            " 90.0%  50.0%    100  6.00ms     64          10        !73 flood");
  EXPECT_EQ(groups.rows[0].key, "flood");
  const table stalls = stalls_table(p.contexts[0], p.at, {}, charset::ascii);
  EXPECT_EQ(column_of(stalls, 0), "3s ago ");
  EXPECT_EQ(column_of(stalls, 5), "build_report() ");
}

TEST(top_tables, a_heading_keeps_its_words_when_it_is_sorted_by) {
  ASSERT_TRUE(made::use_utf8());
  const picture p = of(0, 1);
  const context_view& c = p.contexts[0];
  for (const charset set : {charset::ascii, charset::utf8}) {
    for (std::size_t by = 0; by != 7; ++by) {
      for (const table& t :
           {tasks_table(c, {.by = by}, set), sites_table(c, {.by = by}, set),
            groups_table(c, {.by = by}, set), stalls_table(c, p.at, {.by = by}, set)}) {
        const std::string heading = text_of(heading_of(t, widths_of(t, 80), set));
        const std::string mark = set == charset::utf8 ? (t.descending ? "\u25bc" : "\u25b2")
                                                      : (t.descending ? "v" : "^");
        EXPECT_NE(heading.find(std::string{t.columns[t.sorted_by].title} + mark), heading.npos)
            << heading;
      }
    }
  }
}

TEST(top_tables, ages_are_whole_numbers) {
  const auto now = std::chrono::system_clock::time_point{std::chrono::hours{1'000'000}};
  EXPECT_EQ(age_text(now, now), "now");
  EXPECT_EQ(age_text(now - std::chrono::seconds{59}, now), "59s ago");
  EXPECT_EQ(age_text(now - std::chrono::seconds{119}, now), "1m ago");
  EXPECT_EQ(age_text(now - std::chrono::hours{50}, now), "50h ago");
}

TEST(top_tables, widths_fill_the_line_and_no_more) {
  const context_view c = of(0, 1).contexts[0];
  for (const std::size_t width : {60U, 80U, 160U, 300U}) {
    const table t = sites_table(c, {}, charset::ascii);
    EXPECT_EQ(width_of(heading_of(t, widths_of(t, width), charset::ascii)), width);
  }
}

}  // namespace
