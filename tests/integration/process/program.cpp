// SPDX-License-Identifier: BSL-1.0

#include "program.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace pulse_test {
namespace {

using namespace std::chrono_literals;

constexpr auto time_limit = 120s;
constexpr const char* flag = "--program=";

const program*& programs() {
  static const program* first = nullptr;
  return first;
}

/// Both ends of a pipe. The child gets one of them.
class channel {
 public:
  channel() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0) std::perror("pipe2");
  }
  ~channel() {
    ::close(ends_[0]);
    if (ends_[1] >= 0) ::close(ends_[1]);
  }
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;

  [[nodiscard]] int reader() const { return ends_[0]; }
  [[nodiscard]] int writer() const { return ends_[1]; }
  void close_writer() { ::close(std::exchange(ends_[1], -1)); }

 private:
  std::array<int, 2> ends_{-1, -1};
};

/// Reads the available bytes. Returns false at the end of the file.
bool take(int descriptor, std::string& to) {
  std::array<char, 4096> text;
  const ssize_t n = ::read(descriptor, text.data(), text.size());
  if (n > 0) to.append(text.data(), static_cast<std::size_t>(n));
  return n > 0 || (n < 0 && errno == EINTR);
}

}  // namespace

program::program(const char* name, body what) noexcept
    : name_(name), main_(what), next_(std::exchange(programs(), this)) {}

outcome program::run(const std::function<void()>& before) const {
  channel out;
  channel err;
  outcome result;
  const std::string argument = flag + std::string(name_);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(out.writer(), STDOUT_FILENO);
    ::dup2(err.writer(), STDERR_FILENO);
    if (before) before();
    ::execl("/proc/self/exe", "process_tests", argument.c_str(), nullptr);
    std::perror("execl");
    ::_exit(126);
  }
  if (child < 0) return result;
  out.close_writer();
  err.close_writer();
  const auto end = std::chrono::steady_clock::now() + time_limit;
  std::array<pollfd, 2> sources{{{.fd = out.reader(), .events = POLLIN, .revents = 0},
                                 {.fd = err.reader(), .events = POLLIN, .revents = 0}}};
  while (sources[0].fd >= 0 || sources[1].fd >= 0) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left <= 0ms ||
        ::poll(sources.data(), sources.size(), static_cast<int>(left.count())) == 0) {
      result.late = true;
      ::kill(child, SIGKILL);
      break;
    }
    if (sources[0].revents != 0 && !take(sources[0].fd, result.out)) sources[0].fd = -1;
    if (sources[1].revents != 0 && !take(sources[1].fd, result.err)) sources[1].fd = -1;
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

int program::main(int argc, char** argv) {
  if (argc != 2 || std::strncmp(argv[1], flag, std::strlen(flag)) != 0) return -1;
  const char* const name = argv[1] + std::strlen(flag);
  for (const program* p = programs(); p != nullptr; p = p->next_) {
    if (std::strcmp(p->name_, name) == 0) return p->main_();
  }
  std::fprintf(stderr, "no program %s\n", name);
  return 126;
}

testing::AssertionResult succeeded(const outcome& o) {
  if (o.exit_code == 0) return testing::AssertionSuccess();
  const std::string end = o.late          ? "it took too long"
                          : o.signal != 0 ? std::string("ended by ") + ::strsignal(o.signal)
                                          : "exit code " + std::to_string(o.exit_code);
  return testing::AssertionFailure() << end << "\n--- out\n" << o.out << "--- err\n" << o.err;
}

void require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %.*s\n", static_cast<int>(what.size()), what.data());
  std::fflush(nullptr);
  ::_exit(1);
}

}  // namespace pulse_test

int main(int argc, char** argv) {
  if (const int code = pulse_test::program::main(argc, argv); code >= 0) return code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
