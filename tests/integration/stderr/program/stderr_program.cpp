// SPDX-License-Identifier: BSL-1.0
//
// A program with many reports, for a test that provides its stderr and reads its stdout.
//
//   stderr_program SCENARIO [FILE]

#include <asio_pulse/asio_pulse.hpp>
//
#include <boost/asio/post.hpp>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>

namespace {

using namespace std::chrono_literals;

asio_pulse::options everything() {
  asio_pulse::options o;
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  return o;
}

// Only reports that this program provokes.
asio_pulse::options misuse_only() {
  asio_pulse::options o = everything();
  o.stall_threshold = o.yield_threshold = o.isolate_threshold = o.max_critical = 0ns;
  return o;
}

// Each of them is reported: a critical section is left in another handler than the one that entered
// it.
void misuse(asio_pulse::io_context& io, int times) {
  std::optional<asio_pulse::critical_section> section;
  for (int n = 0; n != times; ++n) {
    boost::asio::post(io, [&] { section.emplace(); });
    boost::asio::post(io, [&] { section.reset(); });
  }
  io.restart();
  io.run();
}

// Polls that the watchdog finds stuck, and whose ends it reports.
void stall(asio_pulse::io_context& io, std::uint64_t times) {
  io.restart();
  while (io.stats().stall_reports < times) {
    boost::asio::post(io, [] { std::this_thread::sleep_for(10ms); });
    io.restart();
    io.run();
  }
}

bool until_dropped(const asio_pulse::io_context& io, std::uint64_t least) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (io.stats().reports_dropped < least) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

// stderr is a pipe that nobody reads yet.
bool until_written() {
  const auto end = std::chrono::steady_clock::now() + 30s;
  int bytes = 0;
  while (::ioctl(STDERR_FILENO, FIONREAD, &bytes) == 0 && bytes == 0) {
    if (std::chrono::steady_clock::now() > end) break;
    std::this_thread::sleep_for(1ms);
  }
  return bytes > 0;
}

void print(const asio_pulse::io_context& io) {
  const asio_pulse::statistics s = io.stats();
  std::printf("reports=%llu dropped=%llu\n", static_cast<unsigned long long>(s.reports),
              static_cast<unsigned long long>(s.reports_dropped));
  std::fflush(stdout);
}

void wait_for_a_line() {
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {
  }
}

int report(int times) {
  asio_pulse::io_context io{misuse_only()};
  misuse(io, times);
  print(io);
  return 0;
}

// All writes are refused.
int report_in_vain(int times) {
  asio_pulse::io_context io{misuse_only()};
  misuse(io, times);
  if (!until_dropped(io, static_cast<std::uint64_t>(times))) return 1;
  print(io);
  return 0;
}

int report_stalls(std::uint64_t times) {
  asio_pulse::io_context io{everything()};
  stall(io, times);
  print(io);
  return 0;
}

int report_after_a_while(int times) {
  asio_pulse::io_context io{misuse_only()};
  misuse(io, times);
  print(io);
  wait_for_a_line();
  misuse(io, 1);
  return 0;
}

// Descriptor 2 is closed and becomes `reopened()`'s.
template <class Reopen>
int reuse(int times, Reopen reopen) {
  asio_pulse::io_context io{misuse_only()};
  misuse(io, 1);
  if (!until_written()) return 3;  // the test reads the line of this one
  ::close(STDERR_FILENO);
  if (reopen() != STDERR_FILENO) return 2;
  misuse(io, times);
  if (!until_dropped(io, static_cast<std::uint64_t>(times))) return 1;
  print(io);
  return 0;
}

int reuse_for_socket() {
  int pair[2] = {-1, -1};
  const int result =
      reuse(5, [&pair] { return ::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 ? pair[0] : -1; });
  char byte = 0;
  const ssize_t n = ::recv(pair[1], &byte, 1, MSG_DONTWAIT);
  std::printf("received=%d\n", n > 0 ? 1 : 0);
  return result;
}

int open_file(const char* path, int flags) { return ::open(path, flags | O_CREAT, 0600); }

int redirect(const char* path, int flags, bool before_the_context) {
  const auto change = [&] {
    const int file = open_file(path, flags);
    ::dup2(file, STDERR_FILENO);
    ::close(file);
  };
  if (before_the_context) change();
  asio_pulse::io_context io{misuse_only()};
  if (!before_the_context) change();
  misuse(io, 3);
  return 0;
}

int redirect_both(const char* path) {
  const int out = ::dup(STDOUT_FILENO);
  {
    asio_pulse::io_context io{misuse_only()};
    const int file = open_file(path, O_RDWR);
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    misuse(io, 3);
  }
  ::dup2(out, STDOUT_FILENO);
  return 0;
}

// A child of a process whose writer is stuck reports on a stderr of its own.
int fork_while_stuck() {
  std::optional<asio_pulse::io_context> io(misuse_only());
  misuse(*io, 40);
  std::this_thread::sleep_for(20ms);
  int ends[2];
  if (::pipe(ends) != 0) return 2;
  io->notify_fork(boost::asio::execution_context::fork_prepare);
  const pid_t child = ::fork();
  if (child == 0) {
    io->notify_fork(boost::asio::execution_context::fork_child);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    {
      asio_pulse::io_context own{misuse_only()};
      misuse(own, 3);
    }
    std::_Exit(0);
  }
  io->notify_fork(boost::asio::execution_context::fork_parent);
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  int lines = 0;
  for (const char c : text) lines += c == '\n' ? 1 : 0;
  std::printf("child=%d lines=%d\n", status, lines);
  return 0;
}

int exit_from_a_handler() {
  static asio_pulse::io_context io{misuse_only()};
  static std::optional<asio_pulse::critical_section> section;
  boost::asio::post(io, [] { section.emplace(); });
  boost::asio::post(io, [] {
    section.reset();
    std::exit(3);
  });
  io.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 64;
  const std::string what = argv[1];
  const char* const file = argc > 2 ? argv[2] : "";
  int status = 64;
  if (what == "report") status = report(5);
  if (what == "report_much") status = report(100);
  if (what == "report_in_vain") status = report_in_vain(5);
  if (what == "report_stalls") status = report_stalls(4);
  if (what == "report_many_stalls") status = report_stalls(40);
  if (what == "report_after_a_while") status = report_after_a_while(100);
  if (what == "reuse_for_socket") status = reuse_for_socket();
  if (what == "reuse_for_file") {
    status = reuse(5, [file] { return open_file(file, O_WRONLY | O_TRUNC); });
  }
  if (what == "reuse_for_database") {
    status = reuse(5, [file] { return open_file(file, O_RDWR | O_APPEND); });
  }
  if (what == "opened_before_the_context") {
    // The program was started without a stderr.
    if (open_file(file, O_WRONLY | O_TRUNC) != STDERR_FILENO) return 2;
    status = report_in_vain(5);
  }
  if (what == "reopen_log") status = redirect(file, O_WRONLY | O_APPEND, false);
  if (what == "redirect_first") status = redirect(file, O_WRONLY | O_TRUNC, true);
  if (what == "redirect_both") status = redirect_both(file);
  if (what == "fork_while_stuck") status = fork_while_stuck();
  if (what == "exit_from_a_handler") status = exit_from_a_handler();
  std::printf("ended\n");
  return status;
}
