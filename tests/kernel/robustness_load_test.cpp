// SPDX-License-Identifier: BSL-1.0
#include "scheduler.hpp"
#include "vm_support.hpp"
#include "vm_workers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <latch>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// \file
/// The scheduler under load: more hints than are read, more threads than it has room for, and other
/// heavy loads.

namespace {

using namespace std::chrono_literals;
using asio_pulse::scx::scheduler;
using asio_pulse::scx::scheduler_options;

/// A worker that is never idle and reacts to every hint.
class eager_worker {
 public:
  eager_worker(scheduler& s, asio_pulse_scb& block, std::uint32_t slot)
      : scheduler_(s),
        block_(block),
        thread_([this] { acknowledged_ += vm::acknowledge(block_); }) {
    scheduler_.add_worker(thread_.tid(), vm::registration_of(thread_.tid(), slot));
  }
  eager_worker(const eager_worker&) = delete;
  eager_worker& operator=(const eager_worker&) = delete;
  ~eager_worker() { scheduler_.remove_worker(thread_.tid()); }

  [[nodiscard]] const asio_pulse_scb& block() const noexcept { return block_; }
  [[nodiscard]] const vm::spinner& thread() const noexcept { return thread_; }
  [[nodiscard]] std::uint64_t acknowledged() const noexcept { return acknowledged_; }
  [[nodiscard]] std::uint64_t lost() const noexcept { return vm::load(block_.lost_hints); }
  [[nodiscard]] std::uint64_t hints() const noexcept { return vm::load(block_.preempt_seq); }

 private:
  scheduler& scheduler_;
  asio_pulse_scb& block_;
  std::atomic<std::uint64_t> acknowledged_{0};
  vm::spinner thread_;
};

/// Two for each CPU, so that each has another thread to yield to.
class workers {
 public:
  workers(scheduler& s, std::span<asio_pulse_scb> blocks, unsigned count) {
    for (std::uint32_t slot = 1; slot <= count; ++slot) {
      all_.push_back(std::make_unique<eager_worker>(s, blocks[slot], slot));
    }
  }
  [[nodiscard]] auto begin() const { return all_.begin(); }
  [[nodiscard]] auto end() const { return all_.end(); }
  [[nodiscard]] std::uint64_t lost() const {
    std::uint64_t sum = 0;
    for (const auto& w : all_) sum += w->lost();
    return sum;
  }
  [[nodiscard]] std::uint64_t hints() const {
    std::uint64_t sum = 0;
    for (const auto& w : all_) sum += w->hints();
    return sum;
  }

 private:
  std::vector<std::unique_ptr<eager_worker>> all_;
};

scheduler_options quick_slices() {
  scheduler_options options;
  options.slice = 1ms;  // below one tick: every tick may hint
  return options;
}

}  // namespace

