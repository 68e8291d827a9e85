// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/inspect.hpp>
#include <asio_pulse/io_context.hpp>

#include <boost/asio/executor_work_guard.hpp>

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

/// \file
/// Processes that inspect each other, as other users than the one that runs the tests.

namespace pulse_test {

/// Runs the context once. Inspectors see a context only when it has run.
inline void let_run(asio_pulse::io_context& context) {
  context.poll();
  context.restart();
}

/// A connection to a process's inspection socket, for requests that an inspector would never send.
class raw_client {
 public:
  explicit raw_client(std::uint64_t pid)
      : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "asio_pulse/" + std::to_string(pid);
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    connected_ =
        ::connect(socket_, reinterpret_cast<const sockaddr*>(&address),
                  static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())) == 0;
  }
  raw_client(raw_client&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)), connected_(other.connected_) {}
  ~raw_client() {
    if (socket_ >= 0) ::close(socket_);
  }
  raw_client(const raw_client&) = delete;
  raw_client& operator=(const raw_client&) = delete;

  [[nodiscard]] bool connected() const { return connected_; }
  void say(std::string_view text) const {
    (void)!::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  /// Everything that is received until the other side closes.
  [[nodiscard]] std::string hear() const {
    std::string all;
    char bytes[4096];
    for (ssize_t n = 0; (n = ::recv(socket_, bytes, sizeof bytes, 0)) > 0;) {
      all.append(bytes, static_cast<std::size_t>(n));
    }
    return all;
  }
  /// The first line of the answer to a request for metrics; empty: there is none.
  [[nodiscard]] std::string first_line_of_metrics() const {
    say("asio-pulse/3 metrics 1 1 1\n");
    return hear_line();
  }
  /// The next line with its end; empty: there is none.
  [[nodiscard]] std::string hear_line() const {
    std::string line;
    for (char c = 0; c != '\n' && ::recv(socket_, &c, 1, 0) == 1;) line += c;
    return line;
  }

 private:
  int socket_;
  bool connected_ = false;
};

/// A forked process that runs a function, sends back the text that it returns, and then waits to be
/// killed.
class forked {
 public:
  explicit forked(const std::function<std::string(int parent)>& job) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(pair[0]);
      const std::string said = job(pair[1]) + '\0';
      (void)!::send(pair[1], said.data(), said.size(), MSG_NOSIGNAL);
      for (;;) ::pause();
    }
    ::close(pair[1]);
    socket_ = pair[0];
  }
  ~forked() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      int status = 0;
      ::waitpid(child_, &status, 0);
    }
    if (socket_ >= 0) ::close(socket_);
  }
  forked(const forked&) = delete;
  forked& operator=(const forked&) = delete;

  [[nodiscard]] std::uint64_t pid() const { return static_cast<std::uint64_t>(child_); }
  [[nodiscard]] int socket() const { return socket_; }
  /// Waits for it. Empty also where the process has died.
  [[nodiscard]] std::string said() const {
    std::string text;
    for (char c = 0; ::recv(socket_, &c, 1, 0) == 1 && c != '\0';) text += c;
    return text;
  }

 private:
  pid_t child_ = -1;
  int socket_ = -1;
};

/// For forked(): a process with a context that answers. `before` and `after` its construction;
/// says "ready" when it answers.
inline std::function<std::string(int)> serving(std::function<void(int)> before,
                                               std::function<void(int)> after) {
  return [before = std::move(before), after = std::move(after)](int parent) -> std::string {
    if (before) before(parent);
    asio_pulse::options o;
    o.name = "served";
    o.on_report = [](const asio_pulse::report&) {};
    // The watchdog takes a descriptor that is free for a moment, and keeps it.
    o.watchdog = false;
    asio_pulse::io_context io{o};
    io.notify_fork(boost::asio::execution_context::fork_child);
    let_run(io);
    if (after) after(parent);
    (void)!::send(parent, "ready", 6, MSG_NOSIGNAL);
    const auto work = boost::asio::make_work_guard(io);
    io.run();
    return {};
  };
}

inline void become(uid_t user) {
  if (::setgid(user) != 0 || ::setuid(user) != 0) std::abort();
}

/// Inspects the process as this user, and returns "ok" or the error.
inline std::string look_as(uid_t user, std::uint64_t pid) {
  return forked([user, pid](int) -> std::string {
           if (user != ::geteuid()) become(user);
           asio_pulse::inspector in;
           std::error_code ec;
           in.connect(pid, ec);
           if (!ec) (void)in.fetch({}, ec, std::chrono::seconds{20});
           return ec ? in.detail() : "ok";
         })
      .said();
}

/// The CPU time that a thread of another process has used; empty if there is no such thread.
inline std::optional<std::chrono::nanoseconds> cpu_of_thread(std::uint64_t pid,
                                                             std::string_view name) {
  std::error_code gone;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks, gone)) {
    std::string found;
    std::getline(std::ifstream(task.path() / "comm"), found);
    long long ns = 0;
    if (found == name && std::ifstream(task.path() / "schedstat") >> ns) {
      return std::chrono::nanoseconds{ns};
    }
  }
  return std::nullopt;
}

}  // namespace pulse_test
