// SPDX-License-Identifier: BSL-1.0
// What can happen to the rseq-validated clock: fork, signals, blocking, other users of rseq,
// threads without rseq.
#include "../../../timing/src/probe.hpp"
#include "support.hpp"

#include <gtest/gtest.h>

#if defined(__linux__)

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <latch>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__has_include)
#if __has_include(<sys/rseq.h>) && defined(__x86_64__)
#include <sys/rseq.h>
#define ASIO_PULSE_TEST_HAS_RSEQ 1
#endif
#endif

extern char** environ;

namespace {

using namespace asio_pulse::timing;
using namespace std::chrono_literals;
using timing_test::adds_up;
using timing_test::agrees;
using timing_test::burn;
using timing_test::cpu_ns;
using timing_test::disagreements;
using timing_test::few;
using timing_test::measure;

/// Whether the clock agrees with the CPU clock about segments of real work.
testing::AssertionResult measures(poll_clock& clock, int count = 20) {
  return agrees(clock, count, [] { burn(200us); });
}

class disturbance : public testing::TestWithParam<clock_kind> {
 protected:
  void SetUp() override {
    if (!timing_test::works(GetParam())) {
      GTEST_SKIP() << to_string(GetParam()) << " does not work here";
    }
    clock_.attach(GetParam());
  }
  void TearDown() override { clock_.detach(); }
  poll_clock clock_;
};

/// In a child: 0 if the clock that was inherited from the parent continues to measure.
int child_measures(poll_clock& clock, clock_kind kind) {
  const ticks before = clock.last();
  const lap across = clock.take();  // the segment that the fork is in
  if (across.cost > across.now - before || across.exact) {
    return 1;
  }
  if (!measures(clock)) {
    return 2;
  }
  if (clock.kind() != kind) {
    return 3;
  }
  poll_clock fresh;
  fresh.attach(kind);
  if (fresh.kind() != kind || !measures(fresh)) {
    return 4;
  }
  return 0;
}

TEST_P(disturbance, a_forked_child_goes_on_measuring) {
  burn(5ms);  // more CPU time than the child's clock will show for a while
  EXPECT_TRUE(measures(clock_));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    _exit(child_measures(clock_, GetParam()));
  }
  EXPECT_EQ(timing_test::wait_for(child), 0);
  EXPECT_TRUE(measures(clock_));
}

#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
TEST_P(disturbance, so_does_a_child_forked_without_atfork_handlers) {
  if (timing_test::sanitized) {
    GTEST_SKIP() << "the sanitizers need their atfork handlers";
  }
  burn(5ms);
  EXPECT_TRUE(measures(clock_));
  const pid_t child = _Fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    _exit(child_measures(clock_, GetParam()));
  }
  EXPECT_EQ(timing_test::wait_for(child), 0);
}
#endif
#endif

TEST_P(disturbance, a_grandchild_and_its_new_threads_measure_too) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      int result = 9;
      std::thread([&result] {
        poll_clock mine;
        mine.attach(GetParam());
        result = mine.kind() == GetParam() && measures(mine) ? 0 : 5;
      }).join();
      const int own = child_measures(clock_, GetParam());
      _exit(result != 0 ? result : own);
    }
    _exit(timing_test::wait_for(grandchild));
  }
  EXPECT_EQ(timing_test::wait_for(child), 0);
}

