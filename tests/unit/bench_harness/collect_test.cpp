// SPDX-License-Identifier: BSL-1.0
#include "collect.hpp"

#include "catalogue/catalogue.hpp"
#include "table.hpp"

#include <boost/json.hpp>

#include <gmock/gmock.h>

#include <set>
#include <stdexcept>

namespace pulse_bench {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

run_output output(double value, std::vector<double> samples_ns) {
  run_output run;
  run.values["took_ms"] = value;
  run.values["loop"] = 1;
  run.samples_ns["late"] = std::move(samples_ns);
  run.verified = true;
  run.verification = "counted";
  return run;
}

variant_spec spec() {
  variant_spec v;
  v.name = "v";
  v.title = "a variant";
  v.arms = {{"stock", "Boost.Asio", arm_kind::baseline, {}},
            {"pulse", "asio-pulse", arm_kind::ours, {}}};
  v.metrics = {{"took_ms", "took", "ms", "lower", true, "took_ms"},
               {"late_p50_ms", "late", "ms", "lower", false, "late", 0.5, 1e6}};
  v.distributions = {{"late", "late", "ms", "late", 1e6}};
  return v;
}

TEST(bench_collect, medians_and_ratios_pair_by_pair) {
  repetitions runs;
  for (const double n : {1.0, 2.0, 4.0}) {
    runs["stock"].push_back(output(n, {1e6, 2e6, 3e6}));
    runs["pulse"].push_back(output(2 * n, {4e6, 5e6, 6e6}));
  }
  const json::object v = collect_variant(spec(), runs);
  EXPECT_TRUE(v.at("verified").as_bool());
  EXPECT_EQ(v.at("verification"), "counted");
  const json::value& took = v.at("metrics").at(0);
  EXPECT_EQ(took.at("arms").at("pulse").at("median"), 4.0);
  EXPECT_EQ(took.at("arms").at("pulse").at("samples"), (json::array{2.0, 4.0, 8.0}));
  EXPECT_EQ(took.at("ratio_to_stock").at("pulse"),
            (json::object{{"median", 2.0}, {"low", 2.0}, {"high", 2.0}}));
  EXPECT_EQ(v.at("metrics").at(1).at("arms").at("stock").at("median"), 2.0);
  const json::value& late = v.at("distributions").at(0).at("arms").at("pulse");
  EXPECT_EQ(late.at("count"), 9);
  EXPECT_EQ(late.at("mean"), 5.0);
  EXPECT_EQ(late.at("samples").as_array().size(), 9U);
}

TEST(bench_collect, many_samples_become_buckets) {
  repetitions runs;
  for (const auto* arm : {"stock", "pulse"}) {
    runs[arm].push_back(output(1, std::vector<double>(5000, 2e6)));
  }
  const json::object v = collect_variant(spec(), runs);
  const json::value& late = v.at("distributions").at(0).at("arms").at("stock");
  const json::array& buckets = late.at("buckets").as_array();
  ASSERT_EQ(buckets.size(), 1U);
  EXPECT_EQ(buckets[0].at(0).to_number<double>(), 2.0);
  EXPECT_EQ(buckets[0].at(1).to_number<int>(), 5000);
}

TEST(bench_collect, one_wrong_repetition_makes_the_variant_unverified) {
  repetitions runs;
  runs["stock"] = {output(1, {1}), output(1, {1})};
  runs["pulse"] = {output(1, {1})};
  runs["pulse"][0].verified = false;
  runs["pulse"][0].verification = "a handler was lost";
  const json::object v = collect_variant(spec(), runs);
  EXPECT_FALSE(v.at("verified").as_bool());
  EXPECT_EQ(v.at("verification"), "a handler was lost");
  EXPECT_NO_THROW(collect_variant(spec(), {}));
}

TEST(bench_collect, targets_by_median_ratio_and_difference) {
  repetitions runs;
  runs["stock"] = {output(10, {1})};
  runs["pulse"] = {output(15, {1})};
  scenario_spec s;
  s.targets = {{"m", "v", "took_ms", "pulse", reading::median, "lower", 15},
               {"r", "v", "took_ms", "pulse", reading::ratio, "lower", 1.4},
               {"d", "v", "took_ms", "pulse", reading::difference, "higher", 5},
               {"none", "v", "no_such_metric", "pulse", reading::median, "lower", 1}};
  const json::object all = collect_scenario(s, {collect_variant(spec(), runs)});
  const json::array& targets = all.at("targets").as_array();
  EXPECT_EQ(targets[0].at("met"), true);
  EXPECT_EQ(targets[1].at("value"), 1.5);
  EXPECT_EQ(targets[1].at("met"), false);
  EXPECT_EQ(targets[2].at("value"), 5.0);
  EXPECT_EQ(targets[2].at("met"), true);
  EXPECT_TRUE(targets[3].at("value").is_null());
}

TEST(bench_output, of_the_worker_and_what_is_wrong_with_it) {
  const run_output run = parse_output(
      "noise\n{\"label\":\"x\",\"samples_ns\":{\"late\":[1,2]},\"values\":{\"hog_steps\":50,"
      "\"elapsed_ms\":10},\"verified\":true,\"verification\":\"ok\"}\n",
      format::worker);
  EXPECT_EQ(run.samples_ns.at("late"), (std::vector<double>{1, 2}));
  EXPECT_EQ(run.values.at("hog_steps_per_s"), 5000);
  EXPECT_TRUE(run.verified);
  EXPECT_THROW(parse_output("", format::worker), std::runtime_error);
  EXPECT_THROW(parse_output("{}", format::worker), std::runtime_error);
  EXPECT_THROW(parse_output(R"({"verified":"yes"})", format::worker), std::runtime_error);
  EXPECT_THROW(parse_output(R"({"samples_ns":{"a":["x"]},"verified":true})", format::worker),
               std::runtime_error);
}

TEST(bench_output, of_google_benchmark) {
  const run_output run =
      parse_output(R"({"benchmarks":[{"name":"loop","cpu_time":0.5,"time_unit":"ns"}]})",
                   format::google_benchmark);
  EXPECT_EQ(run.values.at("loop"), 0.5);
  EXPECT_THROW(
      parse_output(R"({"benchmarks":[{"name":"x","error_occurred":true,"error_message":"no"}]})",
                   format::google_benchmark),
      std::runtime_error);
}

TEST(bench_catalogue, each_scenario_has_what_a_reader_needs) {
  settings with;
  with.programs = "/nowhere";
  with.source = "/nowhere";
  for (const auto& name : scenario_names()) {
    const scenario_spec s = make_scenario(name.name, with);
    EXPECT_FALSE(s.title.empty() || s.question.empty() || s.notes.empty()) << name.name;
    EXPECT_FALSE(s.variants.empty()) << name.name;
    std::set<std::string> variants;
    for (const auto& v : s.variants) {
      EXPECT_TRUE(variants.insert(v.name).second) << v.name;
      // Nothing in Boost.Asio compares with what has one arm only, such as the move of a connection.
      if (v.arms.size() > 1) {
        EXPECT_EQ(v.arms.front().name, "stock") << name.name << v.name;
      }
      int headlines = 0;
      for (const auto& m : v.metrics) headlines += m.headline;
      EXPECT_EQ(headlines, 1) << name.name << v.name;
    }
    for (const auto& t : s.targets) EXPECT_TRUE(variants.contains(t.variant)) << t.text;
  }
  EXPECT_THROW(make_scenario("none", with), std::invalid_argument);
}

TEST(bench_table, numbers_have_three_digits) {
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(0.01234), "0.0123");
  EXPECT_EQ(number(1.5), "1.50");
  EXPECT_EQ(number(123.4), "123");
  EXPECT_EQ(number(1234567), "1 234 567");
  EXPECT_EQ(number(-1234), "-1 234");
}

}  // namespace
}  // namespace pulse_bench
