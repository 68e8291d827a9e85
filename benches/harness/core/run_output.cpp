// SPDX-License-Identifier: BSL-1.0
#include "run_output.hpp"

#include "process.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <cmath>
#include <stdexcept>

namespace pulse_bench {

namespace {

namespace json = boost::json;

json::object parse_object(const std::string& text) {
  boost::system::error_code error;
  json::value parsed = json::parse(text, error);
  if (error || !parsed.is_object()) {
    throw std::runtime_error(fmt::format("it printed no JSON object ({} bytes)", text.size()));
  }
  return std::move(parsed.as_object());
}

double finite_number(const json::value& value, std::string_view name) {
  boost::system::error_code error;
  const double result = value.to_number<double>(error);
  if (error || !std::isfinite(result)) {
    throw std::runtime_error(fmt::format("\"{}\" is not a number", name));
  }
  return result;
}

const json::object& object_at(const json::object& in, std::string_view name) {
  static const json::object none;
  const json::value* const found = in.if_contains(name);
  if (found == nullptr) return none;
  if (!found->is_object()) throw std::runtime_error(fmt::format("\"{}\" is not an object", name));
  return found->as_object();
}

std::string text_at(const json::object& in, std::string_view name) {
  const json::value* const found = in.if_contains(name);
  return found != nullptr && found->is_string() ? std::string(found->as_string().c_str()) : "";
}

run_output from_worker(const std::string& text) {
  const json::object all = parse_object(last_line(text));
  run_output result;
  result.label = text_at(all, "label");
  for (const auto& [name, list] : object_at(all, "samples_ns")) {
    if (!list.is_array())
      throw std::runtime_error("\"samples_ns\" has a member that is not a list");
    auto& samples = result.samples_ns[name];
    for (const auto& value : list.as_array()) samples.push_back(finite_number(value, name));
  }
  for (const auto& [name, value] : object_at(all, "values")) {
    if (!value.is_null()) result.values[name] = finite_number(value, name);
  }
  const auto steps = result.values.find("hog_steps");
  const auto elapsed = result.values.find("elapsed_ms");
  if (steps != result.values.end() && elapsed != result.values.end() && elapsed->second > 0) {
    result.values["hog_steps_per_s"] = 1000 * steps->second / elapsed->second;
  }
  result.timeline = object_at(all, "timeline");
  const json::value* const verified = all.if_contains("verified");
  if (verified == nullptr || !verified->is_bool()) {
    throw std::runtime_error("it does not say whether it was \"verified\"");
  }
  result.verified = verified->as_bool();
  result.verification = text_at(all, "verification");
  return result;
}

void add_figures(const json::object& from, const std::string& prefix, run_output& result) {
  for (const auto& [name, value] : from) {
    if (value.is_object()) {
      add_figures(value.as_object(), prefix + std::string(name) + ".", result);
    } else if (value.is_number()) {
      result.values[prefix + std::string(name)] = finite_number(value, name);
    }
  }
}

run_output from_google_benchmark(const std::string& text) {
  const json::object all = parse_object(text);
  const json::value* const list = all.if_contains("benchmarks");
  if (list == nullptr || !list->is_array()) throw std::runtime_error("it has no \"benchmarks\"");
  run_output result;
  for (const auto& entry : list->as_array()) {
    if (!entry.is_object()) throw std::runtime_error("a benchmark is not an object");
    const json::object& one = entry.as_object();
    const std::string name = text_at(one, "name");
    if (one.contains("error_occurred")) {
      throw std::runtime_error(fmt::format("{}: {}", name, text_at(one, "error_message")));
    }
    const json::value* const time = one.if_contains("cpu_time");
    if (name.empty() || time == nullptr || text_at(one, "time_unit") != "ns") {
      throw std::runtime_error("a benchmark has no name, no \"cpu_time\", or is not in ns");
    }
    result.values[name] = finite_number(*time, name);
  }
  return result;
}

}  // namespace

run_output parse_output(const std::string& text, format how) {
  if (how == format::worker) return from_worker(text);
  run_output result;
  if (how == format::google_benchmark) {
    result = from_google_benchmark(text);
  } else {
    add_figures(parse_object(last_line(text)), "", result);
  }
  if (result.values.empty()) throw std::runtime_error("it printed no figures");
  result.verified = true;  // these programs end with another status when their own checks fail
  return result;
}

}  // namespace pulse_bench
