// SPDX-License-Identifier: BSL-1.0
//
// Main part of each program: `program ROUNDS` prints the least CPU time of ROUNDS runs, in ns, and the result.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

/// Does the program's work once. The result is the same in all builds.
std::uint64_t work();

inline double cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  double least = 1e18;
  std::uint64_t result = 0;
  for (int r = 0; r < rounds; ++r) {
    const double start = cpu_ns();
    result = work();
    least = std::min(least, cpu_ns() - start);
  }
  std::printf("%.0f %llu\n", least, static_cast<unsigned long long>(result));
  return result == 0 ? 1 : 0;
}
