// SPDX-License-Identifier: BSL-1.0
// The poll clock against the exact clock, on a CPU that another thread wants too. These tests run
// on real time: what they assert is a difference between two clocks, not a duration.
#include "support.hpp"

#include <gtest/gtest.h>

#if defined(__linux__)

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <latch>
#include <string>
#include <thread>

namespace {

using namespace asio_pulse::timing;
using namespace std::chrono_literals;
using timing_test::burn;
using timing_test::cpu_ns;
using timing_test::measure;

/// A thread that always uses the CPU.
class competitor {
 public:
  competitor() {
    std::latch started{1};
    thread_ = std::thread([this, &started] {
      started.count_down();
      while (!stop_.load(std::memory_order_relaxed)) {
      }
    });
    started.wait();
  }
  competitor(const competitor&) = delete;
  competitor& operator=(const competitor&) = delete;
  ~competitor() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class contention_timing : public testing::TestWithParam<clock_kind> {
 protected:
  void SetUp() override {
    if (!timing_test::works(GetParam())) {
      GTEST_SKIP() << to_string(GetParam()) << " does not work here";
    }
    if (!pin_.pinned()) {
      GTEST_SKIP() << "the CPU affinity cannot be set";
    }
    clock_.attach(GetParam());
  }
  void TearDown() override { clock_.detach(); }

  /// A kernel that clears the descriptor on preemption only leaves short laps without a voucher.
  [[nodiscard]] bool vouches() const {
    return GetParam() != clock_kind::rseq_tsc ||
           default_clock().reason.find("not on blocking") == std::string::npos;
  }

  timing_test::pin_to_this_cpu pin_;
  poll_clock clock_;
};

TEST_P(contention_timing, every_lap_is_within_one_percent_and_a_microsecond_of_the_cpu_clock) {
  constexpr std::array lengths{2us, 20us, 200us, 1'000us, 3'000us};
  const competitor other;
  EXPECT_TRUE(pulse_test::holds_in_one_of(timing_test::tries, [&]() -> testing::AssertionResult {
    int segments = 0;
    int preempted = 0;
    int wrong = 0;
    std::string examples;
    std::int64_t worst = INT64_MIN;
    const std::int64_t begin = cpu_ns();
    while (segments < 500 || (preempted < 20 && cpu_ns() - begin < 5'000'000'000)) {
      const auto length = lengths[static_cast<std::size_t>(segments) % lengths.size()];
      const auto each = measure(clock_, [length] { burn(length); });
      // The clock does not vouch for a lap in which the hypervisor took more time than the lap
      // used.
      if (!each.agrees() || (!each.result.exact && vouches())) {
        ++wrong;
        examples += '\n' + testing::PrintToString(each);
      }
      EXPECT_LE(each.result.cost, each.result.now - each.start);
      ++segments;
      preempted += each.wall() > each.cost() + 500'000 ? 1 : 0;
      worst = std::max(worst, each.off());
    }
    RecordProperty("preempted", preempted);
    RecordProperty("worst_beyond_one_percent_ns", std::to_string(worst));
    if (preempted < 20) return testing::AssertionFailure() << "the competitor did not compete";
    if (wrong <= timing_test::few(segments)) return testing::AssertionSuccess();
    return testing::AssertionFailure() << wrong << " of " << segments << examples;
  }));
}

TEST_P(contention_timing, chained_laps_add_up_to_the_cpu_clock) {
  const competitor other;
  EXPECT_TRUE(timing_test::adds_up([&] {
    ticks sum = 0;
    auto all = measure(clock_, [&] {
      for (int i = 0; i < 2'000; ++i) {
        burn(20us);
        sum += clock_.take().cost;
      }
    });
    all.result.cost += sum;
    return all;
  }));
}

// The wait in the reactor is not charged, and the cost of the next segment is complete.
TEST_P(contention_timing, a_lap_after_a_wait_is_bounded_by_the_cpu_clock) {
  const competitor other;
  EXPECT_TRUE(pulse_test::holds_in_one_of(timing_test::tries, [&]() -> testing::AssertionResult {
    int wrong = 0;
    std::string examples;
    for (int i = 0; i < 100; ++i) {
      const std::int64_t outer = cpu_ns();
      std::latch gate{1};
      std::thread waker([&gate] { gate.count_down(); });
      gate.wait();
      waker.join();  // blocked here or there
      clock_.waited();
      timing_test::segment each;
      each.start = clock_.last();
      const std::int64_t inner = cpu_ns();
      burn(50us);
      each.inner = cpu_ns() - inner;
      each.result = clock_.take();
      each.outer = cpu_ns() - outer;  // what the waiting cost may be in an inexact lap
      wrong += each.agrees() ? 0 : 1;
      examples += each.agrees() ? "" : '\n' + testing::PrintToString(each);
    }
    if (wrong <= timing_test::few(100)) return testing::AssertionSuccess();
    return testing::AssertionFailure() << wrong << " of 100" << examples;
  }));
}

INSTANTIATE_TEST_SUITE_P(kinds, contention_timing,
                         testing::Values(clock_kind::rseq_tsc, clock_kind::perf_mmap,
                                         clock_kind::thread_cputime),
                         [](const auto& instance) {
                           return std::string(to_string(instance.param));
                         });

}  // namespace

#endif