TEST(robustness, a_full_ring_buffer_loses_records_and_no_hints) {
  scheduler_options options = quick_slices();
  options.ring_bytes = 4096;  // the smallest possible ring
  constexpr std::uint64_t room = 4096 / (sizeof(asio_pulse_hint) + 8);
  scheduler loaded{options};
  workers some{loaded, loaded.open_process(getpid()).blocks, 4};

  ASSERT_TRUE(vm::eventually([&] { return some.lost() > 0; }, 60s))
      << some.hints() << " hints, room for " << room;
  // Hints continue, and workers react, although no process reads the records any more.
  for (const auto& worker : some) {
    const std::uint64_t before = worker->hints();
    EXPECT_TRUE(vm::eventually([&] { return worker->hints() > before + 3; }));
    EXPECT_TRUE(vm::eventually([&] { return worker->acknowledged() > before; }));
  }

  std::vector<asio_pulse_hint> records;
  const auto collect = [&](const asio_pulse_hint& h) { records.push_back(h); };
  const std::uint64_t told = some.hints();
  loaded.consume_hints(collect);
  // The records that were in the ring, and those that came while it was read.
  EXPECT_GE(records.size(), room / 2);
  EXPECT_LE(records.size(), room + some.hints() - told);
  for (const asio_pulse_hint& h : records) {
    EXPECT_EQ(h.tgid, static_cast<std::uint32_t>(getpid()));
    EXPECT_GE(h.slot, 1);
    EXPECT_LE(h.slot, 4);
  }
  // There is room again: new records are complete, and the sequence numbers of the lost ones are
  // missing.
  const std::uint64_t newest =
      std::max_element(records.begin(), records.end(), [](auto& a, auto& b) {
        return a.seq < b.seq;
      })->seq;
  records.clear();
  EXPECT_TRUE(vm::eventually([&] {
    loaded.consume_hints(collect);
    return std::any_of(records.begin(), records.end(), [&](auto& h) { return h.seq > newest + 1; });
  }));

  // The scheduler's own count is the sum of what it told the workers. Neither stands still.
  const std::uint64_t told_before = some.lost();
  const std::uint64_t counted = loaded.counts().lost_hints;
  const std::uint64_t told_after = some.lost();
  EXPECT_GE(counted, told_before);
  EXPECT_LE(counted, told_after + 4);
  EXPECT_FALSE(loaded.exited().has_value());
}

TEST(robustness, ten_thousand_threads_come_and_go) {
  constexpr std::uint32_t at_once = 100;
  constexpr std::uint32_t rounds = 100;
  constexpr std::uint32_t taken_off_each = 4;
  constexpr std::uint32_t taken_off = rounds * at_once / taken_off_each;
  scheduler loaded{scheduler_options{}};
  const auto blocks = loaded.open_process(getpid()).blocks;
  const scx_pulse_counts before = loaded.counts();

  for (std::uint32_t round = 0; round < rounds; ++round) {
    struct newcomer {
      std::thread thread;
      pid_t tid = 0;
      unsigned long long started = 0;
    };
    std::vector<newcomer> all(at_once);
    std::latch born{at_once};
    std::latch registered{1};
    std::latch ran{at_once};
    std::latch may_end{1};
    for (newcomer& one : all) {
      one.thread = std::thread{[&] {
        one.tid = vm::this_thread();
        one.started = vm::start_ticks(one.tid);
        born.count_down();
        registered.wait();
        vm::enter_sched_ext();
        sched_yield();
        ran.count_down();
        may_end.wait();
      }};
    }
    born.wait();
    for (std::uint32_t i = 0; i < at_once; ++i) {
      loaded.add_worker(all[i].tid, {all[i].started, static_cast<std::uint32_t>(getpid()), i + 1});
    }
    registered.count_down();
    ran.wait();
    // The loader removes some first, as when a program detaches; most threads just end.
    for (std::uint32_t i = 0; i < at_once; i += taken_off_each) loaded.remove_worker(all[i].tid);
    may_end.count_down();
    for (newcomer& one : all) one.thread.join();
    ASSERT_FALSE(loaded.exited().has_value()) << "round " << round;
  }
  EXPECT_EQ(loaded.counts().registered - before.registered, at_once * rounds);
  // All that just ended have been noticed, none of them twice.
  const auto ended = [&] { return loaded.counts().ended - before.ended; };
  EXPECT_TRUE(vm::eventually([&] { return ended() >= at_once * rounds - taken_off; })) << ended();
  EXPECT_LE(ended(), at_once * rounds);
  EXPECT_LE(loaded.queued(), at_once);  // as each CPU saw it at its last tick
  EXPECT_EQ(loaded.counts().stale, before.stale);

  // After all of them another thread can be a worker, like the first.
  workers one{loaded, blocks, 1};
  EXPECT_TRUE(vm::eventually(
      [&] { return vm::load((*one.begin())->block().worker_state) == ASIO_PULSE_WORKER_RUNNING; }));
}

