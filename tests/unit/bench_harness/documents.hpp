// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/json.hpp>

#include <string>
#include <vector>

namespace pulse_bench {

/// A whole result with one metric of two arms.
inline boost::json::object sample_document(const std::vector<double>& stock,
                                           const std::vector<double>& pulse,
                                           const std::string& better = "lower") {
  namespace json = boost::json;
  const auto arm = [](const std::vector<double>& samples) {
    return json::object{{"samples", json::array(samples.begin(), samples.end())},
                        {"median", samples.front()},
                        {"low", samples.front()},
                        {"high", samples.front()}};
  };
  const json::object metric{{"name", "late_ms"},
                            {"label", "timer lateness, p99"},
                            {"unit", "ms"},
                            {"better", better},
                            {"headline", true},
                            {"arms", {{"stock", arm(stock)}, {"pulse", arm(pulse)}}},
                            {"ratio_to_stock", json::object{}}};
  const json::object variant{
      {"name", "one"},
      {"title", "one worker"},
      {"parameters", json::object{}},
      {"verified", true},
      {"verification", "all of it"},
      {"arms", json::array{{{"name", "stock"}, {"label", "Boost.Asio"}, {"kind", "baseline"}},
                           {{"name", "pulse"}, {"label", "asio-pulse"}, {"kind", "ours"}}}},
      {"metrics", json::array{metric}},
      {"distributions", json::array{}},
      {"timelines", json::array{}},
      {"series", json::array{}}};
  const json::object scenario{{"name", "starvation"},     {"title", "A timer"},
                              {"question", "How late?"},  {"variants", json::array{variant}},
                              {"targets", json::array{}}, {"notes", json::array{}}};
  const json::object machine{
      {"cpu", "a CPU"},  {"cpus", 2},     {"kernel", "6.1"}, {"compiler", "g++"},
      {"boost", "1.81"}, {"commit", "0"}, {"noisy", false},  {"noise", json::array{}}};
  return {{"schema", "asio-pulse-bench/1"},
          {"created", "2026-11-21T22:50:00Z"},
          {"duration_s", 1.5},
          {"machine", machine},
          {"scenarios", json::array{scenario}}};
}

}  // namespace pulse_bench
