// SPDX-License-Identifier: BSL-1.0
//
// The tables of figures, and the wire format, which is derived from them. (The JSON of pulse_top
// and the exporter for Prometheus have tests of their own.)
#include "inspect_wire.hpp"
#include "support/sample_metrics.hpp"

#include <asio_pulse/metrics.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <string_view>
#include <type_traits>
#include <variant>

namespace {

using asio_pulse::figure;
using asio_pulse::figure_table;

template <class Of>
void expect_whole_rows() {
  std::set<std::string_view> names;
  for (const figure<Of>& row : figure_table<Of>) {
    SCOPED_TRACE(row.name);
    const bool time = std::holds_alternative<std::chrono::nanoseconds Of::*>(row.member);
    const bool flag = std::holds_alternative<bool Of::*>(row.member);
    EXPECT_TRUE(names.insert(row.name).second) << "its name is there twice";
    EXPECT_FALSE(row.help.empty());
    EXPECT_FALSE(row.help.ends_with('.') || row.metric_help.ends_with('.'));
    EXPECT_TRUE(row.what == figure<Of>::kind::gauge || !flag) << "it cannot grow";
    EXPECT_EQ(row.json.ends_with("_ns"), time && !row.json.empty()) << row.json;
    if (row.metric.empty()) continue;
    EXPECT_EQ(row.metric.find("_seconds") != row.metric.npos, time) << row.metric;
    EXPECT_EQ(row.metric.ends_with("_total"), row.what == figure<Of>::kind::counter) << row.metric;
  }
}

template <class Of>
void expect_each_member_once() {
  Of of;
  for (const figure<Of>& row : figure_table<Of>) {
    std::visit(
        [&](auto member) {
          using value = std::decay_t<decltype(of.*member)>;
          EXPECT_EQ(of.*member, value{}) << row.name;
          of.*member = value{1};
        },
        row.member);
  }
}

TEST(figure_table, each_row_is_whole) {
  expect_whole_rows<asio_pulse::site_metrics>();
  expect_whole_rows<asio_pulse::task_metrics>();
  expect_whole_rows<asio_pulse::worker_metrics>();
  expect_whole_rows<asio_pulse::group_metrics>();
  expect_whole_rows<asio_pulse::shard_metrics>();
}

TEST(figure_table, no_member_is_there_twice) {
  expect_each_member_once<asio_pulse::site_metrics>();
  expect_each_member_once<asio_pulse::task_metrics>();
  expect_each_member_once<asio_pulse::worker_metrics>();
  expect_each_member_once<asio_pulse::group_metrics>();
  expect_each_member_once<asio_pulse::shard_metrics>();
}

// Everything else in the metrics, too.
TEST(figure_table, the_wire_carries_each) {
  const asio_pulse::process_metrics sent = pulse_test::sample_metrics();
  asio_pulse::process_metrics got;
  ASSERT_TRUE(asio_pulse::detail::decode(asio_pulse::detail::encode(sent), got));
  const auto same = [](const auto& g, const auto& s) {
    using of = std::decay_t<decltype(s)>;
    for (const figure<of>& row : figure_table<of>) {
      std::visit(
          [&](auto member) {
            EXPECT_EQ(g.*member, s.*member) << row.name;
            EXPECT_NE(s.*member, (std::decay_t<decltype(s.*member)>{}))
                << row.name << ": the sample has no figure for it";
          },
          row.member);
    }
  };
  same(got.contexts[0].sites[0], sent.contexts[0].sites[0]);
  same(got.contexts[0].tasks[0], sent.contexts[0].tasks[0]);
  same(got.contexts[0].groups[0], sent.contexts[0].groups[0]);
  same(got.contexts[0].shard, sent.contexts[0].shard);
  same(got.contexts[0].workers[1], sent.contexts[0].workers[1]);
  EXPECT_EQ(got, sent);
}

}  // namespace
