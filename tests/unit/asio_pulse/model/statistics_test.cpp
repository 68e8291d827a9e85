// SPDX-License-Identifier: BSL-1.0
//
// The table of statistics, and what is derived from it: the wire format and the documentation. (The
// JSON of pulse_top and the exporter for Prometheus have tests of their own.)
#include "inspect_wire.hpp"
#include "support/page_table.hpp"
#include "support/sample_metrics.hpp"

#include <asio_pulse/detail/counters.hpp>
#include <asio_pulse/statistics.hpp>

#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <string>
#include <tuple>

namespace {

using asio_pulse::statistic;
using asio_pulse::statistic_table;

TEST(statistic_table, each_row_is_whole) {
  std::set<std::string> names;
  std::set<std::tuple<std::string, std::string, std::string>> series;
  for (const statistic& row : statistic_table) {
    SCOPED_TRACE(row.name);
    EXPECT_TRUE(names.emplace(row.name).second) << "its name is there twice";
    EXPECT_NE(row.count == nullptr, row.time == nullptr) << "a count or a time";
    ASSERT_FALSE(row.help.empty());
    EXPECT_FALSE(row.help.ends_with('.'));
    if (row.metric.empty()) continue;
    EXPECT_TRUE(series.emplace(row.metric, row.label, row.value).second) << "a series twice";
    EXPECT_EQ(row.label.empty(), row.value.empty());
    const bool total = row.metric.ends_with("_total") || row.time != nullptr;
    EXPECT_EQ(total, row.what == statistic::kind::counter) << row.metric;
  }
}

TEST(statistic_table, no_member_is_there_twice) {
  asio_pulse::statistics s;
  for (const statistic& row : statistic_table) {
    if (row.count != nullptr) {
      EXPECT_EQ(s.*row.count, 0U) << row.name;
      s.*row.count = 1;
    } else {
      EXPECT_EQ((s.*row.time).count(), 0) << row.name;
      s.*row.time = std::chrono::nanoseconds{1};
    }
  }
}

TEST(statistic_table, the_wire_carries_each) {
  const asio_pulse::process_metrics sent = pulse_test::sample_metrics();
  asio_pulse::process_metrics got;
  ASSERT_TRUE(asio_pulse::detail::decode(asio_pulse::detail::encode(sent), got));
  const asio_pulse::statistics& s = sent.contexts[0].totals;
  const asio_pulse::statistics& g = got.contexts[0].totals;
  for (const statistic& row : statistic_table) {
    if (row.count != nullptr) {
      EXPECT_EQ(g.*row.count, s.*row.count) << row.name;
    } else {
      EXPECT_EQ(g.*row.time, s.*row.time) << row.name;
    }
  }
  EXPECT_EQ(g, s);
}

// The table as docs/statistics.md contains it.
std::string table_for_the_documentation() {
  std::ostringstream table;
  table << "| member | kind | what | metric for Prometheus |\n|---|---|---|---|\n";
  for (const statistic& row : statistic_table) {
    table << "| `" << row.name << "` | "
          << (row.what == statistic::kind::counter ? "counter" : "gauge") << " | " << row.help
          << " | ";
    if (!row.metric.empty()) {
      table << "`" << row.metric << (row.time != nullptr ? "_seconds_total" : "") << "`";
    }
    if (!row.label.empty()) table << " `" << row.label << "=" << row.value << "`";
    table << " |\n";
  }
  return table.str();
}

TEST(statistic_table, the_documentation_has_it) {
  pulse_test::expect_table(ASIO_PULSE_STATISTICS_MD, table_for_the_documentation());
}

// Each counter has its own cell, and only gauges can shrink.
TEST(counters, a_member_names_its_cell) {
  asio_pulse::detail::counters counted;
  counted.add<&asio_pulse::statistics::yields>(3);
  counted.add<&asio_pulse::statistics::hints>();
  counted.add<&asio_pulse::statistics::spares>(2);
  counted.subtract<&asio_pulse::statistics::spares>();
  asio_pulse::statistics expected;
  expected.yields = 3;
  expected.hints = 1;
  expected.spares = 1;
  EXPECT_EQ(counted.read(), expected);
}

}  // namespace
