// SPDX-License-Identifier: BSL-1.0

#include "threads/thread_usage.hpp"

#include "process/system_calls.hpp"
#include "stall_evidence.hpp"
#include "support/cpu_work.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <latch>
#include <ostream>
#include <string>
#include <thread>
#include <utility>

namespace {

using asio_pulse::stall_cause;
using asio_pulse::to_string;
using asio_pulse::detail::classify;
using asio_pulse::detail::excused_ns;
using asio_pulse::detail::stall_evidence;
using asio_pulse::detail::thread_files;
using asio_pulse::detail::thread_probe;
using asio_pulse::detail::thread_usage;
namespace parse = asio_pulse::detail::parse;

constexpr std::int64_t ns_per_ms = 1'000'000;

// ---- decisions

/// Ten milliseconds between two looks, and the kernel's figures about them.
struct look {
  const char* what;
  std::int64_t cpu_ms;
  std::int64_t delay_ms;
  std::uint64_t voluntary;
  char state;
  bool waiting;
  stall_cause cause;
  std::int64_t excused_ms;

  friend void PrintTo(const look& l, std::ostream* to) { *to << l.what; }
};

stall_evidence evidence_of(const look& l) {
  stall_evidence e{.before = {}, .now = {}, .wall_ns = 10 * ns_per_ms};
  e.before = {.cpu_ns = 7 * ns_per_ms,
              .run_delay_ns = 3 * ns_per_ms,
              .voluntary = 5,
              .involuntary = 9,
              .state = 'R',
              .valid = true,
              .have_delay = true,
              .have_switches = true};
  e.now = e.before;
  e.now.cpu_ns += l.cpu_ms * ns_per_ms;
  e.now.run_delay_ns += l.delay_ms * ns_per_ms;
  e.now.voluntary += l.voluntary;
  e.now.state = l.state;
  e.now.waiting = l.waiting;
  return e;
}

class stall_evidence_table : public testing::TestWithParam<look> {};

TEST_P(stall_evidence_table, gives_cause_and_excuse) {
  const stall_evidence e = evidence_of(GetParam());
  EXPECT_EQ(classify(e), GetParam().cause) << to_string(classify(e));
  EXPECT_EQ(excused_ns(e), GetParam().excused_ms * ns_per_ms);
}

INSTANTIATE_TEST_SUITE_P(
    looks, stall_evidence_table,
    testing::Values(
        look{"spins", 10, 0, 0, 'R', false, stall_cause::spinning, 0},
        look{"spins beside a competitor", 6, 4, 0, 'R', false, stall_cause::spinning, 4},
        look{"spins, and sleeps a little", 8, 0, 3, 'R', false, stall_cause::spinning, 0},
        look{"sleeps", 0, 0, 1, 'S', false, stall_cause::blocked, 0},
        look{"waits for a disk", 0, 0, 1, 'D', false, stall_cause::blocked, 0},
        look{"slept before it was seen running", 1, 0, 9, 'R', false, stall_cause::blocked, 0},
        look{"slept, after it waited for a CPU", 1, 2, 2, 'S', false, stall_cause::blocked, 2},
        look{"works and sleeps in turn", 5, 0, 9, 'S', false, stall_cause::unknown, 0},
        look{"waits for a CPU, all the time", 0, 0, 0, 'R', true, stall_cause::descheduled, 10},
        look{"waited for a CPU, and has one now", 1, 9, 0, 'R', false, stall_cause::descheduled, 9},
        // The wait is not over, so it is in no figure: the switches show that it never slept.
        look{"waits for a CPU, not counted yet", 3, 1, 0, 'R', true, stall_cause::descheduled, 7},
        // Slept or waited? The benefit of the doubt.
        look{"waits for a CPU after sleeping", 1, 0, 2, 'R', true, stall_cause::descheduled, 9},
        look{"waited for a CPU, then slept", 1, 7, 1, 'S', false, stall_cause::descheduled, 7},
        look{"is stopped", 0, 0, 1, 'T', false, stall_cause::stopped, 10},
        look{"is traced", 4, 0, 1, 't', false, stall_cause::stopped, 6}));

TEST(stall_evidence, of_nothing_is_unknown) {
  stall_evidence e = evidence_of({"", 10, 0, 0, 'R', false, stall_cause::spinning, 0});
  e.before.valid = false;
  EXPECT_EQ(classify(e), stall_cause::unknown);
  EXPECT_EQ(excused_ns(e), 0);
  e.before.valid = true;
  e.wall_ns = 0;
  EXPECT_EQ(classify(e), stall_cause::unknown);
  EXPECT_EQ(excused_ns(e), 0);
}

TEST(stall_evidence, without_the_kernels_figures_only_cpu_time_speaks) {
  stall_evidence e = evidence_of({"", 9, 0, 0, '\0', false, stall_cause::spinning, 0});
  e.before.have_delay = e.now.have_delay = e.before.have_switches = e.now.have_switches = false;
  EXPECT_EQ(classify(e), stall_cause::spinning);
  e.now.cpu_ns = e.before.cpu_ns;  // asleep, or waiting for a CPU: it is not known which
  EXPECT_EQ(classify(e), stall_cause::unknown);
  e.now.state = 'S';
  EXPECT_EQ(classify(e), stall_cause::blocked);
}

TEST(stall_evidence, of_clocks_that_disagree_stays_in_bounds) {
  stall_evidence e = evidence_of({"", 30, 40, 0, 'R', false, stall_cause::spinning, 0});
  EXPECT_EQ(classify(e), stall_cause::spinning);
  EXPECT_EQ(excused_ns(e), 0);
  e.now.cpu_ns = 0;  // backwards, which is impossible
  EXPECT_GE(excused_ns(e), 0);
  EXPECT_LE(excused_ns(e), e.wall_ns);
}

TEST(stall_evidence, of_a_poll_is_its_own_time) {
  // At the last look it had been without a CPU for a while, but it has computed.
  stall_evidence e = evidence_of({"", 0, 10, 0, 'R', true, stall_cause::descheduled, 10});
  EXPECT_EQ(classify(e), stall_cause::descheduled);
  EXPECT_EQ(classify(6 * ns_per_ms, 5 * ns_per_ms, e), stall_cause::spinning);
  EXPECT_EQ(classify(0, 0, e), stall_cause::descheduled) << "no time of its own";
  // Asleep, and nothing is known about the time before.
  e = evidence_of({"", 0, 0, 1, 'S', false, stall_cause::blocked, 0});
  e.before = {};
  EXPECT_EQ(classify(e), stall_cause::unknown);
  EXPECT_EQ(classify(6 * ns_per_ms, 1 * ns_per_ms, e), stall_cause::blocked);
  EXPECT_EQ(classify(6 * ns_per_ms, 3 * ns_per_ms, e), stall_cause::unknown)
      << "works and sleeps in turn";
  EXPECT_EQ(classify(6 * ns_per_ms, 9 * ns_per_ms, e), stall_cause::spinning)
      << "clocks that disagree";
  e.now.state = 'R';
  EXPECT_EQ(classify(6 * ns_per_ms, 1 * ns_per_ms, e), stall_cause::unknown)
      << "it may have waited for a CPU";
  e.now.state = 'T';
  EXPECT_EQ(classify(6 * ns_per_ms, 6 * ns_per_ms, e), stall_cause::stopped);
  e.now.valid = false;
  EXPECT_EQ(classify(6 * ns_per_ms, 6 * ns_per_ms, e), stall_cause::unknown);
}

// ---- texts of the kernel

TEST(proc_stat, state_follows_the_last_bracket) {
  const auto state_in = [](std::string_view text) {
    thread_usage usage;
    return parse::stat(text, usage) ? usage.state : '-';
  };
  EXPECT_EQ(state_in("12 (server) S 1 12 12 0"), 'S');
  EXPECT_EQ(state_in("12 (a) R (b)) t 1 12 12 0"), 't');
  EXPECT_EQ(state_in("12 (new\nline) D 1"), 'D');
  EXPECT_EQ(state_in("12 (server)"), '-');
  EXPECT_EQ(state_in("12 (server) "), '-');
  EXPECT_EQ(state_in("12 (server) 7 1"), '-');
  EXPECT_EQ(state_in(""), '-');
}

TEST(proc_stat, the_cpu_is_the_39th_field) {
  std::string text = "12 (a b) R";
  for (int field = 4; field != 39; ++field) text += ' ' + std::to_string(100 + field);
  thread_usage usage;
  ASSERT_TRUE(parse::stat(text, usage));
  EXPECT_EQ(usage.cpu, -1);
  ASSERT_TRUE(parse::stat(text + " 7 0 0\n", usage));
  EXPECT_EQ(usage.cpu, 7);
  thread_usage untouched;
  ASSERT_TRUE(parse::stat(text + " x 5", untouched));
  EXPECT_EQ(untouched.cpu, -1);
}

TEST(proc_schedstat, of_a_kernel_that_keeps_none_is_refused) {
  thread_usage usage;
  EXPECT_TRUE(parse::schedstat("123456 789 42\n", usage));
  EXPECT_TRUE(usage.have_delay);
  EXPECT_EQ(usage.run_delay_ns, 789);
  for (const char* const bad : {"0 0 0\n", "12 34", "x", "", "12 -1 3\n"}) {
    thread_usage untouched;
    EXPECT_FALSE(parse::schedstat(bad, untouched)) << bad;
    EXPECT_FALSE(untouched.have_delay);
  }
}

TEST(proc_status, switches_are_lines_of_their_own) {
  thread_usage usage;
  EXPECT_TRUE(
      parse::status("Name:\tvoluntary_ctxt_switches: 9\nvoluntary_ctxt_switches:\t12\n"
                    "nonvoluntary_ctxt_switches:\t34\n",
                    usage));
  EXPECT_EQ(usage.voluntary, 12U);
  EXPECT_EQ(usage.involuntary, 34U);
  EXPECT_EQ(usage.blocked_signals, 0U);
  EXPECT_TRUE(
      parse::status("Name:\tSigBlk: 1\nSigBlk:\tfffffffe7ffbfeff\nvoluntary_ctxt_switches:\t1\n"
                    "nonvoluntary_ctxt_switches:\t3\n",
                    usage));
  EXPECT_EQ(usage.blocked_signals, 0xffff'fffe'7ffb'feffU);
  EXPECT_EQ(usage.filters, 0);
  EXPECT_TRUE(
      parse::status("Name:\tSeccomp: 1\nSeccomp:\t2\nvoluntary_ctxt_switches:\t1\n"
                    "nonvoluntary_ctxt_switches:\t3\n",
                    usage));
  EXPECT_EQ(usage.filters, 1);
  EXPECT_TRUE(
      parse::status("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t3\nvoluntary_ctxt_switches:\t1\n"
                    "nonvoluntary_ctxt_switches:\t3\n",
                    usage));
  EXPECT_EQ(usage.filters, 3);
  EXPECT_FALSE(parse::status("Name:\tx\nvoluntary_ctxt_switches:\t12\n", usage));
}

TEST(proc_syscall, is_named_with_its_descriptor) {
  std::array<char, 64> buffer{};
  const auto name = [&](long number, const char* arguments) {
    return std::string(parse::system_call(std::to_string(number) + " " + arguments + "\n", buffer));
  };
  EXPECT_EQ(name(SYS_read, "0x7 0x7ffd 0x1 0x0 0x0 0x0 0x7ffd 0x7f"), "read fd 7");
  EXPECT_EQ(name(SYS_recvfrom, "0xffffffff 0x0 0x1"), "recvfrom fd -1");
  EXPECT_EQ(name(SYS_futex, "0x7ffd00 0x80 0x2"), "futex");
  EXPECT_EQ(name(SYS_clock_nanosleep, "0x0 0x0"), "clock_nanosleep");
  EXPECT_EQ(name(SYS_dup, "0x5 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f"), "dup fd 5");
  EXPECT_EQ(name(SYS_getpid, "0x5 0x0"), "getpid");
  EXPECT_EQ(name(436, "0x3 0xffffffff"), "close_range");
  EXPECT_EQ(name(99999, "0x0"), "system call 99999");
  EXPECT_EQ(parse::system_call("running\n", buffer), "");
  EXPECT_EQ(parse::system_call("-1 0x7ffd 0x7f\n", buffer), "");
  EXPECT_EQ(parse::system_call("", buffer), "");
  EXPECT_EQ(parse::system_call(std::to_string(SYS_clock_nanosleep) + " 0x0\n",
                               std::span(buffer).first(5)),
            "clock");
}

TEST(system_calls, have_their_names) {
  using asio_pulse::detail::system_call_name;
  // All numbers in this kernel's headers; some are not used.
  int named = 0;
  for (long number = 0; number != 424; ++number) {
    if (!system_call_name(number).empty()) ++named;
  }
  EXPECT_GE(named, 250);
  for (long number = 424; number != 470; ++number) {
    EXPECT_FALSE(system_call_name(number).empty()) << number;
  }
  EXPECT_EQ(system_call_name(SYS_futex), "futex");
  EXPECT_TRUE(system_call_name(-1).empty());
  EXPECT_TRUE(asio_pulse::detail::takes_descriptor("sendto"));
  EXPECT_FALSE(asio_pulse::detail::takes_descriptor("futex"));
  EXPECT_FALSE(asio_pulse::detail::takes_descriptor(""));
}

// ---- live threads

TEST(thread_probe, sees_another_thread_use_its_cpu) {
  std::latch begun{1};
  std::latch seen{1};
  pid_t tid = 0;
  std::thread other([&] {
    tid = ::gettid();
    pulse_test::burn(std::chrono::milliseconds{1});
    begun.count_down();
    pulse_test::burn(std::chrono::milliseconds{20});
    seen.wait();
  });
  begun.wait();
  thread_files files;
  thread_probe probe(tid, files);
  const thread_usage before = probe.full();
  ASSERT_TRUE(before.valid);
  EXPECT_GE(before.cpu_ns, ns_per_ms);
  thread_usage now = before;
  while (now.cpu_ns < before.cpu_ns + 10 * ns_per_ms) now = probe.quick();
  EXPECT_TRUE(now.valid);
  EXPECT_EQ(now.state, '\0');
  if (!now.have_delay) std::puts("this kernel keeps no run delay");
  seen.count_down();
  other.join();
  EXPECT_FALSE(probe.quick().valid);
  EXPECT_EQ(probe.full().state, '\0');
  std::array<char, 64> buffer{};
  EXPECT_EQ(probe.system_call(buffer), "");
}

TEST(thread_probe, names_the_call_that_a_thread_is_blocked_in) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::latch begun{1};
  pid_t tid = 0;
  std::thread other([&] {
    tid = ::gettid();
    // A name that would fool a parser that looks for the first bracket.
    ::pthread_setname_np(::pthread_self(), "a) R (b");
    begun.count_down();
    char byte = 0;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
  });
  begun.wait();
  thread_files files;
  thread_probe probe(tid, files);
  thread_usage usage = probe.full();
  while (usage.state != 'S') {  // on its way into read()
    std::this_thread::yield();
    usage = probe.full();
  }
  EXPECT_TRUE(usage.valid);
  EXPECT_TRUE(usage.have_switches);
  EXPECT_FALSE(usage.waiting);
  std::array<char, 64> buffer{};
  std::string call(probe.system_call(buffer));
  // The state is S also a moment before and after the call. In a sandbox it may not be visible.
  for (int i = 0; i != 1000 && !call.starts_with("read"); ++i) {
    std::this_thread::yield();
    call = probe.system_call(buffer);
  }
  if (call.empty()) std::puts("this kernel does not show system calls");
  if (call.starts_with("read")) {
    EXPECT_EQ(call, "read fd " + std::to_string(ends[0]));
  }
  EXPECT_EQ(::write(ends[1], "x", 1), 1);
  other.join();
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(thread_probe, of_no_thread_reads_nothing) {
  thread_probe none;
  EXPECT_FALSE(none.quick().valid);
  EXPECT_FALSE(none.full().valid);
  thread_files files;
  thread_probe mine(::gettid(), files);
  EXPECT_TRUE(mine.quick().valid);
  none = mine;
  EXPECT_TRUE(none.quick().valid);
  EXPECT_FALSE(none.full().waiting);  // it is running, right here
}

}  // namespace
