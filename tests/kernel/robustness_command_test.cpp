// SPDX-License-Identifier: BSL-1.0
#include "vm_support.hpp"
#include "vm_workers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <string>

/// \file
/// The command scx_pulse in a process of its own, under adverse conditions.

namespace {

using namespace std::chrono_literals;

constexpr const char* socket_path = "/run/scx_pulse.sock";

bool enabled() { return vm::sched_ext_state() == "enabled"; }
bool disabled() { return vm::sched_ext_state() == "disabled"; }
long loads_so_far() { return std::stol(vm::read("/sys/kernel/sched_ext/enable_seq")); }

class robustness_of_the_command : public testing::Test {
 protected:
  void SetUp() override {
    if (!vm::has_program("scx_pulse")) GTEST_SKIP() << "scx_pulse is not in the virtual machine";
  }

  /// Waits until it serves.
  static void wait_for(vm::child& loader) {
    ASSERT_TRUE(vm::eventually(
        [&] { return !loader.running() || (enabled() && std::filesystem::exists(socket_path)); },
        30s))
        << loader.output();
    ASSERT_TRUE(loader.running()) << loader.output();
  }

  static void expect_clean_end(vm::child& loader) {
    loader.signal(SIGTERM);
    EXPECT_EQ(loader.wait(), 0) << loader.output();
    EXPECT_TRUE(disabled()) << vm::sched_ext_state();
    EXPECT_FALSE(std::filesystem::exists(socket_path));
  }
};

}  // namespace

TEST_F(robustness_of_the_command, killed_and_started_again) {
  vm::spinner thread;
  {
    vm::child loader{{"scx_pulse"}};
    wait_for(loader);
    EXPECT_TRUE(vm::eventually([&] { return vm::scheduled_by_bpf(thread.tid()); }));
    loader.signal(SIGKILL);
    EXPECT_TRUE(vm::eventually(disabled, 1s)) << vm::sched_ext_state();
    EXPECT_EQ(loader.wait(), 128 + SIGKILL);
  }
  EXPECT_TRUE(thread.goes_on());
  EXPECT_TRUE(
      std::filesystem::exists(socket_path));  // no process could remove it, and it must not disturb
  vm::child loader{{"scx_pulse"}};
  wait_for(loader);
  EXPECT_TRUE(vm::eventually([&] { return vm::scheduled_by_bpf(thread.tid()); }));
  expect_clean_end(loader);
  EXPECT_TRUE(thread.goes_on());
}

TEST_F(robustness_of_the_command, a_second_one_is_refused) {
  vm::child first{{"scx_pulse"}};
  wait_for(first);
  for (const std::string path : {socket_path, "/run/another.sock"}) {
    vm::child second{{"scx_pulse", "--socket", path}};
    EXPECT_EQ(second.wait(), 1);
    EXPECT_FALSE(second.output().empty());
  }
  EXPECT_FALSE(std::filesystem::exists("/run/another.sock"));
  EXPECT_TRUE(enabled());
  EXPECT_TRUE(first.running());
  expect_clean_end(first);
}

// tests/unit/bpf has the cases that need no kernel with sched_ext.
TEST_F(robustness_of_the_command, without_privilege_or_btf_it_says_so_and_leaves_nothing) {
  const auto refused = [](const std::function<void()>& spoil, const std::string& why) {
    const long loads = loads_so_far();
    vm::child loader{[&]() -> int {
      spoil();
      execlp("scx_pulse", "scx_pulse", nullptr);
      return 127;
    }};
    EXPECT_EQ(loader.wait(), 1) << loader.output();
    EXPECT_THAT(loader.output(), testing::HasSubstr(why));
    EXPECT_FALSE(std::filesystem::exists(socket_path));
    EXPECT_TRUE(disabled()) << vm::sched_ext_state();
    EXPECT_EQ(loads_so_far(), loads);
  };
  refused(
      [] {
        if (setgid(65534) != 0 || setuid(65534) != 0) _exit(126);
      },
      "CAP_SYS_ADMIN is not in effect");
  // A file that is not BTF, in a mount namespace that ends with the child.
  refused(
      [] {
        if (unshare(CLONE_NEWNS) != 0 ||
            mount("/dev/null", "/sys/kernel/btf/vmlinux", nullptr, MS_BIND, nullptr) != 0)
          _exit(126);
      },
      "/sys/kernel/btf/vmlinux cannot be read");
  // Without that it runs, so nothing else has prevented it.
  vm::child loader{{"scx_pulse"}};
  wait_for(loader);
  expect_clean_end(loader);
}

TEST_F(robustness_of_the_command, ends_with_the_kernels_reason) {
  vm::expect_kernel_message("^sysrq: ");
  vm::expect_kernel_message(
      "^sched_ext: BPF scheduler \"[a-z_]+\" disabled \\(disabled by sysrq-S\\)$");
  vm::child loader{{"scx_pulse"}};
  wait_for(loader);
  vm::write("/proc/sysrq-trigger", "S");
  EXPECT_EQ(loader.wait(10s), 3) << loader.output();
  EXPECT_THAT(loader.output(), testing::HasSubstr("sysrq"));
  EXPECT_FALSE(std::filesystem::exists(socket_path));
}

TEST_F(robustness_of_the_command, loads_again_when_a_cpu_comes_or_goes) {
  vm::expect_cpu_1_to_come_and_go();
  vm::spinner thread;
  vm::child loader{{"scx_pulse"}};
  wait_for(loader);
  for (const bool online : {false, true}) {
    const long loads = loads_so_far();
    vm::set_cpu_online(1, online);
    EXPECT_TRUE(vm::eventually([&] { return loads_so_far() > loads && enabled(); }, 30s))
        << loader.output();
    EXPECT_TRUE(loader.running()) << loader.output();
    EXPECT_TRUE(vm::eventually([&] { return vm::scheduled_by_bpf(thread.tid()); }));
    EXPECT_TRUE(thread.goes_on());
  }
  expect_clean_end(loader);
}
