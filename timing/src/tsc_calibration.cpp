// SPDX-License-Identifier: BSL-1.0
#include "tsc_calibration.hpp"

#include "seccomp.hpp"

#include <asio_pulse/timing/detail/tsc.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#if ASIO_PULSE_TIMING_HAS_TSC
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <fcntl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#else
#include <chrono>
#endif
#endif

namespace asio_pulse::detail {

#if ASIO_PULSE_TIMING_HAS_TSC
namespace {

// Half of the shortest calibration. Reading both clocks takes about 40 ns, so the rate over 2 ms is
// good to some 10 to 20 ppm, which is 5 ns at most in the poll clock's chain of 250 us. A longer
// calibration would gain little; in a shorter one a single interrupted reading would show.
constexpr std::uint64_t half_ns = 1'000'000;
// The long measurement, if CPUID does not state the rate. Together with up to two short ones it
// takes up to 10 ms.
constexpr std::uint64_t long_ns = 6'000'000;
// The rate of a counter that follows the core's frequency varies by percents; that of a good one
// only by the jitter of the readings.
constexpr double rate_tolerance = 5e-4;

struct registers {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

registers cpuid(std::uint32_t leaf) noexcept {
  registers r;
#if defined(_MSC_VER)
  int out[4] = {};
  __cpuidex(out, static_cast<int>(leaf), 0);
  r = {static_cast<std::uint32_t>(out[0]), static_cast<std::uint32_t>(out[1]),
       static_cast<std::uint32_t>(out[2]), static_cast<std::uint32_t>(out[3])};
#else
  __cpuid_count(leaf, 0, r.a, r.b, r.c, r.d);
#endif
  return r;
}

/// The rate as the CPU (leaf 0x15) or the hypervisor (leaf 0x40000010, kHz) states it; 0: unknown.
/// Leaf 0x16 is the base frequency in MHz: too coarse, and not always the TSC's.
double stated_hz() noexcept {
  if (cpuid(0).a >= 0x15U) {
    const registers r = cpuid(0x15);
    if (r.a != 0 && r.b != 0 && r.c != 0) {
      return static_cast<double>(r.c) * r.b / r.a;
    }
  }
  constexpr std::uint32_t hypervisor_bit = std::uint32_t{1} << 31U;
  if ((cpuid(1).c & hypervisor_bit) != 0 && cpuid(0x40000000U).a >= 0x40000010U &&
      cpuid(0x40000000U).a < 0x40010000U) {
    return static_cast<double>(cpuid(0x40000010U).a) * 1e3;
  }
  return 0;
}

bool invariant() noexcept {
  return cpuid(0x80000000U).a >= 0x80000007U && (cpuid(0x80000007U).d & (1U << 8U)) != 0;
}

/// Whether RDTSC exists and this process may execute it (prctl(PR_SET_TSC) can forbid it). Under a
/// seccomp filter, which may not allow prctl(2), it is assumed that the process may: the clocks of
/// the C library execute RDTSC as well.
bool executable() noexcept {
  bool allowed = (cpuid(1).d & (1U << 4U)) != 0;
#if defined(__linux__)
  int mode = PR_TSC_ENABLE;
  allowed =
      allowed && (may_be_filtered() || prctl(PR_GET_TSC, &mode) != 0 || mode == PR_TSC_ENABLE);
#endif
  return allowed;
}

/// What the kernel thinks of the TSC as a clock source.
enum class kernel_view { unknown, refused, listed, current };

#if defined(__linux__)
/// Whether the blank-separated list in the file has the word "tsc"; negative: not readable.
int lists_tsc(const char* path) noexcept {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return -1;
  }
  char text[256];
  text[0] = ' ';
  const ssize_t length = read(file, text + 1, sizeof text - 3);
  close(file);
  if (length <= 0) {
    return -1;
  }
  for (ssize_t i = 1; i <= length; ++i) {
    text[i] = text[i] == '\n' ? ' ' : text[i];
  }
  text[length + 1] = ' ';
  text[length + 2] = '\0';
  return std::strstr(text, " tsc ") != nullptr ? 1 : 0;
}
#endif

kernel_view ask_kernel() noexcept {
#if defined(__linux__)
  const int current = lists_tsc("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  if (current > 0) {
    return kernel_view::current;
  }
  const int listed =
      lists_tsc("/sys/devices/system/clocksource/clocksource0/available_clocksource");
  if (listed >= 0) {
    return listed > 0 ? kernel_view::listed : kernel_view::refused;
  }
#endif
  return kernel_view::unknown;
}

std::uint64_t reference_ns() noexcept {
#if defined(__linux__)
  timespec at{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &at);
  return static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(at.tv_nsec);
#else
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
#endif
}

/// Both clocks at one instant: the tightest of a few tries, so that an interrupt does not count.
struct instant {
  std::uint64_t tsc = 0;
  std::uint64_t ns = 0;
  std::uint64_t width = UINT64_MAX;  // TSC cycles around the reading of ns
};

instant sample() noexcept {
  instant best;
  for (int i = 0; i < 8; ++i) {
    const std::uint64_t before = read_tsc();
    const std::uint64_t ns = reference_ns();
    const std::uint64_t width = read_tsc() - before;
    if (width < best.width) {
      best = {before + width / 2, ns, width};
    }
  }
  return best;
}

instant sample_at(std::uint64_t ns) noexcept {
  while (reference_ns() < ns) {
  }
  return sample();
}

double rate(const instant& from, const instant& to) noexcept {
  if (to.ns <= from.ns || to.tsc <= from.tsc) {
    return 0;
  }
  return static_cast<double>(to.tsc - from.tsc) * 1e9 / static_cast<double>(to.ns - from.ns);
}

/// A rate measured over two halves that must agree; 0 when they do not.
double steady_rate() noexcept {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const instant a = sample();
    const instant b = sample_at(a.ns + half_ns);
    const instant c = sample_at(b.ns + half_ns);
    const double first = rate(a, b);
    const double second = rate(b, c);
    const double whole = rate(a, c);
    // If reading a clock is slow (in an emulator, or under a tool that instruments), so is the
    // precision.
    const double jitter = c.tsc > a.tsc ? static_cast<double>(a.width + b.width + c.width) /
                                              static_cast<double>(c.tsc - a.tsc)
                                        : 0;
    if (first > 0 && second > 0 &&
        std::fabs(first - second) <= (rate_tolerance + 2 * jitter) * whole) {
      return whole;
    }
  }
  return 0;
}

}  // namespace

