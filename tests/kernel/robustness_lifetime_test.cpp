// SPDX-License-Identifier: BSL-1.0
#include "scheduler.hpp"
#include "vm_support.hpp"
#include "vm_workers.hpp"

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

/// \file
/// The lifetime of the scheduler: it is killed, ended by the kernel, loaded again and again, and by
/// two processes at once. In each case there are SCHED_EXT threads, which must continue to run.

namespace {

using namespace std::chrono_literals;
using asio_pulse::scx::scheduler;
using asio_pulse::scx::scheduler_exit;
using asio_pulse::scx::scheduler_options;

bool enabled() { return vm::sched_ext_state() == "enabled"; }
bool disabled() { return vm::sched_ext_state() == "disabled"; }

long loads_so_far() { return std::stol(vm::read("/sys/kernel/sched_ext/enable_seq")); }

/// The number of BPF programs in the kernel.
int bpf_programs() {
  int count = 0;
  for (__u32 id = 0; bpf_prog_get_next_id(id, &id) == 0;) ++count;
  return count;
}

int open_files() {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator{"/proc/self/fd"}, {}));
}

/// A process that holds the scheduler until it is told to end.
std::unique_ptr<vm::child> other_process_with_scheduler() {
  auto holder = std::make_unique<vm::child>([] {
    const scheduler loaded{scheduler_options{}};
    for (;;) pause();
    return 0;
  });
  if (!vm::eventually([&] { return enabled() || !holder->running(); }) || !enabled()) {
    throw std::runtime_error{"the other process has no scheduler: " + holder->output()};
  }
  return holder;
}

/// Asserts that the kernel has ended the scheduler, and returns how.
scheduler_exit wait_for_exit(const scheduler& thrown_out) {
  EXPECT_TRUE(vm::eventually([&] { return thrown_out.exited().has_value(); }));
  const scheduler_exit how = thrown_out.exited().value_or(scheduler_exit{});
  EXPECT_FALSE(how.asked_for);
  EXPECT_NE(how.kind, 0U);
  EXPECT_FALSE(how.reason.empty());
  EXPECT_TRUE(vm::eventually(disabled, 1s)) << vm::sched_ext_state();
  return how;
}

/// Loads a scheduler, and checks that it schedules this thread.
std::unique_ptr<scheduler> load_for(const vm::spinner& thread) {
  auto loaded = std::make_unique<scheduler>(scheduler_options{});
  EXPECT_TRUE(enabled());
  EXPECT_FALSE(loaded->exited().has_value());
  EXPECT_TRUE(vm::eventually([&] { return vm::scheduled_by_bpf(thread.tid()); }));
  EXPECT_TRUE(thread.goes_on(10));
  return loaded;
}

}  // namespace

TEST(robustness, sigkill_of_the_loader_leaves_nothing_and_harms_nobody) {
  const auto holder = other_process_with_scheduler();
  vm::spinner thread;
  ASSERT_TRUE(vm::eventually([&] { return vm::scheduled_by_bpf(thread.tid()); }));

  const auto killed = std::chrono::steady_clock::now();
  holder->signal(SIGKILL);
  ASSERT_TRUE(vm::eventually(disabled, 1s)) << vm::sched_ext_state();
  const auto took = std::chrono::steady_clock::now() - killed;
  RecordProperty(
      "disabled_after_us",
      static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
  EXPECT_EQ(holder->wait(), 128 + SIGKILL);

  EXPECT_FALSE(vm::scheduled_by_bpf(thread.tid()));
  EXPECT_TRUE(thread.goes_on());
  EXPECT_TRUE(vm::eventually([] { return bpf_programs() == 0; })) << bpf_programs();
  load_for(thread);
}

TEST(robustness, fifty_loads_and_unloads) {
  constexpr int times = 50;
  // Not hogs: while there is no scheduler they are ordinary threads, and the loader has to make
  // progress.
  const auto nap = [] { std::this_thread::sleep_for(1ms); };
  vm::spinner first{nap};
  vm::spinner second{nap};
  load_for(first);  // permanent allocations are made now
  const int files = open_files();
  const long loads = loads_so_far();
  for (int i = 0; i < times; ++i) {
    {
      const scheduler loaded{scheduler_options{}};
      ASSERT_TRUE(enabled()) << i;
      ASSERT_FALSE(loaded.exited().has_value()) << i;
    }
    ASSERT_TRUE(vm::eventually(disabled, 1s)) << i << ": " << vm::sched_ext_state();
  }
  EXPECT_EQ(loads_so_far(), loads + times);
  EXPECT_EQ(open_files(), files);
  EXPECT_TRUE(vm::eventually([] { return bpf_programs() == 0; })) << bpf_programs();
  EXPECT_TRUE(first.goes_on(100));
  EXPECT_TRUE(second.goes_on(100));
}

TEST(robustness, sysrq_throws_the_scheduler_out) {
  vm::expect_kernel_message("^sysrq: ");
  vm::expect_kernel_message(
      "^sched_ext: BPF scheduler \"[a-z_]+\" disabled \\(disabled by sysrq-S\\)$");
  vm::spinner thread;
  auto loaded = load_for(thread);

  vm::write("/proc/sysrq-trigger", "S");
  const scheduler_exit how = wait_for_exit(*loaded);
  EXPECT_THAT(how.reason, testing::HasSubstr("sysrq"));
  EXPECT_FALSE(how.restart);
  EXPECT_FALSE(vm::scheduled_by_bpf(thread.tid()));
  EXPECT_TRUE(thread.goes_on());

  // The object of a scheduler that has ended can still be used for calls that do not need the
  // scheduler.
  EXPECT_NO_THROW({
    (void)loaded->counts();
    (void)loaded->queued();
    (void)loaded->consume_hints([](const asio_pulse_hint&) {});
  });
  loaded.reset();
  load_for(thread);
}

TEST(robustness, a_cpu_taken_off_and_put_back) {
  vm::expect_cpu_1_to_come_and_go();
  vm::spinner thread;
  auto loaded = load_for(thread);
  EXPECT_EQ(loaded->cpus(), 2U);

  for (const bool online : {false, true}) {
    vm::set_cpu_online(1, online);
    const scheduler_exit how = wait_for_exit(*loaded);
    EXPECT_TRUE(how.restart) << how.reason << ", " << how.message << ", code " << how.code;
    EXPECT_TRUE(thread.goes_on());
    loaded.reset();
    loaded = load_for(thread);
    EXPECT_EQ(loaded->cpus(), online ? 2U : 1U);
  }
}

TEST(robustness, a_second_loader_is_refused) {
  vm::spinner thread;
  const auto first = load_for(thread);
  const long loads = loads_so_far();
  try {
    const scheduler second{scheduler_options{}};
    FAIL() << "two schedulers at the same time";
  } catch (const std::runtime_error& e) {
    // One sentence that says why, not a bare number.
    EXPECT_THAT(e.what(), testing::ContainsRegex("another|already|scheduler"));
    std::cout << "refused: " << e.what() << '\n';
  }
  EXPECT_TRUE(enabled());
  EXPECT_FALSE(first->exited().has_value());
  EXPECT_TRUE(vm::scheduled_by_bpf(thread.tid()));
  EXPECT_EQ(loads_so_far(), loads);
}
