// SPDX-License-Identifier: BSL-1.0
//
// If a stack cannot be taken, the report gives the reason.

#include "told.hpp"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <thread>

namespace {

using namespace pulse_test;
using asio_pulse::no_stack;
using asio_pulse::stall_cause;
namespace asio = boost::asio;

/// Computes in a handler until a report gives the reason, and for a minute at most.
int computes_until(told& reports, asio_pulse::io_context& io, no_stack why) {
  asio::post(io, [&] {
    const auto end = std::chrono::steady_clock::now() + long_enough;
    compute_until([&] {
      return reports.any([why](const told::stall& s) { return s.why == why; }) ||
             std::chrono::steady_clock::now() > end;
    });
  });
  io.run();
  for (const told::stall& s : reports.all()) std::printf("%s\n", s.line.c_str());
  for (const told::stall& s : reports.all()) {
    if (s.why != why) continue;
    require(s.line.find("no_stack=\"" + std::string(to_string(why)) + "\"") != s.line.npos,
            "the reason is in the line");
    return 0;
  }
  return 1;
}

int signals_blocked() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  const int result = computes_until(reports, io, no_stack::signal_blocked);
  sigset_t pending;
  ::sigpending(&pending);
  require(sigismember(&pending, SIGURG) == 0, "no signal is pending for ever");
  return result;
}
const program with_signals_blocked{"signals_blocked", &signals_blocked};

int handler_replaced() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  ::signal(SIGURG, [](int) {});
  return computes_until(reports, io, no_stack::handler_replaced);
}
const program with_handler_replaced{"handler_replaced", &handler_replaced};

int switched_off() {
  told reports;
  auto o = reports.options();
  o.stall_signal = -1;
  asio_pulse::io_context io{o};
  return computes_until(reports, io, no_stack::switched_off);
}
const program with_signal_off{"switched_off", &switched_off};

TEST(no_stack, because_the_thread_blocks_all_signals) {
  const outcome o = with_signals_blocked.run();
  EXPECT_TRUE(succeeded(o));
  EXPECT_NE(o.out.find("see=asio_pulse/docs/lints.md#no_stack"), std::string::npos) << o.out;
}

TEST(no_stack, because_the_program_took_the_signal_over) {
  const outcome o = with_handler_replaced.run();
  EXPECT_TRUE(succeeded(o));
  EXPECT_NE(o.out.find("see=asio_pulse/docs/lints.md#no_stack"), std::string::npos) << o.out;
}

TEST(no_stack, because_the_program_wants_none) { EXPECT_TRUE(succeeded(with_signal_off.run())); }

// ---- a daemon that starts as root and then becomes another user

constexpr uid_t nobody = 65534;

void become_nobody() {
  require(::setgroups(0, nullptr) == 0 && ::setgid(nobody) == 0 && ::setuid(nobody) == 0,
          "the user is changed");
  require(::prctl(PR_GET_DUMPABLE) != 1, "other processes may not inspect this one any more");
}

/// Stalls until the function of one is known. On a busy machine a thread that computes does not
/// always answer in time.
template <class Stuck>
void stalls_until_known(told& reports, asio_pulse::io_context& io, Stuck stuck,
                        std::string_view function) {
  const auto end = std::chrono::steady_clock::now() + long_enough / 4;
  const auto known = [&] {
    // Code that is compiled with a sanitizer uses frame pointers, and cannot be seen from a blocked
    // call.
    return reports.any([&](const told::stall& s) {
      return s.function.find(function) != s.function.npos || (sanitized && s.frames != 0);
    });
  };
  while (!known()) {
    require(std::chrono::steady_clock::now() < end, function);
    const std::size_t before = reports.count();
    asio::post(io, [&] { stuck([&] { return reports.count() > before; }); });
    io.restart();
    io.run();
    std::printf("%s\n", reports.all().back().line.c_str());
  }
}

int privileges_dropped() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  become_nobody();
  stalls_until_known(
      reports, io, [](auto over) { wait_until(over); }, "wait_until");
  stalls_until_known(
      reports, io, [](auto over) { compute_until(over); }, "compute_until");
  // For a thread that was started after that the kernel shows less, and the report says so.
  std::thread([&] {
    const std::size_t before = reports.count();
    const auto hidden = [&](const told::stall& s) { return s.why == no_stack::not_permitted; };
    asio::post(io, [&] {
      const auto end = std::chrono::steady_clock::now() + long_enough;
      wait_until([&] {
        return reports.any_since(before, hidden) || std::chrono::steady_clock::now() > end;
      });
    });
    io.restart();
    io.run();
    require(reports.any_since(before, hidden), "the reason is given");
    for (const told::stall& s : reports.all()) {
      if (!hidden(s)) continue;
      std::printf("%s\n", s.line.c_str());
      require(s.cause == stall_cause::blocked, "it waits");
    }
  }).join();
  return 0;
}
const program with_privileges_dropped{"privileges_dropped", &privileges_dropped};

TEST(no_stack, does_not_happen_to_a_daemon_that_drops_its_privileges) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can change its user";
  const outcome o = with_privileges_dropped.run();
  EXPECT_TRUE(succeeded(o));
  std::printf("%s", o.out.c_str());
}

}  // namespace
