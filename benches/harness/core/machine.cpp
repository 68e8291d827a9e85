// SPDX-License-Identifier: BSL-1.0
#include "machine.hpp"

#include "process.hpp"
#include "statistics.hpp"

#include <boost/json/array.hpp>
#include <boost/version.hpp>

#include <fmt/chrono.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <numeric>
#include <sstream>

namespace pulse_bench {

namespace {

/// How long a fixed piece of work of about a millisecond takes. The spread shows how evenly the
/// process gets the CPU.
double timed_work() {
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t value = 88172645463325252U;
  for (int i = 0; i < 400'000; ++i) {
    value ^= value << 13U;
    value ^= value >> 7U;
    value ^= value << 17U;
  }
  asm volatile("" : : "r"(value));
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

std::string cpu_model(bool& is_virtual) {
  std::ifstream info("/proc/cpuinfo");
  std::string model = "unknown";
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name") && colon + 2 <= line.size()) model = line.substr(colon + 2);
    if (line.starts_with("flags")) is_virtual = line.find(" hypervisor") != std::string::npos;
  }
  return model;
}

unsigned usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<unsigned>(CPU_COUNT(&set));
}

/// CPU time of this process and of the children that it has waited for, in the ticks of /proc/stat.
double own_ticks() {
  double seconds = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage used{};
    getrusage(who, &used);
    for (const timeval& part : {used.ru_utime, used.ru_stime}) {
      seconds += static_cast<double>(part.tv_sec) + static_cast<double>(part.tv_usec) / 1e6;
    }
  }
  return seconds * static_cast<double>(sysconf(_SC_CLK_TCK));
}

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

/// The share of the CPU time that other processes took between the two, in per cent.
double taken_by_others(const disturbance& before, const disturbance& after) {
  const double busy = (after.busy - before.busy) - (after.own - before.own);
  return percent(std::max(busy, 0.0), after.ticks - before.ticks);
}

double stolen_between(const disturbance& before, const disturbance& after) {
  return percent(after.stolen - before.stolen, after.ticks - before.ticks);
}

std::string git(const std::filesystem::path& source, std::vector<std::string> words) {
  words.insert(words.begin(), {"git", "-C", source.string()});
  try {
    const process_result done = run_process(words, std::chrono::seconds{10});
    return done.status == 0 ? done.output : "unknown";
  } catch (const interrupted&) {
    throw;
  } catch (const std::exception&) {
    return "unknown";  // git is missing
  }
}

}  // namespace

disturbance look_around() {
  disturbance result;
  std::ifstream("/proc/loadavg") >> result.load;
  std::ifstream stat("/proc/stat");
  std::string line;
  std::getline(stat, line);
  std::istringstream fields(line.substr(std::min(line.size(), std::size_t{4})));
  std::vector<double> ticks;
  for (double value = 0; fields >> value;) ticks.push_back(value);
  // user nice system idle iowait irq softirq steal; what follows is part of the first two.
  ticks.resize(8);
  result.stolen = ticks[7];
  result.ticks = std::accumulate(ticks.begin(), ticks.end(), 0.0);
  result.busy = result.ticks - ticks[3] - ticks[4] - ticks[7];
  result.own = own_ticks();
  std::vector<double> runs;
  for (int n = 0; n < 60; ++n) runs.push_back(timed_work());
  std::sort(runs.begin(), runs.end());
  result.spin_spread = quantile(runs, 0.9) / runs.front();
  return result;
}

std::vector<std::string> noise(const disturbance& before, const disturbance& after) {
  std::vector<std::string> reasons;
  // The load average is not used, because it stays high for minutes after a build.
  const double others = taken_by_others(before, after);
  if (others > 5) {
    reasons.push_back(fmt::format("others used {:.0f} % of the CPU time", others));
  }
  const double stolen = stolen_between(before, after);
  if (stolen > 1) {
    reasons.push_back(fmt::format("the hypervisor took {:.1f} % of the CPU time away", stolen));
  }
  const double spread = std::max(before.spin_spread, after.spin_spread);
  if (spread > 1.1) {
    reasons.push_back(
        fmt::format("a fixed piece of work took up to {:.0f} % longer than at its best (p90)",
                    100 * (spread - 1)));
  }
  return reasons;
}

boost::json::object describe_machine(const disturbance& before, const disturbance& after,
                                     const std::filesystem::path& source,
                                     const std::string& command) {
  bool is_virtual = false;
  const std::string model = cpu_model(is_virtual);
  utsname kernel{};
  uname(&kernel);
  boost::json::array reasons;
  for (const std::string& reason : noise(before, after)) reasons.emplace_back(reason);
  const std::string changes = git(source, {"status", "--porcelain", "-uno"});
#if defined(__clang__)
  const std::string compiler = "clang++ " __clang_version__;
#else
  const std::string compiler = "g++ " __VERSION__;
#endif
  std::string boost_version = BOOST_LIB_VERSION;
  std::replace(boost_version.begin(), boost_version.end(), '_', '.');
  return {{"cpu", model},
          {"cpus", usable_cpus()},
          {"virtual", is_virtual},
          {"kernel", kernel.release},
          {"compiler", compiler},
          {"flags", PULSE_BENCH_FLAGS},
          {"boost", boost_version},
          {"commit", last_line(git(source, {"rev-parse", "--short=12", "HEAD"}))},
          {"dirty", !changes.empty() && changes != "unknown"},
          {"command", command},
          {"load_before", before.load},
          {"load_after", after.load},
          {"steal_percent", stolen_between(before, after)},
          {"others_percent", taken_by_others(before, after)},
          {"noisy", !reasons.empty()},
          {"noise", std::move(reasons)}};
}

std::string timestamp() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace pulse_bench
