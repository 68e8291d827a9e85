// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>

// Cache domains: a machine with four CPUs in two pairs that share a cache (booted by
// tests/kernel/CMakeLists.txt). The speed of the CPUs does not matter, only where threads run.

namespace {

using namespace sched_test;

/// The CPUs that share the last-level cache with `cpu`, as the kernel reports them.
std::vector<int> neighbours(int cpu) {
  const std::string list = vm::read("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                    "/cache/index3/shared_cpu_list");
  std::vector<int> result;
  for (int other = 0; other < 4; ++other)
    if (list.find(std::to_string(other)) != std::string::npos || list == "0-3")
      result.push_back(other);
  return result;
}

void allow(pid_t tid, std::initializer_list<int> cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(static_cast<std::size_t>(cpu), &set);
  ASSERT_EQ(::sched_setaffinity(tid, sizeof(set), &set), 0);
}

/// On which CPUs a thread wakes, of `times`, that ran on `home` last, where others are now. It may
/// run anywhere.
std::array<unsigned, 4> wakes(int home, int times) {
  std::array<unsigned, 4> woke{};
  ext_thread sleeper([&](const std::atomic<bool>&) {
    for (int i = 0; i < times; ++i) {
      pin_to(home);
      spin_for(1ms);
      allow(0, {0, 1, 2, 3});
      std::this_thread::sleep_for(3ms);
      ++woke.at(static_cast<std::size_t>(::sched_getcpu()));
    }
  });
  sleeper.join();  // it does not stop before it has finished
  std::printf("last on %d, which is busy; woke on 0 to 3: %u %u %u %u times\n", home, woke[0],
              woke[1], woke[2], woke[3]);
  return woke;
}

class scheduler_domains : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(std::thread::hardware_concurrency(), 4U);
    ASSERT_EQ(neighbours(0), (std::vector{0, 1}))
        << "the machine does not have the requested caches";
    ASSERT_EQ(neighbours(3), (std::vector{2, 3}));
  }
};

TEST_F(scheduler_domains, a_waking_thread_goes_to_an_idle_cpu_nearby) {
  bench b;
  for (const int home : {0, 2}) {
    ext_thread busy(hog(), home);
    const auto woke = wakes(home, 200);
    // Now and then the neighbour has something else to do, or `busy` has just been elsewhere.
    EXPECT_GT(woke.at(static_cast<std::size_t>(home + 1)), 150U);
  }
  EXPECT_EQ(b.trouble(), "");
}

TEST_F(scheduler_domains, without_one_nearby_it_goes_to_one_far_away) {
  bench b;
  ext_thread busy(hog(), 0);
  ext_thread near(hog(), 1);
  const auto woke = wakes(0, 100);
  EXPECT_GT(woke[2] + woke[3], 75U);
  EXPECT_EQ(b.trouble(), "");
}

// CPU 1 has one thread. One of the other threads waits nearby, and three wait far away. All may
// move to CPU 1. The longer queue is the farther one.
TEST_F(scheduler_domains, work_is_taken_over_from_nearby_first) {
  constexpr int rounds = 20;
  int near_first = 0;
  int nobody = 0;
  for (int round = 0; round < rounds; ++round) {
    bench b;
    std::atomic<int> first{0};  // of the movers on CPU 1; 1: from nearby, 2: from far away
    const auto mover = [&first](int who) {
      return [&first, who](const std::atomic<bool>& stop) {
        while (!stop.load(std::memory_order_relaxed)) {
          int none = 0;
          if (::sched_getcpu() == 1) first.compare_exchange_strong(none, who);
        }
      };
    };
    ext_thread own(hog(), 1);
    ext_thread other(hog(),
                     3);  // its CPU takes over no thread meanwhile, because they may not run there
    std::vector<std::unique_ptr<ext_thread>> near;
    std::vector<std::unique_ptr<ext_thread>> far;
    for (int i = 0; i < 2; ++i) near.push_back(std::make_unique<ext_thread>(mover(1), 0));
    for (int i = 0; i < 4; ++i) far.push_back(std::make_unique<ext_thread>(mover(2), 2));
    std::this_thread::sleep_for(10ms);
    // From now on all may move. (This takes only a small part of a tick, in which CPU 1 looks
    // once.)
    for (const auto& t : near) allow(t->tid(), {0, 1});
    for (const auto& t : far) allow(t->tid(), {1, 2});
    vm::eventually([&] { return first != 0; }, 2s);
    near_first += first == 1;
    nobody += first == 0;
    ASSERT_EQ(b.trouble(), "");
  }
  std::printf("first on the CPU: %d times from nearby, %d times from far away, %d times nobody\n",
              near_first, rounds - near_first - nobody, nobody);
  EXPECT_GE(near_first, rounds * 3 / 4);
}

}  // namespace
