// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/prometheus.hpp>

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace asio_pulse {

using prometheus::MetricFamily;
using prometheus::MetricType;

using families = std::vector<MetricFamily>;
using label_map = std::map<std::string, std::string>;

// A collectable whose figures the test sets.
struct exporter {
  process_metrics figures;
  std::vector<metrics_request> requests;
  prometheus_collectable collectable;

  explicit exporter(process_metrics m, prometheus_options o = {})
      : figures(std::move(m)), collectable(std::move(o), [this](const metrics_request& r) {
          requests.push_back(r);
          return figures;
        }) {}
  families scrape() { return collectable.Collect(); }
};

inline families scrape(process_metrics m, prometheus_options o = {}) {
  return exporter(std::move(m), std::move(o)).scrape();
}

inline const MetricFamily* find(const families& all, const std::string& name) {
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const auto& f) { return f.name == name; });
  return at == all.end() ? nullptr : &*at;
}

inline double number(const MetricFamily& f, const prometheus::ClientMetric& m) {
  return f.type == MetricType::Counter ? m.counter.value : m.gauge.value;
}

// The series of a counter or a gauge, by the labels but `context`.
inline std::map<label_map, double> series(const families& all, const std::string& name,
                                          const std::string& context = "server") {
  std::map<label_map, double> result;
  const MetricFamily* const f = find(all, name);
  if (f == nullptr) return result;
  for (const auto& m : f->metric) {
    label_map labels;
    for (const auto& l : m.label) labels[l.name] = l.value;
    if (const auto at = labels.find("context"); at != labels.end()) {
      if (at->second != context) continue;
      labels.erase(at);
    }
    EXPECT_TRUE(result.emplace(labels, number(*f, m)).second) << "twice in " << name;
  }
  return result;
}

inline std::string text(const families& all) { return prometheus::TextSerializer().Serialize(all); }

inline std::vector<std::string> contexts_of(const families& all) {
  std::vector<std::string> result;
  const MetricFamily* const f = find(all, "asio_pulse_polls_total");
  if (f == nullptr) return result;
  for (const auto& m : f->metric) result.push_back(m.label.at(0).value);
  return result;
}

inline context_metrics context(std::uint64_t number, std::string name) {
  context_metrics c;
  c.number = number;
  c.name = std::move(name);
  return c;
}

}  // namespace asio_pulse
