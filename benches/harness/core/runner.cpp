// SPDX-License-Identifier: BSL-1.0
#include "runner.hpp"

#include "collect.hpp"
#include "machine.hpp"
#include "process.hpp"
#include "statistics.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <algorithm>

namespace pulse_bench {

namespace {

namespace json = boost::json;
using clock_type = std::chrono::steady_clock;

/// The part of a text from outside that goes into the result: printable ASCII, on one line. So the
/// result is JSON, whatever the bytes of the text were.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) {
        return static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126;
      },
      '?');
  return text.substr(0, 300);
}

run_output run_once(const arm_spec& arm, const variant_spec& variant, bool with_timeline) {
  std::vector<std::string> command = arm.command;
  if (with_timeline && arm.kind != arm_kind::peer) command.emplace_back("--timeline");
  const std::string program = std::filesystem::path(command[0]).filename().string();
  std::string said;
  try {
    const process_result done = run_process(command, std::chrono::seconds{variant.limit_s});
    said = done.status != 0 ? printable(last_line(done.errors)) : "";
    if (done.status != 0 && variant.output != format::worker) {
      throw std::runtime_error(fmt::format("it ended with status {}: {}", done.status, said));
    }
    run_output result = parse_output(done.output, variant.output);
    if (done.status != 0 && result.verified) {
      result.verified = false;
      result.verification = fmt::format("it ended with status {}: {}", done.status, said);
    }
    return result;
  } catch (const interrupted&) {
    throw;
  } catch (const std::exception& e) {
    // Continue with the rest of the run.
    run_output wrong;
    wrong.verification =
        fmt::format("{}: {}{}{}", program, e.what(), said.empty() ? "" : "; ", said);
    return wrong;
  }
}

class run_of_all {
 public:
  run_of_all(const settings& with, const progress& tell, std::size_t total)
      : with_{with}, tell_{tell}, total_{total} {}

  int rounds(const variant_spec& v) const {
    return v.repetitions > 0 ? v.repetitions : with_.repetitions;
  }

  json::object variant(const scenario_spec& scenario, const variant_spec& v) {
    repetitions runs;
    for (int round = v.warm_up ? -1 : 0; round < rounds(v); ++round) {
      std::vector<arm_spec> order = v.arms;
      if (round % 2 != 0) std::reverse(order.begin(), order.end());
      for (const arm_spec& arm : order) {
        tell_(fmt::format("{} {}, {}, {}", scenario.name, v.name,
                          round < 0 ? std::string("warming up")
                                    : fmt::format("round {} of {}", round + 1, rounds(v)),
                          arm.name),
              static_cast<double>(done_++) / static_cast<double>(total_));
        run_output output = run_once(arm, v, v.timeline && round == 0);
        const bool verified = output.verified;
        if (round >= 0 || !verified) runs[arm.name].push_back(std::move(output));
        if (!verified) {
          done_ += count(v);  // approximate; only for the progress display
          return collect_variant(v, runs);
        }
      }
    }
    return collect_variant(v, runs);
  }

  std::size_t count(const variant_spec& v) const {
    return v.arms.size() * static_cast<std::size_t>(rounds(v) + (v.warm_up ? 1 : 0));
  }

  void expect(std::size_t total) { total_ = total; }

 private:
  const settings& with_;
  const progress& tell_;
  std::size_t total_;
  std::size_t done_ = 0;
};

/// How often the slow HTTP request hashes to take 50 ms on this machine.
std::string calibrate_http(const settings& with) {
  const auto program = with.programs / "http_server_stock";
  if (!std::filesystem::exists(program)) return {};
  const process_result done =
      run_process({program.string(), "calibrate", "50"}, std::chrono::seconds{30});
  return done.status == 0 ? last_line(done.output) : "";
}

}  // namespace

json::object run_scenarios(const std::vector<std::string>& names, const settings& asked,
                           const std::string& command, const progress& tell) {
  const auto start = clock_type::now();
  const disturbance before = look_around();
  const std::string created = timestamp();
  settings with = asked;
  const auto asked_for = [&names](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (asked_for("http") || asked_for("checkpoints") || asked_for("shards")) {
    with.http_rounds = calibrate_http(with);
  }
  std::vector<scenario_spec> specs;
  for (const std::string& name : names) specs.push_back(make_scenario(name, with));
  run_of_all runner{with, tell, 1};
  std::size_t total = 0;
  for (const auto& spec : specs) {
    for (const auto& variant : spec.variants) total += runner.count(variant);
  }
  runner.expect(std::max<std::size_t>(1, total));
  json::array scenarios;
  for (scenario_spec& spec : specs) {
    json::array variants;
    for (const variant_spec& variant : spec.variants) {
      variants.push_back(runner.variant(spec, variant));
    }
    if (with.repetitions < 6) {
      spec.notes.push_back(fmt::format(
          "Only {} repetitions: the interval given is their range, which holds the true median "
          "with a probability of {:.0f} %.",
          with.repetitions, 100 * coverage(static_cast<std::size_t>(with.repetitions))));
    }
    scenarios.push_back(collect_scenario(spec, std::move(variants)));
  }
  const disturbance after = look_around();
  const std::chrono::duration<double> took = clock_type::now() - start;
  return {{"schema", "asio-pulse-bench/1"},
          {"created", created},
          {"duration_s", took.count()},
          {"machine", describe_machine(before, after, with.source, printable(command))},
          {"scenarios", std::move(scenarios)}};
}

std::vector<std::string> failures(const json::object& result) {
  std::vector<std::string> lines;
  for (const json::value& scenario : result.at("scenarios").as_array()) {
    for (const json::value& variant : scenario.at("variants").as_array()) {
      if (variant.at("verified").as_bool()) continue;
      lines.push_back(fmt::format("{} {}: {}", scenario.at("name").as_string().c_str(),
                                  variant.at("name").as_string().c_str(),
                                  printable(variant.at("verification").as_string().c_str())));
    }
  }
  return lines;
}

}  // namespace pulse_bench
