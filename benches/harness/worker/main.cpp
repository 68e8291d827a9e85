// SPDX-License-Identifier: BSL-1.0
#include "worker.hpp"

#include <boost/json.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include <cstdio>
#include <exception>
#include <utility>

namespace {

namespace json = boost::json;

#if defined(BENCH_STOCK)
constexpr const char* arm = "stock";
constexpr const char* label = "Boost.Asio";
#else
constexpr const char* arm = "pulse";
constexpr const char* label = "asio-pulse";
#endif

json::object to_json(const worker::timeline& t) {
  json::array probe;
  for (const auto& [at, late] : t.probe) probe.push_back(json::array{at, late});
  json::array spans;
  for (const auto& [at, length, kind] : t.spans) spans.push_back(json::array{at, length, kind});
  json::array marks;
  for (const auto& [at, kind, text] : t.marks) marks.push_back(json::array{at, kind, text});
  return {{"duration_ms", t.duration_ms},
          {"probe", std::move(probe)},
          {"spans", std::move(spans)},
          {"marks", std::move(marks)}};
}

json::object to_json(const worker::request& r, const worker::outcome& o, bool with_timeline) {
  json::object samples;
  for (const auto& [name, list] : o.samples_ns)
    samples[name] = json::array(list.begin(), list.end());
  json::object values;
  for (const auto& [name, value] : o.values) values[name] = value;
  json::object result{{"arm", arm},
                      {"label", label},
                      {"scenario", r.scenario},
                      {"variant", r.variant},
                      {"samples_ns", std::move(samples)},
                      {"values", std::move(values)},
                      {"verified", o.verified},
                      {"verification", o.verification}};
  if (with_timeline) result["timeline"] = to_json(o.timeline);
  return result;
}

worker::outcome run(const worker::request& r) {
  static const std::map<std::string, worker::outcome (*)(const worker::request&)> scenarios{
      {"starvation", worker::starvation},
      {"storm", worker::storm},
      {"liar", worker::liar},
      {"latency", worker::latency},
      {"defaults", worker::defaults},
      {"scale", worker::scale},
      {"soak", worker::soak},
      {"shares", worker::shares},
      {"shards", worker::shards}};
  return scenarios.at(r.scenario)(r);
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"Runs one repetition of one scenario and prints one line of JSON."};
  worker::request r;
  long duration_ms = r.duration.count();
  long hog_ms = r.hog.count();
  long piece_us = r.piece.count();
  bool with_timeline = false;
  app.add_option("scenario", r.scenario)
      ->required()
      ->check(CLI::IsMember({"starvation", "storm", "liar", "latency", "defaults", "scale", "soak",
                             "shares", "shards"}));
  app.add_option("--variant,--hog", r.variant);
  app.add_option("--workers", r.workers)->check(CLI::Range(1, 64));
  app.add_option("--duration-ms", duration_ms)->check(CLI::Range(1L, 100'000'000L));
  app.add_option("--hog-ms", hog_ms)->check(CLI::Range(1L, 60'000L));
  app.add_option("--piece-us", piece_us)->check(CLI::Range(1L, 1'000'000L));
  app.add_option("--connections", r.connections)->check(CLI::Range(1, 100));
  app.add_option("--rate", r.rate)->check(CLI::Range(1, 100'000));
  app.add_option("--handlers,--tasks", r.handlers)->check(CLI::Range(1, 10'000'000));
  app.add_option("--most-tasks", r.most_tasks)->check(CLI::Range(100, 10'000'000));
  app.add_flag("--timeline", with_timeline);
  CLI11_PARSE(app, argc, argv);
  r.duration = std::chrono::milliseconds{duration_ms};
  r.hog = std::chrono::milliseconds{hog_ms};
  r.piece = std::chrono::microseconds{piece_us};

  const worker::outcome result = run(r);
  const std::string line = json::serialize(to_json(r, result, with_timeline));
  fmt::print("{}\n", line);
  return result.verified ? 0 : 1;
} catch (const std::exception& e) {
  fmt::print(stderr, "bench_worker: {}\n", e.what());
  return 2;
}
