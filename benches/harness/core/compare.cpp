// SPDX-License-Identifier: BSL-1.0
#include "compare.hpp"

#include "document.hpp"
#include "statistics.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <cmath>
#include <limits>
#include <map>
#include <tuple>

namespace pulse_bench {

namespace {

namespace json = boost::json;

/// The share of pairs of equal results that may differ by chance. It is one in a hundred, since
/// there are about a hundred pairs. With six repetitions each the least possible is 0.2 %, with
/// four 2.9 %.
constexpr double significant = 0.01;

struct measured {
  json::string unit;
  std::string label;
  std::string better;
  bool ours = false;
  std::vector<double> samples;
};

using figure_key = std::tuple<std::string, std::string, std::string, std::string>;

std::map<figure_key, measured> flatten(const json::object& result) {
  std::map<figure_key, measured> all;
  for (const auto& scenario : result.at("scenarios").as_array()) {
    for (const auto& variant : scenario.at("variants").as_array()) {
      std::map<std::string, bool> ours;
      for (const auto& arm : variant.at("arms").as_array()) {
        const json::value* const kind = arm.as_object().if_contains("kind");
        ours[shown_text(arm, "name")] = kind != nullptr && kind->is_string() && *kind == "ours";
      }
      for (const auto& metric : variant.at("metrics").as_array()) {
        for (const auto& [arm, value] : metric.at("arms").as_object()) {
          measured m{metric.at("unit").as_string(),
                     shown_text(metric, "label"),
                     shown_text(metric, "better"),
                     ours[std::string(arm)],
                     {}};
          for (const auto& sample : value.at("samples").as_array()) {
            m.samples.push_back(sample.to_number<double>());
          }
          all[{shown_text(scenario, "name"), shown_text(variant, "name"),
               shown_text(metric, "name"), for_terminal(arm)}] = std::move(m);
        }
      }
    }
  }
  return all;
}

/// The least p value that so many repetitions can have.
double least_p(std::size_t n, std::size_t m) {
  return mann_whitney(std::vector<double>(n, 0.0), std::vector<double>(m, 1.0));
}

difference judge(const measured& a, const measured& b, double limit) {
  difference d;
  d.metric = b.label;
  d.unit = for_terminal(b.unit);
  d.ours = b.ours;
  d.before = median(a.samples);
  d.after = median(b.samples);
  const double scale = std::abs(d.before);
  d.change = scale > 0 ? 100 * (d.after - d.before) / scale
             : d.after == d.before
                 ? 0
                 : std::copysign(std::numeric_limits<double>::infinity(), d.after);
  d.p_value = mann_whitney(a.samples, b.samples);
  if (std::abs(d.change) <= limit) return d;
  if (d.p_value < significant) {
    const bool worse = (d.change > 0) == (b.better == "lower");
    d.is = worse ? verdict::worse : verdict::better;
  } else if (least_p(a.samples.size(), b.samples.size()) >= significant) {
    d.is = verdict::undecided;
  }
  return d;
}

void warn_about_machines(const json::object& a, const json::object& b, comparison& to) {
  for (const std::string field : {"cpu", "cpus", "kernel", "compiler", "flags", "boost"}) {
    const auto shown = [&field](const json::object& from) {
      const json::value* const value = from.at("machine").as_object().if_contains(field);
      return value == nullptr ? std::string("unknown") : for_terminal(json::serialize(*value));
    };
    if (shown(a) != shown(b)) {
      to.warnings.push_back(fmt::format("measured under different conditions: {} is {} and {}",
                                        field, shown(a), shown(b)));
    }
  }
  for (const auto* one : {&a, &b}) {
    if (one->at("machine").at("noisy").as_bool()) {
      to.warnings.push_back(fmt::format("{} was measured on a noisy machine",
                                        one == &a ? "the first" : "the second"));
    }
  }
}

}  // namespace

comparison compare(const json::object& a, const json::object& b, double limit) {
  comparison result;
  warn_about_machines(a, b, result);
  const auto before = flatten(a);
  const auto after = flatten(b);
  std::size_t only_before = 0;
  std::size_t only_after = 0;
  for (const auto& [name, m] : before) only_before += after.count(name) == 0;
  for (const auto& [name, m] : after) {
    const auto found = before.find(name);
    if (found == before.end()) {
      ++only_after;
      continue;
    }
    if (m.better == "none") continue;
    if (found->second.unit != m.unit) {
      result.warnings.push_back(
          fmt::format("{} {} has another unit in each", std::get<0>(name), std::get<2>(name)));
      continue;
    }
    difference d = judge(found->second, m, limit);
    std::tie(d.scenario, d.variant, std::ignore, d.arm) = name;
    result.regression = result.regression || (d.ours && d.is == verdict::worse);
    result.differences.push_back(std::move(d));
  }
  if (only_before + only_after > 0) {
    result.warnings.push_back(fmt::format(
        "only the first has {} of the figures, only the second {}", only_before, only_after));
  }
  return result;
}

}  // namespace pulse_bench
