// SPDX-License-Identifier: BSL-1.0
//
// A context that no thread has run yet has started no thread. Until it runs, a program can do what
// the kernel allows to a process with one thread only.

#include "told.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <iterator>

namespace {

using namespace pulse_test;
namespace asio = boost::asio;

constexpr int not_possible_here = 77;

std::ptrdiff_t threads() {
  using entries = std::filesystem::directory_iterator;
  return std::distance(entries("/proc/self/task"), entries());
}

/// Whether the kernel and the sandbox allow it at all.
bool may_enter_user_namespace() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
  int status = 1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status == 0;
}

/// Runs a handler and returns the number of threads that there are then.
std::ptrdiff_t threads_in_a_handler(asio_pulse::io_context& io) {
  std::ptrdiff_t seen = 0;
  asio::post(io, [&seen] { seen = threads(); });
  io.run();
  return seen;
}

int made_and_not_run() {
  const std::ptrdiff_t own = threads();
  asio_pulse::io_context io;
  asio::steady_timer timer{io, 1h};
  timer.async_wait([](const boost::system::error_code&) {});
  require(threads() == own, "a context that does not run has no thread");
  timer.cancel();
  require(threads_in_a_handler(io) == own + 2, "one that runs has the watchdog and pulse-inspect");
  return 0;
}
const program that_makes_a_context{"made_and_not_run", &made_and_not_run};

int enters_a_namespace() {
  if (threads() != 1 || !may_enter_user_namespace()) return not_possible_here;
  asio_pulse::io_context io;
  require(::unshare(CLONE_NEWUSER) == 0, "the program enters a user namespace");
  require(threads_in_a_handler(io) == 3, "the context then runs as ever");
  return 0;
}
const program that_enters_a_namespace{"enters_a_namespace", &enters_a_namespace};

/// Forks when the parent's contexts are gone, and runs one of its own in the child.
int forks_in_between() {
  const std::ptrdiff_t own = threads();
  {
    asio_pulse::io_context first;
    require(threads_in_a_handler(first) == own + 2, "the parent has the threads");
  }
  const pid_t child = ::fork();
  if (child == 0) {
    const std::ptrdiff_t own_there = threads();
    asio_pulse::io_context second;
    require(threads() == own_there, "a context in the child has no thread before it runs");
    require(threads_in_a_handler(second) == own_there + 2, "the child has the threads as well");
    ::_exit(0);
  }
  int status = 1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child has ended well");
  return 0;
}
const program that_forks{"forks_in_between", &forks_in_between};

TEST(before_run, no_thread_is_started) {
  if (thread_sanitizer)
    GTEST_SKIP() << "ThreadSanitizer starts a thread of its own with the first one";
  EXPECT_TRUE(succeeded(that_makes_a_context.run()));
}

TEST(before_run, the_program_can_enter_a_user_namespace) {
  const outcome o = that_enters_a_namespace.run();
  if (o.exit_code == not_possible_here) {
    GTEST_SKIP() << "the process may not make user namespaces, or a sanitizer has threads here";
  }
  EXPECT_TRUE(succeeded(o));
}

TEST(before_run, a_child_starts_its_own_threads) {
  if (thread_sanitizer) GTEST_SKIP() << "ThreadSanitizer does not follow threads into a fork";
  EXPECT_TRUE(succeeded(that_forks.run()));
}

}  // namespace
