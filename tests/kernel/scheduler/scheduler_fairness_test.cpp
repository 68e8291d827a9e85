// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

// Equal threads get equal shares of two CPUs, and no thread starves.

namespace {

using namespace sched_test;

bool counted() {
  static const bool is = std::getenv("ASIO_PULSE_COUNTED") != nullptr;
  return is;
}

struct fairness {
  double host_took = 0;       // of the CPU time that the threads were charged, from 0 to 1
  double worst = 0;           // the largest deviation from the equal share, of that share
  std::uint64_t longest = 0;  // wait of any thread, in ticks of all CPUs together
  double longest_ms = 0;      // the same in time, in which the host's pauses are too
};

// If a thread's CPU time grows by this much between two of its own readings, the host had taken the
// virtual CPU away. (The kernel's work in a tick takes far less.)
constexpr std::uint64_t host_took_ns = 500'000;

// Shares of the CPU time that the threads really had. The machine's clocks continue while the host
// takes a CPU away, and that time is charged to the thread that ran there.
fairness measure(bench& b, unsigned count, std::chrono::nanoseconds time) {
  std::vector<std::unique_ptr<ext_thread>> threads;
  std::vector<std::atomic<std::uint64_t>> taken(count);
  std::vector<std::atomic<std::uint64_t>> waits(count);
  std::vector<std::atomic<std::uint64_t>> waits_ns(count);
  std::atomic<std::uint64_t> all_ticks{0};
  std::atomic<bool> measuring{false};
  for (unsigned i = 0; i < count; ++i)
    threads.push_back(std::make_unique<ext_thread>(b, i + 1, [&, i](const std::atomic<bool>& stop) {
      std::uint64_t last_tick = tick_clock_ns();
      std::uint64_t last = all_ticks;
      std::uint64_t last_ns = now_ns();
      std::uint64_t last_cpu = thread_cpu_ns();
      bool before = false;
      while (!stop) {
        acknowledge(b.block(i + 1));
        const std::uint64_t cpu = thread_cpu_ns();
        const std::uint64_t used = cpu - std::exchange(last_cpu, cpu);
        if (used > host_took_ns && measuring) taken[i] += used;
        const std::uint64_t now = tick_clock_ns();
        if (now == last_tick) {
          last_ns = now_ns();
          continue;
        }
        last_tick = now;
        const std::uint64_t all = all_ticks.fetch_add(1) + 1;
        const bool on = measuring;
        if (on && before) {
          waits[i] = std::max(waits[i].load(), all - last);
          waits_ns[i] = std::max(waits_ns[i].load(), now_ns() - last_ns);
        }
        before = on;
        last = all;
      }
    }));
  std::this_thread::sleep_for(300ms);
  std::vector<double> charged(count);
  measuring = true;
  for (unsigned i = 0; i < count; ++i) charged[i] = -static_cast<double>(threads[i]->cpu_ns());
  std::this_thread::sleep_for(time);
  measuring = false;
  for (unsigned i = 0; i < count; ++i) charged[i] += static_cast<double>(threads[i]->cpu_ns());
  for (auto& thread : threads) thread->stop();

  const auto sum_of = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
  };
  const auto deviation = [&](const std::vector<double>& values) {
    double worst = 0;
    for (const double v : values)
      worst = std::max(worst, std::abs(v / (sum_of(values) / count) - 1));
    return worst;
  };
  std::vector<double> had(count);
  for (unsigned i = 0; i < count; ++i) had[i] = charged[i] - static_cast<double>(taken[i]);
  fairness result;
  // The clocks of a machine that counts its instructions stop with it. What seems to be taken there are
  // instructions of the other CPU, since the CPUs are emulated in turns.
  if (counted()) had = charged;
  result.worst = deviation(had);
  result.host_took = 1 - sum_of(had) / sum_of(charged);
  for (unsigned i = 0; i < count; ++i) {
    result.longest = std::max(result.longest, waits[i].load());
    result.longest_ms = std::max(result.longest_ms, static_cast<double>(waits_ns[i].load()) / 1e6);
  }
  std::printf(
      "%u threads: from the equal share at most %.1f %% of the CPU time they had (%.1f %% of what "
      "they were charged; the host took %.1f %% of it); longest wait %.1f ms, %llu ticks of both "
      "CPUs\n",
      count, result.worst * 100, deviation(charged) * 100, result.host_took * 100,
      result.longest_ms, static_cast<unsigned long long>(result.longest));
  // Otherwise the threads did not share two CPUs, or did not run.
  EXPECT_GT(sum_of(charged), 1.8 * static_cast<double>(in_ns(time)));
  EXPECT_EQ(b.trouble(), "");
  return result;
}

// In ticks of two CPUs, between which the threads are divided: a turn of everybody on one of them,
// each with a slice; and one more, for a thread may be moved to the end of the other's queue
// meanwhile.
std::uint64_t most_wait_ticks(unsigned count) {
  constexpr unsigned cpus = 2;
  const unsigned on_one_cpu = (count + cpus - 1) / cpus;
  // Where CPUs are emulated in turns, taking over a thread seems to take as long as a turn of the other CPU, and the pause
  // after it is the longest one (LONGEST_PULL_PAUSE_NS in queues.bpf.h).
  const std::uint64_t pause = counted() ? cpus * ticks_of(200ms) : 0;
  return cpus * 2 * on_one_cpu * ticks_of(default_slice) + 4 + pause;
}

// Some hundred turns of each of eight threads.
constexpr auto measured_for = 4s;

