// SPDX-License-Identifier: BSL-1.0

#include "scraping.hpp"
#include "support/sample_metrics.hpp"

#include <asio_pulse/prometheus.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <sstream>
#include <string>
#include <utility>

namespace asio_pulse {
namespace {

using pulse_test::make_group;
using pulse_test::make_site;
using pulse_test::make_task;
using pulse_test::sample_metrics;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(prometheus_labels_test, puts_tasks_of_one_name_into_one_series) {
  process_metrics m = sample_metrics();
  auto& tasks = m.contexts[0].tasks;
  tasks = {make_task(1, "connection", 400ms), make_task(2, "report", 300ms),
           make_task(3, "connection", 200ms), make_task(4, "rare", 100ms)};
  tasks[2].level = tier::warn;
  tasks[2].waiting = tasks[3].waiting = true;
  const families all = scrape(m, {.top_tasks = 2});
  EXPECT_THAT(series(all, "asio_pulse_task_cpus"),
              ElementsAre(std::pair(label_map{{"task", "(all other)"}}, 0.075),
                          std::pair(label_map{{"task", "connection"}}, 0.3),
                          std::pair(label_map{{"task", "report"}}, 0.15)));
  EXPECT_THAT(series(all, "asio_pulse_task_tier"),
              ElementsAre(std::pair(label_map{{"task", "(all other)"}}, 0.0),
                          std::pair(label_map{{"task", "connection"}}, 1.0),
                          std::pair(label_map{{"task", "report"}}, 0.0)));
  EXPECT_THAT(series(all, "asio_pulse_task_waiting"),
              ElementsAre(std::pair(label_map{{"task", "(all other)"}}, 1.0),
                          std::pair(label_map{{"task", "connection"}}, 1.0),
                          std::pair(label_map{{"task", "report"}}, 0.0)));
}

TEST(prometheus_labels_test, has_one_series_for_the_rest_though_a_task_is_called_so) {
  process_metrics m = sample_metrics();
  m.contexts[0].tasks = {make_task(1, "(all other)", 400ms)};
  m.contexts[0].recent_interval = 0s;  // nothing to divide by
  EXPECT_THAT(series(scrape(m), "asio_pulse_task_cpus"),
              ElementsAre(std::pair(label_map{{"task", "(all other)"}}, 0.0)));
}

TEST(prometheus_labels_test, adds_up_sites_that_cannot_be_told_apart) {
  process_metrics m = sample_metrics();
  m.contexts[0].sites = {make_site("f", "a.cpp", 1, 300ms, 30), make_site("g", "a.cpp", 2, 20ms, 2),
                         make_site("f", "a.cpp", 1, 100ms, 10),
                         make_site("h", "a.cpp", 3, 10ms, 1)};
  const families all = scrape(m, {.top_sites = 2});
  const label_map f{{"site", "f"}, {"place", "a.cpp:1"}};
  const label_map g{{"site", "g"}, {"place", "a.cpp:2"}};
  EXPECT_THAT(series(all, "asio_pulse_site_cpu_seconds_total"),
              ElementsAre(std::pair(f, 0.4), std::pair(g, 0.02)));
  EXPECT_THAT(series(all, "asio_pulse_site_polls_total"),
              ElementsAre(std::pair(f, 40.0), std::pair(g, 2.0)));
  EXPECT_THAT(series(all, "asio_pulse_site_self_waking_polls_total"),
              ElementsAre(std::pair(f, 20.0), std::pair(g, 1.0)));
  EXPECT_THAT(series(all, "asio_pulse_site_longest_poll_seconds"),
              ElementsAre(std::pair(f, 0.15), std::pair(g, 0.01)));
}

TEST(prometheus_labels_test, groups_have_a_series_for_each_path_and_no_more_than_wanted) {
  process_metrics m = sample_metrics();
  context_metrics& c = m.contexts[0];
  c.groups = {make_group("a", "a", 500ms), make_group("a/b", "b", 300ms),
              make_group("a/b", "b", 100ms), make_group("c", "c", 50ms)};
  c.groups[1].queue_delay = 7ms;
  c.groups[2].queue_delay = 9ms;
  c.groups[1].admitted = 20;
  c.groups[2].admitted = 3;
  for (auto& g : c.groups) g.asked = 250ms;
  const families all = scrape(m, {.top_groups = 2});
  const label_map a{{"group", "a"}};
  const label_map b{{"group", "a/b"}};
  EXPECT_THAT(series(all, "asio_pulse_group_share_ratio"),
              ElementsAre(std::pair(a, 0.5), std::pair(b, 0.4)));
  EXPECT_THAT(series(all, "asio_pulse_group_share_asked_ratio"),
              ElementsAre(std::pair(a, 0.25), std::pair(b, 0.5)));
  EXPECT_EQ(series(all, "asio_pulse_group_requests_admitted_total").at(b), 23);
  EXPECT_EQ(series(all, "asio_pulse_group_queue_delay_seconds").at(b), 0.009) << "the longest";
  EXPECT_THAT(series(all, "asio_pulse_groups"), ElementsAre(std::pair(label_map{}, 7.0)));
  c.group_recent = 0s;  // nothing to divide by
  EXPECT_EQ(series(scrape(m), "asio_pulse_group_share_ratio").at(a), 0);
}

TEST(prometheus_labels_test, names_the_function_where_no_file_is_known) {
  process_metrics m = sample_metrics();
  m.contexts[0].sites = {make_site("f", "", 0, 1ms, 1)};
  m.contexts[0].sites[0].place.function = "serve()";
  const auto found = series(scrape(m), "asio_pulse_site_polls_total");
  EXPECT_THAT(found, ElementsAre(std::pair(label_map{{"site", "f"}, {"place", "serve()"}}, 1.0)));
}

TEST(prometheus_labels_test, asks_for_all_sites_and_only_for_what_is_shown) {
  exporter e(sample_metrics());
  EXPECT_THAT(e.requests, ElementsAre(metrics_request{
                              .top_tasks = 1000, .top_sites = 2047, .top_groups = 1000}));
  exporter bare(sample_metrics(),
                {.top_tasks = 0, .top_sites = 0, .top_groups = 0, .workers = false});
  EXPECT_THAT(bare.requests,
              ElementsAre(metrics_request{.top_tasks = 0, .top_sites = 0, .top_groups = 0}));
  for (const auto& f : bare.scrape()) {
    EXPECT_FALSE(f.name.starts_with("asio_pulse_task_")) << f.name;
    EXPECT_FALSE(f.name.starts_with("asio_pulse_site_")) << f.name;
    EXPECT_FALSE(f.name.starts_with("asio_pulse_group")) << f.name;
    EXPECT_FALSE(f.name.starts_with("asio_pulse_worker")) << f.name;
  }
}

TEST(prometheus_labels_test, makes_valid_labels_of_any_bytes) {
  process_metrics m = sample_metrics();
  m.contexts[0].name = "a\xff\"b\\\n\x1b[31m\xc3\xa4";
  const std::string label = R"(a\xff\"b\\\n\x1b[31m)"
                            "\xc3\xa4";
  const families all = scrape(m);
  EXPECT_THAT(contexts_of(all), ElementsAre(label));
  EXPECT_THAT(text(all), HasSubstr(R"(asio_pulse_tasks{context="a\\xff\\\"b\\\\\\n\\x1b[31m)"
                                   "\xc3\xa4\"} "));
  EXPECT_EQ(text(all).find('\x1b'), std::string::npos);
}

TEST(prometheus_labels_test, cuts_long_labels_and_keeps_them_apart) {
  process_metrics m = sample_metrics();
  const std::string same(500, 'x');
  m.contexts[0].sites = {make_site(same + "1", same, 1, 2ms, 1),
                         make_site(same + "2", same, 1, 1ms, 2)};
  m.contexts[0].tasks = {make_task(1, std::string(128, '\xff'), 1ms),
                         make_task(2, std::string(127, '\xff') + '\xfe', 2ms)};
  const families all = scrape(m);
  const auto sites = series(all, "asio_pulse_site_polls_total");
  ASSERT_EQ(sites.size(), 2U);
  for (const auto& [labels, value] : sites) {
    EXPECT_THAT(labels.at("site"),
                ::testing::StartsWith(std::string(192, 'x') + "...(+309 bytes)#"));
    EXPECT_LE(labels.at("site").size(), 224U);
    EXPECT_LE(labels.at("place").size(), 224U);
  }
  EXPECT_EQ(series(all, "asio_pulse_task_tier").size(), 3U);
}

TEST(prometheus_labels_test, gives_each_context_a_label_of_its_own_for_its_life) {
  process_metrics m;
  m.contexts = {context(1, "db"), context(2, ""), context(3, "db"), context(4, ""),
                context(5, "db#2")};
  exporter e(m);
  EXPECT_THAT(contexts_of(e.scrape()), ElementsAre("db", "unnamed", "db#2", "unnamed#2", "db#2#2"));
  e.figures.contexts = {context(3, "db"), context(5, "db#2"), context(6, "db"), context(7, "db")};
  EXPECT_THAT(contexts_of(e.scrape()), ElementsAre("db#2", "db#2#2", "db", "db#3"));
  // Another process, where the source is an inspector: nothing is known of its contexts.
  e.figures.pid = 43;
  EXPECT_THAT(contexts_of(e.scrape()), ElementsAre("db", "db#2", "db#3", "db#4"));
}

TEST(prometheus_labels_test, exports_no_series_twice) {
  process_metrics m = sample_metrics();
  m.contexts.push_back(m.contexts[0]);
  m.contexts[1].number = 2;
  m.contexts[1].sites.push_back(m.contexts[1].sites[0]);
  std::istringstream lines(text(scrape(m)));
  std::map<std::string, int> seen;
  for (std::string line; std::getline(lines, line);) {
    const std::string name = line.substr(0, line.starts_with('#') ? line.npos : line.rfind(' '));
    EXPECT_EQ(++seen[name], 1) << line;
  }
  EXPECT_GT(seen.size(), 250U);
}

}  // namespace
}  // namespace asio_pulse
