// SPDX-License-Identifier: BSL-1.0
//
// One repetition of a scenario: its parameters and its result. One source, built as
// bench_worker_stock and bench_worker_pulse.

#pragma once

#include <time.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace worker {

using clock_type = std::chrono::steady_clock;

struct request {
  std::string scenario;
  std::string variant;
  unsigned workers = 1;
  std::chrono::milliseconds duration{1000};
  std::chrono::milliseconds hog{50};
  unsigned rate = 2000;
  unsigned handlers = 20000;
  unsigned connections = 1;
  std::chrono::microseconds piece{2000};  ///< how long one handler of the unnamed work takes
  std::size_t most_tasks = 1'000'000;
};

/// The timeline of a repetition, in ms since its start, with the terms of SCHEMA.md.
struct timeline {
  double duration_ms = 0;
  std::vector<std::pair<double, double>> probe;
  std::vector<std::tuple<double, double, std::string>> spans;
  std::vector<std::tuple<double, std::string, std::string>> marks;
};

struct outcome {
  std::map<std::string, std::vector<std::int64_t>> samples_ns;
  std::map<std::string, double> values;
  worker::timeline timeline;
  bool verified = true;
  std::string verification;  ///< what was verified, or the first fault

  /// Records the fault if the rule does not hold.
  void check(bool right, const std::string& rule) {
    if (right || !verified) return;
    verified = false;
    verification = "failed: " + rule;
  }
};

inline double ms(clock_type::duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

/// The CPU time that this process has used.
inline double process_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

outcome starvation(const request& r);
outcome storm(const request& r);
outcome liar(const request& r);
outcome latency(const request& r);
outcome defaults(const request& r);
outcome scale(const request& r);
outcome soak(const request& r);
outcome shares(const request& r);
outcome shards(const request& r);

}  // namespace worker