void fair_shares(scx_pulse_local_policy policy, unsigned imbalance, unsigned count) {
  scx::scheduler_options options;
  options.policy = policy;
  options.imbalance = imbalance;
  bench b(options);
  fairness f = measure(b, count, measured_for);
  // At most once again: no clock shows how long a thread has waited because the host was busy.
  if (f.worst > 0.05 || f.longest > most_wait_ticks(count)) {
    std::printf("second measurement:\n");
    f = measure(b, count, measured_for);
  }
  // Then the result shows only how much CPU time the host left for each thread.
  if (f.host_took > 0.5) GTEST_SKIP() << "the host took most of the machine's time";
  ::testing::Test::RecordProperty("worst_percent", std::to_string(f.worst * 100));
  ::testing::Test::RecordProperty("longest_wait_ms", std::to_string(f.longest_ms));
  EXPECT_LE(f.worst, 0.05);
  EXPECT_LE(f.longest, most_wait_ticks(count));
}

TEST(scheduler_fairness, round_robin_of_4) { fair_shares(SCX_PULSE_ROUND_ROBIN, 2, 4); }
TEST(scheduler_fairness, round_robin_of_8) { fair_shares(SCX_PULSE_ROUND_ROBIN, 2, 8); }
// Where threads do not divide by CPUs they must move: without an allowance for imbalance.
TEST(scheduler_fairness, round_robin_of_3_without_allowance) {
  fair_shares(SCX_PULSE_ROUND_ROBIN, 0, 3);
}
TEST(scheduler_fairness, priority_of_4_equal) { fair_shares(SCX_PULSE_PRIORITY, 2, 4); }
TEST(scheduler_fairness, fair_of_2) { fair_shares(SCX_PULSE_FAIR, 2, 2); }
TEST(scheduler_fairness, fair_of_3) { fair_shares(SCX_PULSE_FAIR, 2, 3); }
TEST(scheduler_fairness, fair_of_5) { fair_shares(SCX_PULSE_FAIR, 2, 5); }
TEST(scheduler_fairness, fair_of_8) { fair_shares(SCX_PULSE_FAIR, 2, 8); }

TEST(scheduler_fairness, fair_follows_the_weight) {
  scx::scheduler_options options;
  options.policy = SCX_PULSE_FAIR;
  bench b(options);
  ext_thread plain(hog(), 1);
  ext_thread nicer(
      [](const std::atomic<bool>& stop) {
        // The lowest weight is 1 % of a plain thread's, next ones in steps of a quarter: nice 5 is
        // a third.
        EXPECT_EQ(::nice(5), 5);
        while (!stop) {
        }
      },
      1);
  std::this_thread::sleep_for(300ms);
  const auto a = static_cast<double>(plain.cpu_ns());
  const auto c = static_cast<double>(nicer.cpu_ns());
  std::this_thread::sleep_for(3s);
  const double ratio =
      (static_cast<double>(nicer.cpu_ns()) - c) / (static_cast<double>(plain.cpu_ns()) - a);
  std::printf("nice 5 gets %.2f of what nice 0 gets\n", ratio);
  EXPECT_GT(ratio, 0.2);
  EXPECT_LT(ratio, 0.5);
}

TEST(scheduler_fairness, priority_is_followed_and_the_last_is_not_starved) {
  scx::scheduler_options options;
  options.policy = SCX_PULSE_PRIORITY;
  bench b(options);
  const auto worker = [&](unsigned slot, std::uint16_t priority) {
    return std::make_unique<ext_thread>(
        b, slot,
        [&b, slot, priority](const std::atomic<bool>& stop) {
          poke(b.block(slot).priority, priority);
          while (!stop) {
          }
        },
        1);
  };
  const auto urgent = worker(1, 1000);
  const auto medium = worker(2, 500);
  const auto last = worker(3, 0);
  std::this_thread::sleep_for(500ms);
  const std::uint64_t at[] = {urgent->cpu_ns(), medium->cpu_ns(), last->cpu_ns()};
  std::this_thread::sleep_for(3s);
  const double u = static_cast<double>(urgent->cpu_ns() - at[0]);
  const double m = static_cast<double>(medium->cpu_ns() - at[1]);
  const double l = static_cast<double>(last->cpu_ns() - at[2]);
  const double all = u + m + l;
  std::printf("shares by priority: %.2f %.2f %.2f\n", u / all, m / all, l / all);
  EXPECT_GT(u / all, 0.7);
  EXPECT_GT(m / all, 0.02);
  EXPECT_GT(l / all, 0.02);
}

// A thread that is queued behind another on a busy CPU is taken over by one that has gone idle.
TEST(scheduler_fairness, an_idle_cpu_takes_work_over) {
  bench b;
  std::vector<std::unique_ptr<ext_thread>> threads;
  for (int i = 0; i < 4; ++i) threads.push_back(std::make_unique<ext_thread>(hog()));
  std::this_thread::sleep_for(500ms);
  const std::uint64_t before = threads[3]->cpu_ns();
  threads[0]->join();
  threads[1]->join();
  const std::uint64_t begun = now_ns();
  const std::uint64_t at[] = {threads[2]->cpu_ns(), threads[3]->cpu_ns()};
  std::this_thread::sleep_for(1s);
  const auto wall = static_cast<double>(now_ns() - begun);
  EXPECT_GT(static_cast<double>(threads[2]->cpu_ns() - at[0]) / wall, 0.75);
  EXPECT_GT(static_cast<double>(threads[3]->cpu_ns() - at[1]) / wall, 0.75);
  EXPECT_GT(threads[3]->cpu_ns(), before);
}

}  // namespace