volatile sig_atomic_t handled = 0;
extern "C" void spin_in_handler(int) {
  timing_test::work(20'000);
  handled = handled + 1;
}

TEST_P(disturbance, signals_during_a_segment_cost_what_their_handlers_cost) {
  struct sigaction action {};
  struct sigaction old {};
  action.sa_handler = &spin_in_handler;
  sigaction(SIGUSR1, &action, &old);
  handled = 0;
  int sent = 0;
  EXPECT_TRUE(agrees(clock_, 50, [&sent] {
    burn(10us);
    pthread_kill(pthread_self(), SIGUSR1);
    ++sent;
    burn(10us);
  }));
  EXPECT_EQ(handled, sent);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_P(disturbance, blocking_inside_a_segment_is_not_its_cost) {
  // The other thread keeps this one blocked for 5 ms of its own CPU time. A clock that cannot see
  // blocking below 0.25 ms sees this.
  EXPECT_TRUE(adds_up([&] {
    std::latch go{1};
    std::latch done{1};
    std::thread other([&] {
      go.wait();
      burn(5ms);
      done.count_down();
    });
    const auto each = measure(clock_, [&] {
      go.count_down();
      done.wait();
    });
    other.join();
    EXPECT_LE(each.result.cost, each.result.now - each.start);
    return each;
  }));
}

using disturbance_timing = disturbance;

TEST_P(disturbance_timing, two_clocks_on_one_thread_are_both_right) {
  poll_clock second;
  second.attach(GetParam());
  EXPECT_TRUE(pulse_test::holds_in_one_of(timing_test::tries, [&]() -> testing::AssertionResult {
    int wrong = 0;
    for (int i = 0; i < 100; ++i) {
      wrong += disagreements(clock_, 1, [] { burn(50us); });
      wrong += disagreements(second, 1, [] { burn(50us); });
    }
    if (wrong <= few(200)) return testing::AssertionSuccess();
    return testing::AssertionFailure() << wrong << " of 200 segments disagree";
  }));
  // Chained across each other's segments.
  EXPECT_TRUE(pulse_test::holds_in_one_of(timing_test::tries, [&]() -> testing::AssertionResult {
    ticks sum_first = 0;
    ticks sum_second = 0;
    timing_test::segment of_second;
    auto of_first = measure(clock_, [&] {
      of_second = measure(second, [&] {
        for (int i = 0; i < 200; ++i) {
          burn(20us);
          sum_first += clock_.take().cost;
          sum_second += second.take().cost;
        }
      });
    });
    of_first.result.cost += sum_first;
    of_second.result.cost += sum_second;
    const std::int64_t allowed = timing_test::sanitized ? of_first.inner / 20 : 1'000;
    if (of_first.off() <= allowed && of_second.off() <= allowed) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "first: " << of_first << "; second: " << of_second;
  }));
}

INSTANTIATE_TEST_SUITE_P(kinds, disturbance,
                         testing::Values(clock_kind::rseq_tsc, clock_kind::perf_mmap,
                                         clock_kind::thread_cputime),
                         [](const auto& instance) {
                           return std::string(to_string(instance.param));
                         });
INSTANTIATE_TEST_SUITE_P(kinds, disturbance_timing,
                         testing::Values(clock_kind::rseq_tsc, clock_kind::perf_mmap,
                                         clock_kind::thread_cputime),
                         [](const auto& instance) {
                           return std::string(to_string(instance.param));
                         });

#if defined(ASIO_PULSE_TEST_HAS_RSEQ)

/// Stands for tcmalloc: a second user of the thread's rseq area, with a descriptor of its own.
struct alignas(32) foreign_descriptor {
  std::uint32_t version = 0;
  std::uint32_t flags = 0;
  std::uint64_t start_ip = 0;
  std::uint64_t post_commit_offset = 0;
  std::uint64_t abort_ip = 0;
};
struct foreign_user {
  foreign_descriptor descriptor;
  std::uint32_t section[4] = {};
  std::uint32_t signature[2] = {RSEQ_SIG, 0};
  foreign_user() {
    descriptor.start_ip = reinterpret_cast<std::uintptr_t>(section);
    descriptor.post_commit_offset = sizeof section;
    descriptor.abort_ip = reinterpret_cast<std::uintptr_t>(&signature[1]);
  }
};

volatile std::uint64_t& rseq_word() {
  char* thread = nullptr;
  __asm__("mov %%fs:0, %0" : "=r"(thread));
  return *reinterpret_cast<volatile std::uint64_t*>(thread + __rseq_offset + 8);
}

class rseq_sharing : public testing::Test {
 protected:
  void SetUp() override {
    if (!timing_test::works(clock_kind::rseq_tsc)) {
      GTEST_SKIP() << "rseq_tsc does not work here";
    }
    clock_.attach(clock_kind::rseq_tsc);
    ASSERT_EQ(clock_.kind(), clock_kind::rseq_tsc);
  }
  void TearDown() override {
    clock_.detach();
    rseq_word() = 0;
  }
  poll_clock clock_;
  static foreign_user foreign_;  // the kernel may look at it at any time
};
foreign_user rseq_sharing::foreign_;

TEST_F(rseq_sharing, attaching_arms_and_detaching_disarms) {
  std::uint64_t armed = rseq_word();
  for (int i = 0; i < 1'000 && armed == 0; ++i) {
    clock_.take();  // a preemption since: armed again
    armed = rseq_word();
  }
  EXPECT_NE(armed, 0U);
  clock_.detach();
  EXPECT_EQ(rseq_word(), 0U);
}

TEST_F(rseq_sharing, detaching_leaves_another_users_descriptor_alone) {
  const auto theirs = reinterpret_cast<std::uintptr_t>(&foreign_.descriptor);
  for (int i = 0; i < 1'000; ++i) {  // until no preemption falls in between
    clock_.attach(clock_kind::rseq_tsc);
    rseq_word() = theirs;
    clock_.detach();
    if (rseq_word() == theirs) {
      return;
    }
  }
  FAIL() << "always cleared";
}

TEST_F(rseq_sharing, a_long_segment_with_a_foreign_descriptor_is_measured_exactly) {
  for (const std::uintptr_t theirs :
       {std::uintptr_t{0}, reinterpret_cast<std::uintptr_t>(&foreign_.descriptor)}) {
    EXPECT_TRUE(agrees(clock_, 100, [theirs] {
      burn(20us);
      rseq_word() = theirs;
      burn(20us);
    }));
  }
}

/// Whether long segments, which are disturbed, are called exact after `before`.
template <class Before>
testing::AssertionResult exact_after(poll_clock& clock, Before before) {
  return pulse_test::holds_in_one_of(timing_test::tries, [&]() -> testing::AssertionResult {
    int inexact = 0;
    for (int i = 0; i != 10; ++i) {
      clock.attach(clock_kind::rseq_tsc);  // reads the exact clock, so that waited() does not
      before();
      burn(12ms);
      std::this_thread::sleep_for(1us);
      inexact += clock.take().exact ? 0 : 1;
    }
    // On a busy machine, what comes before can take longer than 1/128 of the segment.
    return inexact <= 3 ? testing::AssertionSuccess()
                        : testing::AssertionFailure() << inexact << " of 10 are not";
  });
}

testing::AssertionResult exact_after_a_short_wait(poll_clock& clock) {
  return exact_after(clock, [&] {
    std::this_thread::sleep_for(1us);
    clock.waited();
  });
}

using rseq_sharing_timing = rseq_sharing;

TEST_F(rseq_sharing_timing, a_long_segment_after_a_short_wait_is_exact) {
  EXPECT_TRUE(exact_after_a_short_wait(clock_));
}

TEST_F(rseq_sharing_timing, so_it_is_where_the_kernel_does_not_show_blocking) {  // from Linux 7.2
  auto& probed = const_cast<asio_pulse::detail::probe_result&>(
      asio_pulse::detail::probe(clock_kind::rseq_tsc));
  const bool before = std::exchange(probed.shows_blocking, false);
  poll_clock clock;
  EXPECT_TRUE(exact_after_a_short_wait(clock));
  EXPECT_TRUE(exact_after(clock, [&] {
    timing_test::work(100);
    clock.stamp();  // as between two handlers
  }));
  clock.detach();
  probed.shows_blocking = before;
}

TEST_F(rseq_sharing_timing, disturbed_in_every_segment_the_sum_is_still_the_cpu_time) {
  const auto theirs = reinterpret_cast<std::uintptr_t>(&foreign_.descriptor);
  EXPECT_TRUE(pulse_test::holds_in_one_of(timing_test::tries, [&]() -> testing::AssertionResult {
    ticks sum = 0;
    auto all = measure(clock_, [&] {
      const std::int64_t end = cpu_ns() + 20'000'000;
      while (cpu_ns() < end) {
        rseq_word() = theirs;
        timing_test::work(1'000);
        sum += clock_.take().cost;
      }
    });
    all.result.cost += sum;
    // A disturbed lap leaves the clock's own work out, below half a microsecond in two: a lower
    // bound on the sum would measure that. Nothing may be invented.
    if (all.cost() <= all.outer + all.outer / 100 + 1'000 && all.cost() >= all.inner / 2) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << all;
  }));
}

TEST_F(rseq_sharing, no_lap_wraps_or_exceeds_wall_time_whatever_happens_to_the_word) {
  const auto theirs = reinterpret_cast<std::uintptr_t>(&foreign_.descriptor);
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    switch (random() % 4U) {
      case 0:
        rseq_word() = 0;
        break;
      case 1:
        rseq_word() = theirs;
        break;
      default:
        break;
    }
    const ticks before = clock_.last();
    switch (random() % 6U) {
      case 0:
        clock_.stamp();
        break;
      case 1:
        clock_.waited();
        break;
      case 2:
        sched_yield();
        [[fallthrough]];
      default: {
        const lap result = clock_.take();
        ASSERT_LE(result.cost, result.now - before);
      }
    }
    ASSERT_GE(clock_.last(), before);
  }
}

/// Runs one test of this program in a new process with the variable set; its exit status.
int run_test_with(const char* filter, const std::string& variable) {
  const std::string filter_argument = std::string("--gtest_filter=") + filter;
  std::vector<std::string> variables{variable, "ASIO_PULSE_TEST_CHILD=1"};
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::strncmp(*each, "GTEST_", 6) != 0 && std::strncmp(*each, "GLIBC_TUNABLES=", 15) != 0) {
      variables.emplace_back(*each);  // no GTEST_OUTPUT: the child must not overwrite the report
    }
  }
  std::vector<char*> environment;
  for (std::string& each : variables) {
    environment.push_back(each.data());
  }
  environment.push_back(nullptr);
  std::string program = "/proc/self/exe";
  std::string argument = filter_argument;
  char* arguments[] = {program.data(), argument.data(), nullptr};
  const pid_t child = fork();
  if (child == 0) {
    const int quiet = open("/dev/null", O_WRONLY);
    dup2(quiet, STDOUT_FILENO);
    execve("/proc/self/exe", arguments, environment.data());
    _exit(126);
  }
  return timing_test::wait_for(child);
}

TEST(without_rseq, another_exact_clock_is_chosen_and_says_why) {
  if (std::getenv("ASIO_PULSE_TEST_CHILD") == nullptr) {
    GTEST_SKIP() << "the body of a child process";
  }
  ASSERT_EQ(__rseq_size, 0U) << "the C library registered rseq all the same";
  EXPECT_FALSE(timing_test::works(clock_kind::rseq_tsc));
  EXPECT_NE(default_clock().kind, clock_kind::rseq_tsc);
  EXPECT_NE(default_clock().reason.find("rseq"), std::string::npos) << default_clock().reason;
  poll_clock clock;
  clock.attach(clock_kind::rseq_tsc);
  EXPECT_EQ(clock.kind(), default_clock().kind);
  EXPECT_TRUE(measures(clock));
}

TEST(rseq, a_process_whose_threads_never_registered_rseq_falls_back) {
  if (std::getenv("ASIO_PULSE_TEST_CHILD") != nullptr) {
    GTEST_SKIP() << "only in the parent";
  }
  EXPECT_EQ(run_test_with("without_rseq.*", "GLIBC_TUNABLES=glibc.pthread.rseq=0"), 0);
}

// The thread's own registration counts, not the process's: one that failed is marked in cpu_id.
TEST_F(rseq_sharing, a_thread_that_is_not_registered_falls_back) {
  std::thread([] {
    char* thread = nullptr;
    __asm__("mov %%fs:0, %0" : "=r"(thread));
    auto& cpu_id = *reinterpret_cast<volatile std::int32_t*>(thread + __rseq_offset + 4);
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    poll_clock clock;
    bool fell_back = false;
    // The kernel writes the CPU number back whenever the thread is switched: try until it does not.
    for (int i = 0; i < 1'000 && !fell_back; ++i) {
      const std::int32_t real = cpu_id;
      cpu_id = RSEQ_CPU_ID_REGISTRATION_FAILED;
      clock.attach(clock_kind::rseq_tsc);
      cpu_id = real;
      fell_back = clock.kind() != clock_kind::rseq_tsc;
    }
    EXPECT_TRUE(fell_back);
    EXPECT_TRUE(measures(clock));
  }).join();
}

#endif

}  // namespace

#endif
