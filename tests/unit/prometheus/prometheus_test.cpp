// SPDX-License-Identifier: BSL-1.0

#include "scraping.hpp"
#include "support/page_table.hpp"
#include "support/sample_metrics.hpp"

#include <asio_pulse/prometheus.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/check_names.h>

#include <chrono>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace asio_pulse {
namespace {

using pulse_test::sample_metrics;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The name of the metric that the row is a part of, without the prefix; empty: of none.
std::string metric_of(const statistic& row) {
  return std::string(row.metric) + (row.time != nullptr ? "_seconds_total" : "");
}

template <class Of>
void expect_figures(std::set<std::string>& families) {
  for (const figure<Of>& row : figure_table<Of>) {
    if (row.metric.empty()) continue;
    const bool counter = row.what == figure<Of>::kind::counter;
    families.insert(std::string(row.metric) + (counter ? " counter" : " gauge"));
  }
}

TEST(prometheus_test, exports_these_families_and_no_others) {
  std::set<std::string> listed;
  for (const auto& f : scrape(sample_metrics())) {
    const char* const type = f.type == MetricType::Counter ? " counter"
                             : f.type == MetricType::Gauge ? " gauge"
                                                           : " histogram";
    const bool fresh =
        listed.insert(f.name.substr(std::string("asio_pulse_").size()) + type).second;
    EXPECT_TRUE(fresh) << f.name << " is there twice";
  }
  std::set<std::string> expected{"up gauge",
                                 "build_info gauge",
                                 "contexts gauge",
                                 "enabled gauge",
                                 "shadow gauge",
                                 "collecting gauge",
                                 "clock_info gauge",
                                 "polls_total counter",
                                 "cpu_seconds_total counter",
                                 "instrument_bytes gauge",
                                 "uncollected_workers gauge",
                                 "last_stall_timestamp_seconds gauge",
                                 "poll_duration_seconds histogram",
                                 "queue_delay_seconds histogram",
                                 "workers gauge",
                                 "task_cpus gauge",
                                 "task_tier gauge",
                                 "groups gauge",
                                 "group_share_ratio gauge",
                                 "group_share_asked_ratio gauge"};
  for (const statistic& row : statistic_table) {
    if (row.metric.empty()) continue;
    expected.insert(metric_of(row) +
                    (row.what == statistic::kind::counter ? " counter" : " gauge"));
  }
  expect_figures<site_metrics>(expected);
  expect_figures<task_metrics>(expected);
  expect_figures<worker_metrics>(expected);
  expect_figures<group_metrics>(expected);
  expect_figures<shard_metrics>(expected);
  EXPECT_EQ(listed, expected);
}

TEST(prometheus_test, says_of_a_metric_what_the_table_says) {
  const families all = scrape(sample_metrics());
  const auto help = [&all](const std::string& name) -> std::string {
    for (const auto& f : all) {
      if (f.name == "asio_pulse_" + name) return f.help;
    }
    return {};
  };
  EXPECT_EQ(help("isolated_total"), "Handlers run on the isolation pool.");
  EXPECT_EQ(help("tier_transitions_total"),
            "direction=up: changes of a task's tier upwards; direction=down: changes of a task's "
            "tier downwards.");
  EXPECT_EQ(help("callback_errors_total"), "Exceptions that on_report or a hook threw.");
  EXPECT_THAT(help("shadow_saved_seconds_total"), HasSubstr(", in seconds."));
  EXPECT_THAT(help("stalls_total"), HasSubstr("; cause=unknown: neither"));
}

// The table as the README contains it: a row for each family, in the order of a scrape. Those of
// statistics are in a table of their own.
TEST(prometheus_test, the_readme_has_the_table) {
  std::set<std::string> counted;
  for (const statistic& row : statistic_table) counted.insert("asio_pulse_" + metric_of(row));
  std::string table = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
  bool told = false;
  for (const auto& f : scrape(sample_metrics())) {
    if (counted.contains(f.name)) {
      if (!told) {
        table +=
            "| \u2026 | | | one for each row of [statistics.md](../docs/statistics.md), with its "
            "labels |\n";
      }
      told = true;
      continue;
    }
    std::string labels;
    for (const auto& l : f.metric.at(0).label) {
      if (l.name == "context") continue;
      labels += (labels.empty() ? "`" : ", `") + l.name + "`";
    }
    // The sentence without its first letter and its full stop.
    std::string help = f.help.substr(0, f.help.size() - 1);
    const bool word = help[0] >= 'A' && help[0] <= 'Z' && help[1] >= 'a' && help[1] <= 'z';
    if (word) help[0] = static_cast<char>(help[0] - 'A' + 'a');
    const char* const type = f.type == MetricType::Counter ? "counter"
                             : f.type == MetricType::Gauge ? "gauge"
                                                           : "histogram";
    table += "| `" + f.name.substr(std::string("asio_pulse_").size()) + "` | " + type + " | " +
             labels + " | " + help + " |\n";
  }
  pulse_test::expect_table(ASIO_PULSE_PROMETHEUS_MD, table);
}

// Of two sites with the same labels: sums, and the higher peak.
TEST(prometheus_test, adds_up_what_shares_a_series) {
  process_metrics m = sample_metrics();
  m.contexts[0].sites = {pulse_test::make_site("a", "a.cpp", 1, std::chrono::seconds{2}, 4),
                         pulse_test::make_site("a", "a.cpp", 1, std::chrono::seconds{1}, 10)};
  const families all = scrape(m);
  const label_map a{{"site", "a"}, {"place", "a.cpp:1"}};
  EXPECT_EQ(series(all, "asio_pulse_site_polls_total").at(a), 14);
  EXPECT_EQ(series(all, "asio_pulse_site_self_waking_polls_total").at(a), 7);
  EXPECT_EQ(series(all, "asio_pulse_site_cpu_seconds_total").at(a), 3);
  EXPECT_EQ(series(all, "asio_pulse_site_longest_poll_seconds").at(a), 1);
}

TEST(prometheus_test, keeps_the_conventions_of_names) {
  for (const auto& f : scrape(sample_metrics())) {
    SCOPED_TRACE(f.name);
    EXPECT_TRUE(prometheus::CheckMetricName(f.name));
    EXPECT_EQ(f.name.ends_with("_total"), f.type == MetricType::Counter);
    EXPECT_TRUE(f.help.ends_with('.'));
    EXPECT_TRUE(f.name.find("_seconds") == f.name.npos || f.help.find("seconds") != f.help.npos);
    EXPECT_FALSE(f.metric.empty());
  }
}

TEST(prometheus_test, hands_on_what_a_context_has_counted) {
  const families all = scrape(sample_metrics());
  const auto value = [&all](const std::string& name, const label_map& labels = {}) {
    const auto found = series(all, "asio_pulse_" + name);
    const auto at = found.find(labels);
    return at == found.end() ? -1.0 : at->second;
  };
  EXPECT_EQ(value("up"), 1);
  EXPECT_EQ(value("contexts"), 1);
  EXPECT_EQ(value("build_info", {{"version", "0.1.0"}, {"program", "server"}}), 1);
  EXPECT_EQ(value("clock_info", {{"clock", "rseq_tsc"}}), 1);
  EXPECT_EQ(value("enabled"), 1);
  EXPECT_EQ(value("shadow"), 0);
  EXPECT_EQ(value("collecting"), 1);
  EXPECT_EQ(value("polls_total"), 1000);
  EXPECT_EQ(value("cpu_seconds_total"), 1.5);
  const statistics counted = sample_metrics().contexts[0].totals;
  int rows = 0;
  for (const statistic& row : statistic_table) {
    if (row.metric.empty()) continue;
    label_map labels;
    if (!row.label.empty()) labels[std::string(row.label)] = row.value;
    const double expected = row.count != nullptr
                                ? static_cast<double>(counted.*row.count)
                                : std::chrono::duration<double>(counted.*row.time).count();
    EXPECT_EQ(value(metric_of(row), labels), expected) << row.name;
    EXPECT_NE(expected, 0) << row.name << ": the sample has no figure of its own for it";
    ++rows;
  }
  EXPECT_EQ(rows, static_cast<int>(statistic_table.size()) - 1);  // not stalls themselves
  EXPECT_EQ(value("yields_total", {{"kind", "strand"}}), 3);
  EXPECT_EQ(value("stalls_total", {{"cause", "unknown"}}), 1);
  EXPECT_EQ(value("shadow_saved_seconds_total"),
            std::chrono::duration<double>(counted.shadow_saved).count());
  EXPECT_EQ(value("last_stall_timestamp_seconds"), 1'700'000'000);
  EXPECT_EQ(value("instrument_bytes"), 65536);
  EXPECT_EQ(value("uncollected_workers"), 1);
  EXPECT_EQ(value("workers"), 2);
  EXPECT_EQ(value("worker_thread", {{"worker", "1"}}), 4712);
  EXPECT_EQ(value("worker_thread", {{"worker", "2"}}), 0);
  EXPECT_EQ(value("worker_polls_total", {{"worker", "0"}}), 700);
  EXPECT_EQ(value("worker_cpu_seconds_total", {{"worker", "0"}}), 1.25);
  EXPECT_EQ(value("worker_running_seconds", {{"worker", "0"}}), 0);
  EXPECT_EQ(value("worker_running_seconds", {{"worker", "1"}}), 0.25);
  EXPECT_EQ(value("worker_longest_batch_seconds", {{"worker", "0"}}), 0.003);
}

TEST(prometheus_test, has_cumulative_buckets_with_fixed_bounds) {
  const families all = scrape(sample_metrics());
  const MetricFamily* const f = find(all, "asio_pulse_poll_duration_seconds");
  ASSERT_NE(f, nullptr);
  const auto& h = f->metric.at(0).histogram;
  EXPECT_EQ(h.sample_count, 100U);
  EXPECT_EQ(h.sample_sum, 20);
  std::vector<double> bounds;
  std::map<double, std::uint64_t> counts;
  for (const auto& b : h.bucket) {
    bounds.push_back(b.upper_bound);
    counts[b.upper_bound] = b.cumulative_count;
  }
  EXPECT_THAT(bounds, ElementsAre(1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3,
                                  2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10));
  EXPECT_EQ(counts[1e-6], 0U);
  EXPECT_EQ(counts[5e-6], 90U);
  EXPECT_EQ(counts[5e-4], 90U);
  EXPECT_EQ(counts[1e-3], 99U);
  EXPECT_EQ(counts[10], 99U);
  EXPECT_THAT(text(all), HasSubstr("asio_pulse_poll_duration_seconds_bucket{context=\"server\","
                                   "le=\"+Inf\"} 100\n"));
  EXPECT_THAT(text(all), HasSubstr("asio_pulse_queue_delay_seconds_bucket{context=\"server\","
                                   "le=\"2.5e-05\"} 4\n"));
}

TEST(prometheus_test, never_counts_less_in_all_than_in_a_bucket) {
  process_metrics m = sample_metrics();
  m.contexts[0].poll_duration.count = 95;  // read before the buckets grew
  const families all = scrape(m);
  EXPECT_EQ(find(all, "asio_pulse_poll_duration_seconds")->metric.at(0).histogram.sample_count,
            100U);
}

TEST(prometheus_test, no_bucket_loses_what_it_has_when_another_fills) {
  process_metrics m = sample_metrics();
  const auto below_a_millisecond = [&m] {
    const families all = scrape(m);
    return find(all, "asio_pulse_queue_delay_seconds")->metric.at(0).histogram.bucket.at(9);
  };
  m.contexts[0].queue_delay = {.buckets = {{std::chrono::microseconds{1050}, 10}}};
  EXPECT_EQ(below_a_millisecond().upper_bound, 1e-3);
  EXPECT_EQ(below_a_millisecond().cumulative_count, 10U);
  auto& buckets = m.contexts[0].queue_delay.buckets;
  buckets.insert(buckets.begin(), {std::chrono::microseconds{1000}, 5});
  EXPECT_EQ(below_a_millisecond().cumulative_count, 15U);
  buckets.push_back({std::chrono::microseconds{1100}, 3});
  EXPECT_EQ(below_a_millisecond().cumulative_count, 15U);
}

TEST(prometheus_test, counts_of_a_context_do_not_fall_when_a_task_ends_during_the_reading) {
  exporter e(sample_metrics());
  const auto value = [&e](const std::string& name) {
    const families all = e.scrape();
    return series(all, name).at({});
  };
  EXPECT_EQ(value("asio_pulse_polls_total"), 1000);
  e.figures.contexts[0].polls = 900;
  e.figures.contexts[0].cpu = std::chrono::milliseconds{1400};
  EXPECT_EQ(value("asio_pulse_polls_total"), 1000);
  EXPECT_EQ(value("asio_pulse_cpu_seconds_total"), 1.5);
  e.figures.contexts[0].polls = 1100;
  EXPECT_EQ(value("asio_pulse_polls_total"), 1100);
  e.figures.contexts[0].number = 2;  // another one by this name starts anew
  e.figures.contexts[0].polls = 1;
  EXPECT_EQ(value("asio_pulse_polls_total"), 1);
}

TEST(prometheus_test, counts_of_unknown_stalls_do_not_fall) {
  exporter e(sample_metrics());
  const auto unknown = [&e] {
    const families all = e.scrape();
    return series(all, "asio_pulse_stalls_total")[{{"cause", "unknown"}}];
  };
  EXPECT_EQ(unknown(), 1);
  statistics& counted = e.figures.contexts[0].totals;
  ++counted.stalls_blocked;
  EXPECT_EQ(unknown(), 1);
  counted.stalls_blocked += 100;  // more than in all: read later
  EXPECT_EQ(unknown(), 1);
  counted.stalls = counted.stalls_spinning + counted.stalls_blocked + 8;
  EXPECT_EQ(unknown(), 8);
}

TEST(prometheus_test, begins_names_with_the_prefix) {
  for (const auto& f : scrape(sample_metrics(), {.prefix = "shop"})) {
    EXPECT_TRUE(f.name.starts_with("shop_")) << f.name;
  }
}

TEST(prometheus_test, says_so_when_there_are_no_figures) {
  bool broken = true;
  const prometheus_collectable c({}, [&broken](const metrics_request&) -> process_metrics {
    if (broken) throw std::runtime_error("gone");
    return sample_metrics();
  });
  EXPECT_THAT(text(c.Collect()), ::testing::EndsWith("asio_pulse_up 0\n"));
  EXPECT_EQ(c.Collect().size(), 1U);
  broken = false;
  EXPECT_EQ(series(c.Collect(), "asio_pulse_up"), (std::map<label_map, double>{{{}, 1}}));
}

TEST(prometheus_test, has_figures_of_no_context_when_there_is_none) {
  const families all = scrape(process_metrics{});
  EXPECT_EQ(all.size(), 3U);
  EXPECT_THAT(contexts_of(all), IsEmpty());
}

std::string refusal(prometheus_options o) {
  try {
    const prometheus_collectable c(std::move(o),
                                   [](const metrics_request&) { return process_metrics{}; });
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return {};
}

TEST(prometheus_test, refuses_options_by_name) {
  EXPECT_EQ(refusal({}), "");
  EXPECT_EQ(refusal({.prefix = "_x9"}), "");
  for (const char* const wrong : {"", "9x", "a-b", "__a", "a:b", "\x1b[1m", "a b"}) {
    EXPECT_THAT(
        refusal({.prefix = wrong}),
        HasSubstr("asio_pulse::prometheus_options.prefix must be a letter or an underscore"))
        << wrong;
  }
  EXPECT_THAT(refusal({.prefix = "\x1b[1m"}), HasSubstr("(got \"\\x1b[1m\")"));
  EXPECT_EQ(refusal({.top_tasks = 1001}),
            "asio_pulse::prometheus_options.top_tasks must be at most 1000 (got 1001)");
  EXPECT_EQ(refusal({.top_sites = 2048}),
            "asio_pulse::prometheus_options.top_sites must be at most 2047 (got 2048)");
  EXPECT_EQ(refusal({.top_groups = 1001}),
            "asio_pulse::prometheus_options.top_groups must be at most 1000 (got 1001)");
}

}  // namespace
}  // namespace asio_pulse