tsc_calibration calibrate_tsc() noexcept {
  tsc_calibration result;
  const auto say = [&result](const char* text) {
    std::snprintf(result.reason, sizeof result.reason, "%s", text);
    return result;
  };
  if (!executable()) {
    return say("steady_clock: RDTSC is absent or forbidden in this process");
  }
  const kernel_view view = ask_kernel();
  if (view == kernel_view::refused) {
    return say("steady_clock: the kernel does not list the TSC among its clock sources");
  }
  const bool is_invariant = invariant();
  if (!is_invariant && view != kernel_view::current) {
    return say(
        "steady_clock: the TSC is not invariant (CPUID 0x80000007) and not the kernel's clock "
        "source");
  }
  double hz = steady_rate();
  if (hz < 1e7 || hz > 1e11) {
    return say("steady_clock: the TSC did not keep a steady rate against the kernel's clock");
  }
  const double stated = stated_hz();
  const char* origin = "stated by CPUID and confirmed by measuring";
  if (stated > 0 && std::fabs(stated - hz) <= rate_tolerance * hz) {
    hz = stated;
  } else {
    const instant from = sample();
    const double longer = rate(from, sample_at(from.ns + long_ns));
    if (std::fabs(longer - hz) > 4 * rate_tolerance * hz) {
      return say("steady_clock: the TSC did not keep a steady rate against the kernel's clock");
    }
    hz = longer;
    origin = "measured against the kernel's clock";
  }
  result.usable = true;
  result.hz = hz;
  std::snprintf(result.reason, sizeof result.reason, "tsc: %s%s, %.6f GHz, %s",
                is_invariant ? "invariant" : "not declared invariant",
                view == kernel_view::current ? ", the kernel's clock source" : "", hz / 1e9,
                origin);
  return result;
}

#else

tsc_calibration calibrate_tsc() noexcept {
  tsc_calibration result;
  std::snprintf(result.reason, sizeof result.reason, "steady_clock: no TSC on this architecture");
  return result;
}

#endif

}  // namespace asio_pulse::detail
