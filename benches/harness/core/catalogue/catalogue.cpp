// SPDX-License-Identifier: BSL-1.0
#include "catalogue.hpp"

#include "catalogue_parts.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace pulse_bench {

namespace {

struct entry {
  scenario_name name;
  scenario_spec (*make)(const settings&);
};

const std::vector<entry>& entries() {
  static const std::vector<entry> all{
      {{"starvation", "How late is a 1 ms timer beside a handler that computes?", true},
       starvation},
      {{"storm", "How late is a 1 ms timer beside 20 000 small handlers?", true}, storm},
      {{"liar", "What happens with handlers that evade the budget?", true}, liar},
      {{"latency", "How long do requests wait that arrive at a fixed rate?", true}, latency},
      {{"defaults", "How long do connections wait beside work of no task, with default options?",
        true},
       defaults},
      {{"http", "How long does a fast request of a web server wait beside slow ones?", true}, http},
      {{"checkpoints", "How late is a 1 ms timer beside code that knows nothing of asio-pulse?",
        false},
       checkpoints},
      {{"overhead", "What does asio-pulse add to one operation?", true}, overhead},
      {{"scale", "What does a poll cost with a million tasks?", true}, scale},
      {{"soak", "Does a mixed load lose anything, or make memory grow?", false}, soak},
      {{"shares", "Who gets the CPU when there is not enough, and who is refused?", false}, shares},
      {{"shards", "What do contexts with one thread each cost, and how do they share the load?",
        false},
       shards}};
  return all;
}

}  // namespace

std::filesystem::path built_programs() { return PULSE_BENCH_PROGRAMS; }
std::filesystem::path source_folder() { return PULSE_BENCH_SOURCE; }

std::chrono::milliseconds settings::length(std::chrono::milliseconds usual) const {
  if (seconds > 0) {
    return std::chrono::milliseconds{std::max(50L, std::lround(seconds * 1000))};
  }
  return quick ? std::max(std::chrono::milliseconds{100}, usual / 2) : usual;
}

const std::vector<scenario_name>& scenario_names() {
  static const std::vector<scenario_name> names = [] {
    std::vector<scenario_name> result;
    for (const entry& one : entries()) result.push_back(one.name);
    return result;
  }();
  return names;
}

scenario_spec make_scenario(const std::string& name, const settings& with) {
  for (const entry& one : entries()) {
    if (one.name.name != name) continue;
    scenario_spec result = one.make(with);
    result.name = name;
    result.question = one.name.question;
    return result;
  }
  throw std::invalid_argument("there is no scenario with this name");
}

std::vector<arm_spec> worker_arms(const settings& with, const words& arguments) {
  std::vector<arm_spec> arms{{"stock", "Boost.Asio", arm_kind::baseline, {}},
                             {"pulse", "asio-pulse", arm_kind::ours, {}}};
  for (arm_spec& arm : arms) {
    arm.command = {(with.programs / ("bench_worker_" + arm.name)).string()};
    arm.command.insert(arm.command.end(), arguments.begin(), arguments.end());
  }
  return arms;
}

void add_peers(std::vector<arm_spec>& arms, const settings& with, const words& arguments) {
  if (!with.peers) return;
  for (const std::string name : {"tokio", "go", "erlang"}) {
    const auto program = with.programs / "peers" / ("peer_" + name);
    if (!std::filesystem::exists(program)) continue;
    arm_spec arm{name, name, arm_kind::peer, {program.string()}};
    arm.command.insert(arm.command.end(), arguments.begin(), arguments.end());
    arms.push_back(std::move(arm));
  }
}

std::vector<metric_spec> lateness_metrics(const std::string& key, const std::string& label) {
  return {{key + "_p50_ms", label + ", p50", "ms", "lower", false, key, 0.50, 1e6},
          {key + "_p99_ms", label + ", p99", "ms", "lower", true, key, 0.99, 1e6},
          {key + "_max_ms", label + ", worst", "ms", "lower", false, key, 1.00, 1e6}};
}

void add_counts(std::vector<metric_spec>& metrics, const words& names) {
  for (const std::string& name : names) {
    // "pulse.yields" becomes "yields", since the arm names the runtime.
    std::string label = name.substr(name.rfind('.') + 1);
    std::replace(label.begin(), label.end(), '_', ' ');
    metrics.push_back({name, label, "", "none", false, name});
  }
}

long web_seconds(const settings& with, long least) {
  return std::max(least, std::lround(with.seconds));
}

variant_spec web_variant(const std::string& name, const std::string& title, bool hogs,
                         long seconds) {
  variant_spec v;
  v.name = name;
  v.title = title;
  v.output = format::figures;
  v.verification = "every fast answer had its length and status 200";
  if (hogs) v.verification.insert(0, "every digest was the right one, ");
  v.warm_up = false;  // each run is a new server, which is asked before it is measured
  v.limit_s = 60 + static_cast<int>(std::min<long>(seconds, 86400));
  return v;
}

words web_command(const settings& with, const std::string& which, const std::string& threads,
                  bool hogs, long seconds) {
  words command{"python3",
                "-B",
                (with.source / "support" / "main_job.py").string(),
                "--build",
                with.programs.parent_path().string(),
                "--one",
                which,
                "--threads",
                threads,
                "--seconds",
                fmt::to_string(seconds),
                "--rounds",
                with.http_rounds};
  if (hogs) command.emplace_back("--hogs");
  return command;
}

}  // namespace pulse_bench
