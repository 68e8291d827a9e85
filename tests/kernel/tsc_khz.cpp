// SPDX-License-Identifier: BSL-1.0
#include <time.h>
#include <x86intrin.h>

#include <cstdint>
#include <cstdio>

/// \file
/// Prints how many thousand times a second this machine's time stamp counter counts. QEMU hands the
/// host's counter to the guest, whose kernel measures it against an emulated timer as it boots: on
/// a busy host it once measured a seventieth of the rate, so that its clocks were much too fast.

namespace {

struct moment {
  double ns;
  double tsc;
};

// The closest of many readings of both: one of them is not interrupted.
moment look() {
  moment best{};
  std::uint64_t width = ~std::uint64_t{0};
  for (int i = 0; i < 100; ++i) {
    timespec now{};
    const std::uint64_t before = __rdtsc();
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    const std::uint64_t after = __rdtsc();
    if (after - before >= width) continue;
    width = after - before;
    best = {static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec),
            static_cast<double>(before + width / 2)};
  }
  return best;
}

}  // namespace

int main() {
  const moment begin = look();
  const timespec nap{0, 200'000'000};
  nanosleep(&nap, nullptr);
  const moment end = look();
  std::printf("%.0f\n", (end.tsc - begin.tsc) / (end.ns - begin.ns) * 1e6);
}
