// SPDX-License-Identifier: BSL-1.0
//
// Small stacks: neither the library's own threads nor a worker's signal handler overflow.

#include "told.hpp"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace {

using namespace pulse_test;
using asio_pulse::no_stack;
using asio_pulse::stall_cause;
namespace asio = boost::asio;

/// One stall that computes and one that waits, each reported with its function.
int both_kinds() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  const auto named = [&](const char* function) {
    return [&reports, function] {
      return reports.any([function](const told::stall& s) {
        return s.function.find(function) != s.function.npos;
      });
    };
  };
  asio::post(io, [&] { compute_until(named("compute_until")); });
  asio::post(io, [&] { wait_until(named("wait_until")); });
  io.run();
  return 0;
}
const program of_both_kinds{"both_kinds", &both_kinds};

TEST(stack_sizes, a_limit_of_64_KiB_is_enough) {
  if (sanitized) GTEST_SKIP() << "a sanitizer needs more";
  EXPECT_TRUE(succeeded(of_both_kinds.run([] {
    const rlimit limit{.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
    ::setrlimit(RLIMIT_STACK, &limit);
  })));
}

std::uintptr_t lowest_of_stack() {
  pthread_attr_t attributes;
  void* lowest = nullptr;
  std::size_t size = 0;
  require(::pthread_getattr_np(::pthread_self(), &attributes) == 0, "the stack is known");
  ::pthread_attr_getstack(&attributes, &lowest, &size);
  ::pthread_attr_destroy(&attributes);
  return reinterpret_cast<std::uintptr_t>(lowest);
}

/// Uses up the stack except for this many bytes, and computes there.
template <class Over>
[[gnu::noinline]] int deep(std::uintptr_t lowest, std::size_t left, Over over) {
  volatile char here[64];
  here[0] = 1;
  if (reinterpret_cast<std::uintptr_t>(&here) - lowest > left) {
    deep(lowest, left, over);
  } else {
    while (!over()) {
      for (int i = 0; i != 10'000; ++i) asm volatile("");
    }
  }
  return here[0];  // read after the call: no tail call
}

/// Runs it on a thread whose stack is as small as it can be.
void run_on_smallest_stack(asio_pulse::io_context& io) {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  require(::pthread_attr_setstacksize(
              &attributes, static_cast<std::size_t>(::sysconf(_SC_THREAD_STACK_MIN))) == 0,
          "the size is set");
  pthread_t worker{};
  const auto run = [](void* of) -> void* {
    static_cast<asio_pulse::io_context*>(of)->run();
    return nullptr;
  };
  require(::pthread_create(&worker, &attributes, run, &io) == 0, "the worker begins");
  ::pthread_join(worker, nullptr);
  ::pthread_attr_destroy(&attributes);
}

/// A worker whose stack is as small as it can be, and nearly full.
int smallest_worker() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  asio::post(io, [&] {
    deep(lowest_of_stack(), 1500, [&] {
      return reports.any(
          [](const told::stall& s) { return s.function.find("deep") != s.function.npos; });
    });
  });
  run_on_smallest_stack(io);
  return 0;
}
const program with_smallest_worker{"smallest_worker", &smallest_worker};

TEST(stack_sizes, a_worker_of_16_KiB_gives_its_stack) {
  if (sanitized) GTEST_SKIP() << "a sanitizer needs more";
  EXPECT_TRUE(succeeded(with_smallest_worker.run()));
}

/// From here on sigaltstack() ends the process.
void forbid_signal_stacks() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sigaltstack, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = sizeof code / sizeof *code, .filter = code};
  require(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
              ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0,
          "the filter is in force");
}

int filtered_worker() {
  forbid_signal_stacks();
  told reports;
  asio_pulse::io_context io{reports.options()};
  asio::post(io, [&] {
    compute_until([&] {
      return reports.any([](const told::stall& s) { return s.why == no_stack::small_stack; });
    });
  });
  run_on_smallest_stack(io);
  return 0;
}
const program with_filtered_worker{"filtered_worker", &filtered_worker};

TEST(stack_sizes, under_a_filter_a_small_worker_gets_no_signal_stack) {
  if (sanitized) GTEST_SKIP() << "a sanitizer needs more";
  EXPECT_TRUE(succeeded(with_filtered_worker.run()));
}

}  // namespace