TEST(robustness, an_ordinary_thread_that_takes_a_cpu_starves_no_worker) {
  // Ordinary threads come before SCHED_EXT ones. If one never sleeps, SCHED_EXT threads do not get
  // its CPU. The other CPU is busy, but its threads take turns. The thread that is displaced stays
  // in the queue of the first CPU, where no other CPU looks. A kernel without a deadline server for
  // sched_ext lets it wait for as long as the other thread runs.
  std::ifstream symbols("/proc/kallsyms");
  bool served = false;
  for (std::string line; !served && std::getline(symbols, line);) {
    served = line.find(" ext_server") != std::string::npos;
  }
  if (!served) GTEST_SKIP() << "this kernel has no deadline server for sched_ext";
  scheduler loaded{scheduler_options{}};
  workers some{loaded, loaded.open_process(getpid()).blocks, 3};
  for (const auto& worker : some) ASSERT_TRUE(worker->thread().goes_on());

  const vm::child hog{[]() -> int {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(1, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) return 1;
    for (;;) getppid();
  }};
  std::vector<std::uint64_t> turns(3);
  for (int period = 0; period < 5; ++period) {
    std::size_t i = 0;
    for (const auto& worker : some) turns[i++] = worker->thread().turns();
    std::this_thread::sleep_for(2s);
    i = 0;
    for (const auto& worker : some) {
      EXPECT_GT(worker->thread().turns(), turns[i]) << "worker " << i << " in period " << period;
      ++i;
    }
  }
  EXPECT_FALSE(loaded.exited().has_value());
}

void stress(const std::string& seconds) {
  if (!vm::has_program("stress-ng")) GTEST_SKIP() << "stress-ng is not in the virtual machine";
  scheduler loaded{quick_slices()};
  workers some{loaded, loaded.open_process(getpid()).blocks, 4};
  const scx_pulse_counts before = loaded.counts();

  // First as SCHED_EXT threads, with forks, exits, wakeups and hogs that the scheduler has to
  // handle. They inherit the policy.
  vm::child under_it{[&seconds] {
    vm::enter_sched_ext();
    execlp("stress-ng", "stress-ng", "--cpu", "2", "--fork", "2", "--switch", "2", "--pthread", "2",
           "--timeout", seconds.c_str(), nullptr);
    return 127;
  }};
  // Then beside it, as ordinary threads. These come before SCHED_EXT ones in every kernel. A load
  // that uses all of the CPU time would starve the SCHED_EXT threads, whatever a BPF scheduler
  // does.
  vm::child beside_it{{"stress-ng", "--cpu", "2", "--cpu-load", "20", "--timeout", seconds}};

  std::uint64_t turns = 0;
  int standstills = 0;
  while (under_it.running()) {
    std::this_thread::sleep_for(1s);
    loaded.consume_hints([](const asio_pulse_hint&) {});
    ASSERT_FALSE(loaded.exited().has_value()) << loaded.exited()->reason;
    std::uint64_t now = 0;
    for (const auto& worker : some) now += worker->thread().turns();
    standstills += now == turns;
    turns = now;
  }
  EXPECT_EQ(under_it.wait(), 0) << under_it.output();
  EXPECT_EQ(beside_it.wait(), 0) << beside_it.output();
  EXPECT_EQ(standstills, 0) << "seconds in which no worker ran";
  EXPECT_EQ(vm::sched_ext_state(), "enabled");
  const scx_pulse_counts after = loaded.counts();
  EXPECT_GT(after.dispatched, before.dispatched + 200 * std::stoul(seconds));
  EXPECT_EQ(after.kicks, 0U);
  EXPECT_EQ(after.throttles, 0U);
  for (const auto& worker : some) {
    EXPECT_TRUE(worker->thread().goes_on());
    EXPECT_GT(worker->acknowledged(), 0U);
  }
  std::cout << "dispatched " << after.dispatched << ", hints " << after.hints << ", pulled "
            << after.pulled << '\n';
}

TEST(robustness, stress_for_15_seconds) { stress("15"); }
TEST(robustness, stress_for_45_seconds) { stress("45"); }
