// SPDX-License-Identifier: BSL-1.0
#include "collect.hpp"

#include "statistics.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <optional>

namespace pulse_bench {

namespace {

namespace json = boost::json;

constexpr std::size_t most_samples = 2000;  // of a distribution; above that it is given in buckets

json::array to_array(const std::vector<double>& values) {
  return json::array(values.begin(), values.end());
}

json::object to_json(const interval& i) {
  return {{"median", i.median}, {"low", i.low}, {"high", i.high}};
}

const char* word(arm_kind kind) {
  switch (kind) {
    case arm_kind::baseline:
      return "baseline";
    case arm_kind::ours:
      return "ours";
    case arm_kind::peer:
      return "peer";
  }
  return "";
}

/// Empty if an earlier step has failed.
const std::vector<run_output>& runs_of(const repetitions& runs, const arm_spec& arm) {
  static const std::vector<run_output> none;
  const auto found = runs.find(arm.name);
  return found == runs.end() ? none : found->second;
}

/// The metric in one repetition, if the repetition has it.
std::optional<double> value_of(const metric_spec& m, const run_output& run) {
  if (m.share < 0) {
    const auto found = run.values.find(m.key);
    if (found == run.values.end()) return std::nullopt;
    if (m.minus.empty()) return found->second / m.divide_by;
    const auto less = run.values.find(m.minus);
    if (less == run.values.end()) return std::nullopt;
    return (found->second - less->second) / m.divide_by;
  }
  const auto found = run.samples_ns.find(m.key);
  if (found == run.samples_ns.end() || found->second.empty()) return std::nullopt;
  std::vector<double> sorted = found->second;
  std::sort(sorted.begin(), sorted.end());
  return quantile(sorted, m.share) / m.divide_by;
}

/// One value a repetition; nothing unless every repetition has one.
std::vector<double> values_of(const metric_spec& m, const std::vector<run_output>& runs) {
  std::vector<double> result;
  for (const run_output& run : runs) {
    const auto value = value_of(m, run);
    if (!value) return {};
    result.push_back(*value);
  }
  return result;
}

json::object collect_metric(const metric_spec& m, const variant_spec& spec,
                            const repetitions& runs) {
  json::object arms;
  std::map<std::string, std::vector<double>> values;
  for (const arm_spec& arm : spec.arms) {
    const std::vector<double> samples = values_of(m, runs_of(runs, arm));
    if (samples.empty()) continue;
    json::object entry{{"samples", to_array(samples)}};
    for (auto& [name, value] : to_json(median_interval(samples))) entry[name] = value;
    arms[arm.name] = std::move(entry);
    values[arm.name] = samples;
  }
  json::object ratios;
  const auto stock = values.find("stock");
  if (stock != values.end() && m.better != "none" &&
      std::all_of(stock->second.begin(), stock->second.end(), [](double v) { return v > 0; })) {
    for (const auto& [name, samples] : values) {
      if (name == "stock") continue;
      std::vector<double> pairs;
      for (std::size_t n = 0; n < std::min(samples.size(), stock->second.size()); ++n) {
        pairs.push_back(samples[n] / stock->second[n]);
      }
      ratios[name] = to_json(median_interval(pairs));
    }
  }
  return {{"name", m.name},
          {"label", m.label},
          {"unit", m.unit},
          {"better", m.better},
          {"headline", m.headline},
          {"arms", std::move(arms)},
          {"ratio_to_stock", std::move(ratios)}};
}

json::object collect_distribution(const distribution_spec& d, const variant_spec& spec,
                                  const repetitions& runs) {
  json::object arms;
  for (const arm_spec& arm : spec.arms) {
    std::vector<double> all;
    for (const run_output& run : runs_of(runs, arm)) {
      const auto found = run.samples_ns.find(d.key);
      if (found == run.samples_ns.end()) continue;
      for (const double value : found->second) all.push_back(value / d.divide_by);
    }
    if (all.empty()) continue;
    std::sort(all.begin(), all.end());
    const double sum = std::accumulate(all.begin(), all.end(), 0.0);
    json::object entry{{"count", all.size()},
                       {"min", all.front()},
                       {"max", all.back()},
                       {"mean", sum / static_cast<double>(all.size())}};
    if (all.size() <= most_samples) {
      entry["samples"] = to_array(all);
    } else {
      json::array list;
      for (const auto& [upper, count] : buckets(all)) {
        list.push_back(json::array{std::min(upper, all.back()), count});
      }
      entry["buckets"] = std::move(list);
    }
    arms[arm.name] = std::move(entry);
  }
  return {{"name", d.name}, {"label", d.label}, {"unit", d.unit}, {"arms", std::move(arms)}};
}

json::object collect_series(const series_spec& s, const variant_spec& spec,
                            const repetitions& runs) {
  json::object arms;
  for (const arm_spec& arm : spec.arms) {
    std::map<double, std::vector<double>> points;
    for (const run_output& run : runs_of(runs, arm)) {
      for (const auto& [key, value] : run.values) {
        if (!key.starts_with(s.prefix)) continue;
        char* end = nullptr;
        const double x = std::strtod(key.c_str() + s.prefix.size(), &end);
        if (*end == '\0') points[x].push_back(value);
      }
    }
    json::array list;
    for (const auto& [x, values] : points) {
      const interval i = median_interval(values);
      list.push_back(json::array{x, i.median, i.low, i.high});
    }
    if (!list.empty()) arms[arm.name] = std::move(list);
  }
  return {{"name", s.name},   {"label", s.label},     {"x_label", s.x_label},
          {"x_log", s.x_log}, {"y_label", s.y_label}, {"arms", std::move(arms)}};
}

/// The metric with this name, of the variant with this name; null if there is none.
const json::object* find_metric(const json::array& variants, const target_spec& target) {
  for (const json::value& variant : variants) {
    if (variant.at("name").as_string() != target.variant) continue;
    for (const json::value& metric : variant.at("metrics").as_array()) {
      if (metric.at("name").as_string() == target.metric) return &metric.as_object();
    }
  }
  return nullptr;
}

std::optional<double> value_of(const target_spec& target, const json::array& variants) {
  const json::object* const metric = find_metric(variants, target);
  if (metric == nullptr) return std::nullopt;
  const json::object& arms = metric->at("arms").as_object();
  const json::object& ratios = metric->at("ratio_to_stock").as_object();
  if (target.how == reading::ratio) {
    const json::value* const found = ratios.if_contains(target.arm);
    if (found == nullptr) return std::nullopt;
    return found->at("median").to_number<double>();
  }
  const json::value* const found = arms.if_contains(target.arm);
  if (found == nullptr) return std::nullopt;
  if (target.how == reading::median) return found->at("median").to_number<double>();
  const json::value* const stock = arms.if_contains("stock");
  if (stock == nullptr) return std::nullopt;
  std::vector<double> differences;
  const json::array& ours = found->at("samples").as_array();
  const json::array& theirs = stock->at("samples").as_array();
  for (std::size_t n = 0; n < std::min(ours.size(), theirs.size()); ++n) {
    differences.push_back(ours[n].to_number<double>() - theirs[n].to_number<double>());
  }
  return median(differences);
}

}  // namespace

json::object collect_variant(const variant_spec& spec, const repetitions& runs) {
  json::array arms;
  bool verified = true;
  std::string verification = spec.verification;
  json::object timelines;
  for (const arm_spec& arm : spec.arms) {
    const std::vector<run_output>& all = runs_of(runs, arm);
    const std::string own = all.empty() ? "" : all.front().label;
    arms.push_back(
        json::object{{"name", arm.name},
                     {"label", arm.kind == arm_kind::peer && !own.empty() ? own : arm.label},
                     {"kind", word(arm.kind)}});
    for (const run_output& run : all) {
      if (verified && !run.verification.empty()) verification = run.verification;
      verified = verified && run.verified;
    }
    if (spec.timeline && !all.empty() && !all.front().timeline.empty())
      timelines[arm.name] = all.front().timeline;
  }
  json::array metrics;
  for (const metric_spec& m : spec.metrics) {
    json::object metric = collect_metric(m, spec, runs);
    if (!metric.at("arms").as_object().empty()) metrics.push_back(std::move(metric));
  }
  json::array distributions;
  for (const auto& d : spec.distributions) {
    distributions.push_back(collect_distribution(d, spec, runs));
  }
  json::array series;
  for (const auto& s : spec.series) series.push_back(collect_series(s, spec, runs));
  json::array lines;
  if (!timelines.empty()) {
    lines.push_back(
        json::object{{"name", "probe"}, {"label", "one run"}, {"arms", std::move(timelines)}});
  }
  return {{"name", spec.name},
          {"title", spec.title},
          {"parameters", spec.parameters},
          {"verified", verified},
          {"verification", verification},
          {"arms", std::move(arms)},
          {"metrics", std::move(metrics)},
          {"distributions", std::move(distributions)},
          {"timelines", std::move(lines)},
          {"series", std::move(series)}};
}

json::object collect_scenario(const scenario_spec& spec, json::array variants) {
  json::array targets;
  for (const target_spec& target : spec.targets) {
    json::object entry{{"text", target.text},
                       {"value", nullptr},
                       {"limit", target.limit},
                       {"better", target.better},
                       {"met", nullptr}};
    if (const auto value = value_of(target, variants)) {
      entry["value"] = *value;
      entry["met"] = target.better == "lower" ? *value <= target.limit : *value >= target.limit;
    }
    targets.push_back(std::move(entry));
  }
  json::array notes;
  for (const std::string& note : spec.notes) notes.emplace_back(note);
  return {{"name", spec.name},
          {"title", spec.title},
          {"question", spec.question},
          {"variants", std::move(variants)},
          {"targets", std::move(targets)},
          {"notes", std::move(notes)}};
}

}  // namespace pulse_bench
