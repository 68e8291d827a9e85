// SPDX-License-Identifier: BSL-1.0
//
// Measuring functions of the benches.

#pragma once

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

namespace bench {

/// The CPU time of the calling thread, with which loops on a shared machine are measured.
inline std::chrono::nanoseconds thread_cpu_time() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds{now.tv_sec} + std::chrono::nanoseconds{now.tv_nsec};
}

/// How often the kernel has given the CPU of the calling thread to another one.
inline long involuntary_switches() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

/// Busy for a given time: a handler that computes.
inline void spin(std::chrono::nanoseconds duration) {
  const auto end = std::chrono::steady_clock::now() + duration;
  while (std::chrono::steady_clock::now() < end) {
  }
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto middle = values.size() / 2;
  return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// Nanoseconds of CPU an operation: \p body runs \p operations of them, \p rounds times after one
/// that does not count; the median round.
template <class Body>
double ns_per_operation(std::uint64_t operations, int rounds, Body&& body) {
  std::vector<double> results;
  for (int round = rounds > 1 ? -1 : 0; round < rounds; ++round) {
    const auto start = thread_cpu_time();
    body(operations);
    const std::chrono::duration<double, std::nano> used = thread_cpu_time() - start;
    if (round >= 0) results.push_back(used.count() / static_cast<double>(operations));
  }
  return median(results);
}

/// Prevents that a value, and the work that computes it, is optimised away.
template <class T>
inline void keep(const T& value) {
  if constexpr (std::is_scalar_v<T>) {
    asm volatile("" : : "r"(value) : "memory");
  } else {
    asm volatile("" : : "g"(&value) : "memory");
  }
}

/// Measured values by name.
using figures = std::map<std::string, double>;

/// One line of JSON, as the runners read it.
inline void print_json(const figures& out) {
  std::printf("{");
  const char* comma = "";
  for (const auto& [name, value] : out) {
    std::printf("%s\"%s\":%.4f", comma, name.c_str(), value);
    comma = ",";
  }
  std::printf("}\n");
}

/// The main() of a bench that takes a number of seconds and prints what `measure(out, seconds)`
/// found.
template <class Measure>
int main_of_seconds(int argc, char** argv, Measure measure) try {
  const int seconds = argc == 2 ? std::atoi(argv[1]) : 0;
  if (seconds <= 0) {
    std::fprintf(stderr, "usage: %s SECONDS\n", argv[0]);
    return 2;
  }
  figures out;
  measure(out, seconds);
  print_json(out);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}

}  // namespace bench
