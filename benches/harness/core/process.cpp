// SPDX-License-Identifier: BSL-1.0
#include "process.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

extern char** environ;

namespace pulse_bench {

namespace {

using clock_type = std::chrono::steady_clock;

volatile std::sig_atomic_t stop_asked = 0;

class pipe_ends {
 public:
  pipe_ends() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0) {
      throw std::system_error(errno, std::generic_category(), "cannot make a pipe");
    }
  }
  ~pipe_ends() {
    close_write();
    ::close(ends_[0]);
  }
  pipe_ends(const pipe_ends&) = delete;
  pipe_ends& operator=(const pipe_ends&) = delete;

  int read() const { return ends_[0]; }
  int write() const { return ends_[1]; }
  void close_write() {
    if (ends_[1] >= 0) ::close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  std::array<int, 2> ends_{};
};

pid_t spawn(const std::vector<std::string>& command, const pipe_ends& out, const pipe_ends& err) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.write(), 1);
  posix_spawn_file_actions_adddup2(&actions, err.write(), 2);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, words.front(), &actions, &attributes, words.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    throw std::runtime_error(fmt::format("cannot start {}: {}", command[0], std::strerror(error)));
  }
  return pid;
}

/// Reads what there is. False: the other side has closed.
bool take(int from, std::string& into) {
  std::array<char, 65536> part;
  const ssize_t n = ::read(from, part.data(), part.size());
  if (n < 0 && errno == EINTR) return true;
  if (n <= 0) return false;
  into.append(part.data(), static_cast<std::size_t>(n));
  return true;
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = 1; };
  sigemptyset(&action.sa_mask);  // and no SA_RESTART: poll() below has to come back
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

process_result run_process(const std::vector<std::string>& command, std::chrono::seconds limit) {
  pipe_ends out;
  pipe_ends err;
  const auto end = clock_type::now() + limit;
  const pid_t pid = spawn(command, out, err);
  out.close_write();
  err.close_write();
  process_result result;
  std::array<pollfd, 2> open{{{out.read(), POLLIN, 0}, {err.read(), POLLIN, 0}}};
  bool late = false;
  while ((open[0].fd >= 0 || open[1].fd >= 0) && !late && stop_asked == 0) {
    // In slices: a signal that comes just before poll() begins is seen a little later.
    if (::poll(open.data(), open.size(), 100) > 0) {
      if (open[0].revents != 0 && !take(open[0].fd, result.output)) open[0].fd = -1;
      if (open[1].revents != 0 && !take(open[1].fd, result.errors)) open[1].fd = -1;
    }
    if (result.errors.size() > 65536) result.errors.erase(0, result.errors.size() - 4096);
    late = clock_type::now() > end;
  }
  if (late || stop_asked != 0) ::kill(-pid, SIGKILL);
  result.status = wait_for(pid);
  if (stop_asked != 0) throw interrupted();
  if (late) {
    throw std::runtime_error(fmt::format("{} had not ended after {} s", command[0], limit.count()));
  }
  return result;
}

std::string last_line(const std::string& text) {
  const std::size_t last = text.find_last_not_of("\r\n ");
  if (last == std::string::npos) return {};
  const std::size_t before = text.find_last_of('\n', last);
  const std::size_t first = before == std::string::npos ? 0 : before + 1;
  return text.substr(first, last - first + 1);
}

}  // namespace pulse_bench
