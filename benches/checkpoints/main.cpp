// Runs the kernels. Compiled without checkpoints; linked to kernels with and without.
//
//   main time ROUNDS        each kernel's least CPU time of ROUNDS runs, in ns, and its result
//   main once KERNEL        one run, for callgrind
//   main gaps               (with the stub) time between two checks, and between two calls of the hook, in ns
#include "kernels.hpp"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(BENCH_GAPS)
#include <asio_pulse/auto_checkpoint.h>

#include <x86intrin.h>
#endif

namespace {

double now_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

int time_all(int rounds) {
  for (int k = 0; k < kernels; ++k) {
    double least = 1e18;
    std::uint64_t result = 0;
    for (int r = 0; r < rounds; ++r) {
      const double start = now_ns(CLOCK_THREAD_CPUTIME_ID);
      result = run_kernel(k);
      least = std::min(least, now_ns(CLOCK_THREAD_CPUTIME_ID) - start);
    }
    std::printf("%s %.0f %llu\n", names[k], least, static_cast<unsigned long long>(result));
  }
  return 0;
}

#if defined(BENCH_GAPS)
std::vector<std::uint64_t>
    gaps;  // a type that no kernel sorts: the linker keeps one copy of a template's function
std::uint64_t last = 0;
bool every_check = false;

long preempted() {
  rusage use{};
  getrusage(RUSAGE_THREAD, &use);
  return use.ru_nivcsw;
}
long switches = 0;

// A gap during which the kernel ran something else is not the code's.
void hook(void*) {
  const std::uint64_t now = __rdtsc();
  const long before = switches;
  switches = preempted();
  if (before == switches && gaps.size() < gaps.capacity()) gaps.push_back(now - last);
  if (every_check) asio_pulse_fuel = ASIO_PULSE_FUEL_ASK;
  last = __rdtsc();
}

// Of four runs the least of each figure counts: interrupts and a virtual machine's pauses are not counted by the kernel.
int show_gaps(double ticks_per_ns) {
  asio_pulse_set_checkpoint_hook(hook);
  for (int k = 0; k < kernels; ++k) {
    std::printf("%s", names[k]);
    for (const bool every : {true, false}) {
      every_check = every;
      std::uint64_t best[3]{~0ull, ~0ull, ~0ull};
      for (int r = 0; r < 4; ++r) {
        gaps.clear();
        asio_pulse_fuel = every ? ASIO_PULSE_FUEL_ASK : 1 << 12;
        last = __rdtsc();
        run_kernel(k);
        if (!every)
          for (int more = 0; more < 10; ++more) run_kernel(k);  // the fuel adapts
        if (gaps.empty()) gaps.push_back(__rdtsc() - last);
        std::sort(gaps.begin(), gaps.end());
        const std::size_t n = gaps.size();
        best[0] = std::min<std::uint64_t>(best[0], gaps[n / 2]);
        best[1] = std::min<std::uint64_t>(best[1], gaps[n - 1 - n / 1000]);
        best[2] = std::min<std::uint64_t>(best[2], gaps[n - 1]);
      }
      for (const std::uint64_t b : best)
        std::printf(" %.0f", static_cast<double>(b) / ticks_per_ns);
    }
    std::printf("\n");
  }
  return 0;
}
#endif

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
#if defined(BENCH_GAPS)
  const double start = now_ns(CLOCK_MONOTONIC);
  const std::uint64_t ticks = __rdtsc();
#endif
  if (prepare() == 0) return 1;
#if defined(BENCH_GAPS)
  gaps.reserve(4000000);
  while (now_ns(CLOCK_MONOTONIC) - start < 2e7) {
  }
  return show_gaps(static_cast<double>(__rdtsc() - ticks) / (now_ns(CLOCK_MONOTONIC) - start));
#else
  if (std::strcmp(argv[1], "time") == 0 && argc > 2) return time_all(std::atoi(argv[2]));
  if (std::strcmp(argv[1], "once") == 0 && argc > 2)
    return static_cast<void>(run_kernel(std::atoi(argv[2]))), 0;
  return 2;
#endif
}
