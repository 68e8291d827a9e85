// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/poll_clock.hpp>
#include <asio_pulse/timing/timebase.hpp>
#include <support/cpu_work.hpp>
#include <support/retry.hpp>
#include <support/sanitizers.hpp>

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <ostream>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

#if defined(PULSE_TEST_ASAN) || defined(PULSE_TEST_TSAN)
#define ASIO_PULSE_TEST_SANITIZED 1
#endif

namespace timing_test {

using asio_pulse::timing::clock_kind;
using asio_pulse::timing::lap;
using asio_pulse::timing::poll_clock;
using asio_pulse::timing::ticks;
using asio_pulse::timing::timebase;

inline std::int64_t ns(ticks value) { return timebase::get().to_ns(value).count(); }

inline bool works(clock_kind kind) {
  for (const auto& status : asio_pulse::timing::probe_clocks()) {
    if (status.kind == kind) {
      return status.available;
    }
  }
  return false;
}

#if defined(ASIO_PULSE_TEST_SANITIZED)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

/// Work that the compiler does not remove.
inline void work(int rounds) {
  volatile int sink = 0;
  for (int i = 0; i < rounds; ++i) {
    sink = i;
  }
  static_cast<void>(sink);
}

#if defined(__linux__)
inline std::int64_t clock_ns(clockid_t which) {
  timespec at{};
  clock_gettime(which, &at);
  return static_cast<std::int64_t>(at.tv_sec) * 1'000'000'000 + at.tv_nsec;
}

inline std::int64_t cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

using pulse_test::burn;

/// One segment with the exact clock read inside and outside of it. A preemption may fall between
/// any two of the readings: the lap lies between the two differences all the same.
struct segment {
  lap result;
  ticks start = 0;
  std::int64_t inner = 0;
  std::int64_t outer = 0;

  [[nodiscard]] std::int64_t wall() const { return ns(result.now - start); }
  [[nodiscard]] std::int64_t cost() const { return ns(result.cost); }

  /// How far outside of the two the cost is, beyond 1 %; negative: inside.
  [[nodiscard]] std::int64_t off() const {
    const std::int64_t above = cost() - outer - outer / 100;
    const std::int64_t below = inner - inner / 100 - cost();
    return above > below ? above : below;
  }

  /// Within 1 % + 1 us of the exact clock, and not above wall time.
  [[nodiscard]] bool agrees() const { return off() <= 1'000 && result.cost <= result.now - start; }
};

inline std::ostream& operator<<(std::ostream& to, const segment& s) {
  return to << "cost " << s.cost() << ", exact clock " << s.inner << " to " << s.outer << ", wall "
            << s.wall() << " ns" << (s.result.exact ? "" : ", not exact");
}

template <class Work>
segment measure(poll_clock& clock, Work&& work_to_do) {
  segment s;
  const std::int64_t outer = cpu_ns();
  s.start = clock.stamp();
  const std::int64_t inner = cpu_ns();
  work_to_do();
  s.inner = cpu_ns() - inner;
  s.result = clock.take();
  s.outer = cpu_ns() - outer;
  return s;
}

/// How many of `count` segments disagree with the exact clock.
template <class Work>
int disagreements(poll_clock& clock, int count, Work&& work_to_do) {
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    const segment each = measure(clock, work_to_do);
    if (!each.agrees()) {
      ++wrong;
      std::cerr << "  segment " << i << ": " << each << std::endl;
    }
  }
  return wrong;
}

/// Time that a hypervisor or an interrupt takes is not the thread's for the CPU clock and does not
/// show in the TSC: it hits a segment in thousands on a shared host, so tests allow for a few. And
/// a host can be so busy for a while that it hits many, so they measure again, this often at most.
inline int few(int count) { return 1 + count / 100; }
inline constexpr int tries = 5;

/// Whether the clock agrees with the exact one about all but a few of `count` segments.
template <class Work>
testing::AssertionResult agrees(poll_clock& clock, int count, Work&& work_to_do) {
  return pulse_test::holds_in_one_of(tries, [&]() -> testing::AssertionResult {
    const int wrong = disagreements(clock, count, work_to_do);
    if (wrong <= few(count)) return testing::AssertionSuccess();
    return testing::AssertionFailure() << wrong << " of " << count << " segments disagree";
  });
}

/// Whether what `measured` returns, one long segment in which laps add up, is within 1 % + 1 us of
/// the exact clock. A disturbed lap leaves the clock's own work out, which takes much longer where
/// it is instrumented.
template <class Measured>
testing::AssertionResult adds_up(Measured&& measured) {
  return pulse_test::holds_in_one_of(tries, [&]() -> testing::AssertionResult {
    const segment all = measured();
    const std::int64_t below = sanitized ? all.inner / 20 : 0;
    if (all.off() <= 1'000 || (all.cost() <= all.outer && all.cost() >= all.inner - below))
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << all;
  });
}

/// Pins the calling thread to the CPU it is on (threads that it starts inherit that); undone at the
/// end.
class pin_to_this_cpu {
 public:
  pin_to_this_cpu() {
    sched_getaffinity(0, sizeof old_, &old_);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
    pinned_ = sched_setaffinity(0, sizeof one, &one) == 0;
  }
  pin_to_this_cpu(const pin_to_this_cpu&) = delete;
  pin_to_this_cpu& operator=(const pin_to_this_cpu&) = delete;
  ~pin_to_this_cpu() { sched_setaffinity(0, sizeof old_, &old_); }

  [[nodiscard]] bool pinned() const { return pinned_; }

 private:
  cpu_set_t old_{};
  bool pinned_ = false;
};

/// The exit status of a child; -1 if it was killed.
inline int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#endif

}  // namespace timing_test
