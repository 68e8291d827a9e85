// SPDX-License-Identifier: BSL-1.0
#include "scheduler_support.hpp"

#include <asio_pulse/timing/published_cpu_time.hpp>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdio>

// Which threads are workers, where they may run, and what is published about them.

namespace {

using namespace sched_test;

// All hints are the worker's own: it may be hinted itself while it makes the other one, in a
// machine as slow as this.
void only_hinted(bench& b, pid_t worker) {
  EXPECT_EQ(b.counts().registered, 1U);
  for (const asio_pulse_hint& record : b.records())
    EXPECT_EQ(record.tid, static_cast<std::uint32_t>(worker));
}

TEST(scheduler_identity, a_new_thread_of_a_worker_is_none) {
  bench b;
  ext_thread w(b, 1, [&](const std::atomic<bool>&) {
    spin_for(100ms);
    std::thread([] {
      EXPECT_TRUE(vm::scheduled_by_bpf(vm::this_thread())) << "the policy is inherited";
      spin_for(200ms);
    }).join();
  });
  w.join();
  EXPECT_GE(b.counts().hints, 1U);
  only_hinted(b, w.tid());
}

TEST(scheduler_identity, a_forked_process_is_none) {
  bench b;
  int status = -1;
  ext_thread w(b, 1, [&](const std::atomic<bool>&) {
    vm::child child([] {
      const bool ours = vm::scheduled_by_bpf(vm::this_thread());
      spin_for(200ms);
      return ours ? 0 : 1;
    });
    status = child.wait();
  });
  w.join();
  EXPECT_EQ(status, 0);
  only_hinted(b, w.tid());
}

TEST(scheduler_identity, a_dead_worker_is_reaped_and_its_number_is_nobodys) {
  bench b;
  pid_t tid = 0;
  {
    ext_thread w(b, 1, [](const std::atomic<bool>&) { spin_for(20ms); });
    w.join();
    tid = w.tid();
  }
  EXPECT_TRUE(vm::eventually([&] { return b.counts().ended == 1; }));
  EXPECT_EQ(peek(b.block(1).worker_state), ASIO_PULSE_WORKER_DEAD);
  EXPECT_EQ(peek(b.block(1).cpu_sequence) & 1, 1U);
  const std::uint64_t sequence = peek(b.block(1).cpu_sequence);
  const std::uint64_t hints = b.counts().hints;

  vm::write("/proc/sys/kernel/ns_last_pid", std::to_string(tid - 1));
  ext_thread again(hog());
  if (again.tid() != tid) GTEST_SKIP() << "another thread has got the number";
  std::this_thread::sleep_for(200ms);
  again.join();
  EXPECT_EQ(b.counts().registered, 1U);
  EXPECT_EQ(b.counts().hints, hints);
  EXPECT_EQ(peek(b.block(1).cpu_sequence), sequence);
}

TEST(scheduler_identity, a_registration_of_another_thread_is_not_believed) {
  bench b;
  const auto misregistered = [&](unsigned long long ticks_off, std::uint32_t tgid_off) {
    std::thread([&] {
      const pid_t tid = vm::this_thread();
      scx::prepare_block(b.block(1), ASIO_PULSE_MODE_OBSERVER_ONLY);
      b.with([&](scx::scheduler& s) {
        s.add_worker(tid, {vm::start_ticks(tid) + ticks_off,
                           static_cast<std::uint32_t>(::getpid()) + tgid_off, 1});
      });
      vm::enter_sched_ext();
      spin_for(100ms);
    }).join();
  };
  misregistered(1, 0);
  EXPECT_EQ(b.counts().stale, 1U);
  misregistered(0, 1);
  EXPECT_GE(b.counts().stale, 2U);  // the first thread may look once more when it ends
  EXPECT_EQ(b.counts().registered, 0U);
  EXPECT_EQ(b.counts().hints, 0U);
  EXPECT_EQ(peek(b.block(1).cpu_sequence), 0U);
  misregistered(0, 0);
  EXPECT_EQ(b.counts().registered, 1U);
  EXPECT_GE(b.counts().hints, 1U);
}

TEST(scheduler_identity, a_thread_can_leave_and_come_back) {
  bench b;
  ext_thread w(b, 1, [&](const std::atomic<bool>&) {
    asio_pulse_scb& block = b.block(1);
    spin_for(50ms);
    EXPECT_EQ(peek(block.worker_state), ASIO_PULSE_WORKER_RUNNING);
    EXPECT_EQ(peek(block.cpu_sequence) & 1, 0U);
    EXPECT_EQ(peek(block.mode), ASIO_PULSE_MODE_OBSERVER_ONLY);
    vm::leave_sched_ext();
    EXPECT_EQ(peek(block.worker_state), ASIO_PULSE_WORKER_REGISTERED);
    EXPECT_EQ(peek(block.cpu_sequence) & 1, 1U);
    vm::enter_sched_ext();
    spin_for(3 * tick);
    EXPECT_EQ(peek(block.worker_state), ASIO_PULSE_WORKER_RUNNING);
    EXPECT_EQ(peek(block.cpu_sequence) & 1, 0U);
    b.remove_this(1);
    std::this_thread::sleep_for(5ms);
    const std::uint64_t hints = b.counts().hints;
    spin_for(50ms);
    EXPECT_EQ(peek(block.worker_state), ASIO_PULSE_WORKER_DEAD);
    EXPECT_EQ(peek(block.cpu_sequence) & 1, 1U);
    EXPECT_EQ(b.counts().hints, hints);
    EXPECT_EQ(b.counts().ended, 1U);
    b.register_this(2);  // the same thread, once more, in another slot
    spin_for(50ms);
    EXPECT_EQ(peek(b.block(2).worker_state), ASIO_PULSE_WORKER_RUNNING);
    EXPECT_EQ(peek(b.block(2).cpu_sequence) & 1, 0U);
    EXPECT_EQ(peek(b.block(2).preempt_seq), 1U);
  });
  w.join();
}

TEST(scheduler_identity, affinity_is_respected) {
  bench b;
  std::vector<std::unique_ptr<ext_thread>> threads;
  std::atomic<unsigned> elsewhere{0};
  std::atomic<unsigned> moves{0};
  for (unsigned i = 0; i < 4; ++i)
    threads.push_back(std::make_unique<ext_thread>([&](const std::atomic<bool>& stop) {
      for (int cpu = 0; !stop; cpu ^= 1) {
        pin_to(cpu);
        const std::uint64_t until = now_ns() + in_ns(20ms);
        while (now_ns() < until)
          if (::sched_getcpu() != cpu) ++elsewhere;
        ++moves;
        std::this_thread::sleep_for(1ms);
        if (::sched_getcpu() != cpu) ++elsewhere;
      }
    }));
  std::vector<std::unique_ptr<ext_thread>> free_ones;
  for (unsigned i = 0; i < 2; ++i) free_ones.push_back(std::make_unique<ext_thread>(hog()));
  std::this_thread::sleep_for(3s);
  for (auto& thread : threads) thread->join();
  EXPECT_EQ(elsewhere, 0U);
  EXPECT_GT(moves, 20U);
  EXPECT_EQ(b.trouble(), "");
}

TEST(scheduler_identity, published_cpu_time_is_the_threads_own) {
  bench b;
  ext_thread one(hog());
  ext_thread two(hog());
  ext_thread three(hog());
  std::vector<double> off;
  std::uint64_t sequence = 0;
  ext_thread w(b, 1, [&](const std::atomic<bool>& stop) {
    const auto& published =
        *reinterpret_cast<const asio_pulse::timing::published_cpu_time*>(&b.block(1));
    while (!stop && off.size() < 20000) {
      const auto before = published.try_read();
      const std::uint64_t now = now_ns();
      const std::uint64_t real = thread_cpu_ns();
      const auto after = published.try_read();
      // Between equal sequences the thread has not left its CPU.
      if (!before.consistent || after.sequence != before.sequence) continue;
      sequence = before.sequence;
      off.push_back(static_cast<double>(before.run_ns + now - before.run_start_ns) -
                    static_cast<double>(real));
      spin_for(100us);
    }
  });
  std::this_thread::sleep_for(3s);
  w.join();
  ASSERT_GT(off.size(), 100U);
  EXPECT_GT(sequence, 20U) << "there was no contention";
  std::vector<double> late(off.end() - static_cast<std::ptrdiff_t>(off.size() / 10), off.end());
  std::printf(
      "published minus CLOCK_THREAD_CPUTIME_ID: median %.1f us, 1%% %.1f us, 99%% %.1f us; "
      "of the last tenth, median %.1f us\n",
      quantile(off, 0.5) / 1e3, quantile(off, 0.01) / 1e3, quantile(off, 0.99) / 1e3,
      quantile(late, 0.5) / 1e3);
  EXPECT_LE(std::abs(quantile(off, 0.5)), 200e3);
  EXPECT_LE(std::abs(quantile(late, 0.5)), 200e3) << "it drifts";
}

TEST(scheduler_identity, detached_it_says_that_nobody_publishes) {
  auto s = std::make_unique<scx::scheduler>(scx::scheduler_options{});
  const scx::process_blocks blocks = s->open_process(::getpid());
  const std::size_t bytes = blocks.blocks.size_bytes();
  // A mapping as programs have it, which outlives the loader.
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, blocks.fd, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& block = static_cast<asio_pulse_scb*>(memory)[1];
  scx::prepare_block(block, ASIO_PULSE_MODE_OBSERVER_ONLY);
  ext_thread w([&](const std::atomic<bool>& stop) {
    const pid_t tid = vm::this_thread();
    s->add_worker(tid, {vm::start_ticks(tid), static_cast<std::uint32_t>(::getpid()), 1});
    while (!stop) {
    }
  });
  ASSERT_TRUE(vm::eventually(
      [&] { return peek(block.cpu_sequence) != 0 && peek(block.cpu_sequence) % 2 == 0; }));
  s.reset();
  EXPECT_EQ(vm::sched_ext_state(), "disabled");
  EXPECT_EQ(peek(block.cpu_sequence) & 1, 1U);
  EXPECT_EQ(peek(block.worker_state), ASIO_PULSE_WORKER_DEAD);
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(peek(block.cpu_sequence) & 1, 1U);
  w.join();
  ::munmap(memory, bytes);
}

}  // namespace
