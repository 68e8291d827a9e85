// SPDX-License-Identifier: BSL-1.0
//
// Reports never wait for stderr, never end the program because of it, and go nowhere else. A
// program (stderr_program) is started with each kind of stderr.

#include <support/sanitizers.hpp>
//
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;

/// A descriptor that is closed in the end.
class fd {
 public:
  explicit fd(int n = -1) noexcept : fd_(n) {}
  fd(fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  fd& operator=(fd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~fd() { reset(); }
  void reset(int n = -1) noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = n;
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

struct ends {
  fd read, write;
};
ends make_pipe() {
  std::array<int, 2> p{-1, -1};
  EXPECT_EQ(::pipe2(p.data(), O_CLOEXEC), 0);
  return {fd(p[0]), fd(p[1])};
}
ends make_socket_pair() {
  std::array<int, 2> p{-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p.data()), 0);
  return {fd(p[0]), fd(p[1])};
}

/// Writes until no more byte fits. Afterwards the file is blocking again, because other processes
/// share the setting.
std::size_t fill(int to) {
  const std::string page(4096, '.');
  if (::fcntl(to, F_SETFL, O_NONBLOCK) != 0) return 0;
  std::size_t size = 0;
  for (std::size_t piece = page.size(); piece != 0;) {
    const ssize_t n = ::write(to, page.data(), piece);
    if (n > 0) {
      size += static_cast<std::size_t>(n);
    } else {
      piece /= 2;
    }
  }
  return ::fcntl(to, F_SETFL, 0) == 0 ? size : 0;
}

std::string read_all(int from) {
  std::string text;
  std::array<char, 65536> buffer{};
  for (ssize_t n = 0; (n = ::read(from, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return text;
}

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

int reports_in(std::string_view text) {
  int n = 0;
  for (auto at = text.find("asio-pulse: "); at != text.npos;
       at = text.find("asio-pulse: ", at + 1)) {
    ++n;
  }
  return n;
}
std::uint64_t dropped_in(const std::string& text) {
  static const std::regex remark(" dropped=([0-9]+)\n");
  std::uint64_t sum = 0;
  for (std::sregex_iterator at(text.begin(), text.end(), remark), end; at != end; ++at) {
    sum += std::stoull((*at)[1]);
  }
  return sum;
}

/// stderr_program, started with `error` as its stderr (negative: closed).
class program {
 public:
  program(int error, const std::string& scenario, const std::string& file = {}) {
    ends out = make_pipe();
    ends in = make_pipe();
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in.read.get(), STDIN_FILENO);
      ::dup2(out.write.get(), STDOUT_FILENO);
      if (error < 0) {
        ::close(STDERR_FILENO);
      } else {
        ::dup2(error, STDERR_FILENO);
      }
      start(scenario, file);
    }
    out_ = std::move(out.read);
    in_ = std::move(in.write);
  }
  program(const program&) = delete;
  program& operator=(const program&) = delete;
  ~program() { (void)end(0ms); }

  [[noreturn]] static void start(const std::string& scenario, const std::string& file) {
    ::signal(SIGPIPE, SIG_DFL);
    ::execl(ASIO_PULSE_STDERR_PROGRAM, ASIO_PULSE_STDERR_PROGRAM, scenario.c_str(), file.c_str(),
            nullptr);
    std::_Exit(127);
  }

  /// Until a line has been printed.
  std::string line() {
    std::string text;
    char byte = 0;
    while (readable() && ::read(out_.get(), &byte, 1) == 1 && byte != '\n') text += byte;
    return text;
  }
  void tell() { EXPECT_EQ(::write(in_.get(), "\n", 1), 1); }
  /// The exit status, or a negative signal number; empty if the program did not end and was killed.
  std::optional<int> end(std::chrono::milliseconds patience = 60s) {
    if (child_ <= 0) return status_;
    const auto until = std::chrono::steady_clock::now() + patience;
    int status = 0;
    while (::waitpid(child_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > until) {
        ::kill(child_, SIGKILL);
        ::waitpid(child_, &status, 0);
        child_ = 0;
        return status_;
      }
      ::usleep(1000);
    }
    child_ = 0;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return status_;
  }

 private:
  [[nodiscard]] bool readable() const {
    pollfd p{.fd = out_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&p, 1, 60'000) == 1;
  }
  pid_t child_ = 0;
  fd out_, in_;
  std::optional<int> status_;
};

class standard_error : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/asio_pulse_stderr.XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::string file(const char* name) { return folder / name; }

  std::filesystem::path folder;
};

// The end of a program waits for the thread that writes, but for 100 ms only: the last lines are lost
// if that thread does not get the CPU for as long.
using standard_error_timing = standard_error;

TEST_F(standard_error_timing, pipe_gets_every_line_before_the_program_ends) {
  ends error = make_pipe();
  program p(error.write.get(), "report");
  error.write.reset();
  const std::string text = read_all(error.read.get());
  EXPECT_EQ(p.end(), 0);
  EXPECT_EQ(reports_in(text), 5) << text;
  EXPECT_TRUE(text.ends_with('\n'));
  EXPECT_EQ(dropped_in(text), 0U);
}

TEST_F(standard_error, pipe_that_nobody_reads_ends_nobody) {
  ends error = make_pipe();
  error.read.reset();
  program p(error.write.get(), "report_in_vain");
  error.write.reset();
  EXPECT_EQ(p.line(), "reports=5 dropped=5");
  EXPECT_EQ(p.line(), "ended");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error, pipe_that_nobody_reads_beside_stalls) {
  ends error = make_pipe();
  error.read.reset();
  program p(error.write.get(), "report_stalls");
  error.write.reset();
  EXPECT_TRUE(p.line().starts_with("reports=")) << "the watchdog's thread reports";
  EXPECT_EQ(p.line(), "ended");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error, socket_whose_peer_is_gone_ends_nobody) {
  ends error = make_socket_pair();
  error.read.reset();
  program p(error.write.get(), "report_in_vain");
  error.write.reset();
  EXPECT_EQ(p.line(), "reports=5 dropped=5");
  EXPECT_EQ(p.end(), 0);
}

void takes_nothing(ends error) {
  ASSERT_GT(fill(error.write.get()), 0U);
  program p(error.write.get(), "report_much");
  const std::string counts = p.line();
  // One report is being written and the queue is full; or no report has been written yet.
  EXPECT_TRUE(counts == "reports=100 dropped=67" || counts == "reports=100 dropped=68") << counts;
  EXPECT_EQ(p.line(), "ended") << "neither the worker nor the destructor waits";
  EXPECT_EQ(p.end(), 0);
}
TEST_F(standard_error, pipe_that_is_full_holds_up_nobody) { takes_nothing(make_pipe()); }
TEST_F(standard_error, socket_that_is_full_holds_up_nobody) { takes_nothing(make_socket_pair()); }

TEST_F(standard_error, pipe_that_is_full_does_not_hold_up_the_watchdog) {
  ends error = make_pipe();
  ASSERT_GT(fill(error.write.get()), 0U);
  program p(error.write.get(), "report_many_stalls");
  EXPECT_TRUE(p.line().starts_with("reports="));
  EXPECT_EQ(p.line(), "ended");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error_timing, what_was_dropped_is_said_when_there_is_room_again) {
  for (const auto make : {make_pipe, make_socket_pair}) {
    ends error = make();
    const std::size_t filled = fill(error.write.get());
    program p(error.write.get(), "report_after_a_while");
    error.write.reset();
    const std::string counts = p.line();
    std::uint64_t dropped = 0;
    ASSERT_EQ(std::sscanf(counts.c_str(), "reports=100 dropped=%lu", &dropped), 1) << counts;
    std::string text;
    while (reports_in(text) != 100 - static_cast<int>(dropped) || !text.ends_with('\n')) {
      std::array<char, 4096> buffer{};
      const ssize_t n = ::read(error.read.get(), buffer.data(), buffer.size());
      ASSERT_GT(n, 0);
      text.append(buffer.data(), static_cast<std::size_t>(n));
    }
    EXPECT_EQ(text.find_first_not_of('.'), filled);
    EXPECT_EQ(dropped_in(text), dropped) << text.substr(filled);
    p.tell();
    text = read_all(error.read.get());
    EXPECT_EQ(p.end(), 0);
    EXPECT_EQ(reports_in(text), 1);
    EXPECT_EQ(dropped_in(text), 0U) << "the number was reported before";
  }
}

TEST_F(standard_error_timing, non_blocking_pipe_loses_nothing_that_it_can_take) {
  ends error = make_pipe();
  ASSERT_EQ(::fcntl(error.write.get(), F_SETFL, O_NONBLOCK), 0);
  program p(error.write.get(), "report");
  error.write.reset();
  EXPECT_EQ(reports_in(read_all(error.read.get())), 5);
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error, full_disk_is_dropped_and_counted) {
  const fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (full.get() < 0) GTEST_SKIP() << "there is no /dev/full";
  program p(full.get(), "report_in_vain");
  EXPECT_EQ(p.line(), "reports=5 dropped=5");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error, closed_is_dropped_and_counted) {
  program p(-1, "report_in_vain");
  EXPECT_EQ(p.line(), "reports=5 dropped=5");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error, read_only_is_dropped_and_counted) {
  const fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  program p(null.get(), "report_in_vain");
  EXPECT_EQ(p.line(), "reports=5 dropped=5");
  EXPECT_EQ(p.end(), 0);
}

// ---- terminals

struct terminal {
  fd master{::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)};
  fd slave;
  bool open() {
    if (master.get() < 0 || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0) {
      return false;
    }
    slave.reset(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    return slave.get() >= 0;
  }
};

TEST_F(standard_error, terminal_that_was_stopped_holds_up_nobody) {
  terminal t;
  if (!t.open()) GTEST_SKIP() << "there are no pseudo-terminals";
  ASSERT_EQ(::tcflow(t.slave.get(), TCOOFF), 0);
  program p(t.slave.get(), "report_much");
  EXPECT_TRUE(p.line().starts_with("reports=100 dropped=6"));
  EXPECT_EQ(p.line(), "ended");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error, background_job_is_not_stopped_by_its_reports) {
  terminal t;
  if (!t.open()) GTEST_SKIP() << "there are no pseudo-terminals";
  const pid_t shell = ::fork();
  if (shell == 0) {  // a session with the terminal, and the program in its background
    ::setsid();
    if (::ioctl(t.slave.get(), TIOCSCTTY, 0) != 0) std::_Exit(90);
    termios settings{};
    ::tcgetattr(t.slave.get(), &settings);
    settings.c_lflag |= TOSTOP;
    ::tcsetattr(t.slave.get(), TCSANOW, &settings);
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, STDIN_FILENO);
      ::dup2(null, STDOUT_FILENO);
      ::dup2(t.slave.get(), STDERR_FILENO);
      program::start("report", {});
    }
    ::setpgid(job, job);
    int status = 0;
    ::waitpid(job, &status, WUNTRACED);
    if (WIFSTOPPED(status)) ::kill(job, SIGKILL);
    std::_Exit(WIFEXITED(status) ? WEXITSTATUS(status) : 91);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(shell, &status, 0), shell);
  EXPECT_EQ(WEXITSTATUS(status), 0) << "91: it was stopped";
}

// ---- descriptor 2 is something else

TEST_F(standard_error, socket_with_its_number_gets_nothing) {
  if (pulse_test::thread_sanitizer)
    GTEST_SKIP() << "ThreadSanitizer reports the change of descriptor 2 as a race";
  ends error = make_pipe();
  program p(error.write.get(), "reuse_for_socket");
  error.write.reset();
  EXPECT_EQ(p.line(), "reports=6 dropped=5");
  EXPECT_EQ(p.line(), "received=0");
  EXPECT_EQ(p.end(), 0);
  EXPECT_EQ(reports_in(read_all(error.read.get())), 1) << "before it was closed";
}

TEST_F(standard_error, file_with_its_number_gets_nothing) {
  if (pulse_test::thread_sanitizer)
    GTEST_SKIP() << "ThreadSanitizer reports the change of descriptor 2 as a race";
  for (const char* const scenario : {"reuse_for_file", "reuse_for_database"}) {
    ends error = make_pipe();
    program p(error.write.get(), scenario, file(scenario));
    error.write.reset();
    EXPECT_EQ(p.line(), "reports=6 dropped=5") << scenario;
    EXPECT_EQ(p.end(), 0);
    EXPECT_EQ(contents(file(scenario)), "") << scenario;
  }
}

TEST_F(standard_error, file_opened_by_a_program_without_stderr_gets_nothing) {
  program p(-1, "opened_before_the_context", file("data"));
  EXPECT_EQ(p.line(), "reports=5 dropped=5");
  EXPECT_EQ(p.end(), 0);
  EXPECT_EQ(contents(file("data")), "");
}

TEST_F(standard_error_timing, log_that_it_is_redirected_to_gets_the_reports) {
  for (const char* const scenario : {"reopen_log", "redirect_first", "redirect_both"}) {
    ends error = make_pipe();
    program p(error.write.get(), scenario, file(scenario));
    error.write.reset();
    EXPECT_EQ(p.line(), "ended");
    EXPECT_EQ(p.end(), 0);
    EXPECT_EQ(reports_in(contents(file(scenario))), 3) << scenario;
    EXPECT_EQ(read_all(error.read.get()), "");
  }
}

// ---- forks, and the end

TEST_F(standard_error_timing, forked_child_writes_what_is_its_own) {
  if (pulse_test::thread_sanitizer) GTEST_SKIP() << "it does not follow threads into a fork";
  ends error = make_pipe();
  ASSERT_GT(fill(error.write.get()), 0U);
  program p(error.write.get(), "fork_while_stuck");
  EXPECT_EQ(p.line(), "child=0 lines=3");
  EXPECT_EQ(p.end(), 0);
}

TEST_F(standard_error_timing, exit_from_a_handler_loses_no_line) {
  ends error = make_pipe();
  program p(error.write.get(), "exit_from_a_handler");
  error.write.reset();
  EXPECT_EQ(reports_in(read_all(error.read.get())), 1);
  EXPECT_EQ(p.end(), 3);
}

}  // namespace
