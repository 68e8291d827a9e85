// SPDX-License-Identifier: BSL-1.0

#include "machine.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include <signal.h>
#include <sys/types.h>

namespace asio_pulse::top {
namespace {

// Enough for long lists, and little against what a busy process sends anyway.
constexpr metrics_request wanted{.top_tasks = 100, .top_sites = 100};

class inspected_peer final : public peer {
 public:
  void connect(std::uint64_t pid, std::error_code& ec) override { inspector_.connect(pid, ec); }
  process_metrics fetch(std::error_code& ec) override { return inspector_.fetch(wanted, ec); }
  recording trace(std::chrono::milliseconds how_long, std::error_code& ec) override {
    return inspector_.trace(how_long, ec);
  }
  [[nodiscard]] std::string detail() const override { return inspector_.detail(); }

 private:
  inspector inspector_;
};

class real_machine final : public machine {
 public:
  std::vector<inspectable_process> processes(std::error_code& ec) override {
    return inspectable_processes(ec);
  }
  std::unique_ptr<peer> open() override { return std::make_unique<inspected_peer>(); }

  bool alive(std::uint64_t pid) override {
    if (pid == 0 || pid > static_cast<std::uint64_t>(std::numeric_limits<pid_t>::max())) {
      return false;
    }
    if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return false;
    // A zombie is there, and runs nothing. "PID (name) S ...": the name may hold anything.
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string text;
    std::getline(file, text, '\0');
    const auto end = text.rfind(')');
    if (end == text.npos || end + 2 >= text.size()) return true;
    return text[end + 2] != 'Z' && text[end + 2] != 'X';
  }
};

}  // namespace

std::unique_ptr<machine> this_machine() { return std::make_unique<real_machine>(); }

watcher::watcher(machine& m, std::uint64_t pid) : machine_(m), pid_(pid), peer_(m.open()) {}

reading watcher::read() {
  std::error_code ec;
  if (!connected_) {
    peer_->connect(pid_, ec);
    if (ec) return failed(ec);
    connected_ = true;
  }
  process_metrics metrics = peer_->fetch(ec);
  if (ec) return failed(ec);
  return {.metrics = std::move(metrics)};
}

reading watcher::failed(const std::error_code& ec) {
  reading result{.trouble = peer_->detail()};
  if (result.trouble.empty()) {
    result.trouble = fmt::format("process {} cannot be read: {}", pid_, ec.message());
  }
  connected_ = false;
  // A connection breaks some moments before its process is gone.
  constexpr int looks = 10;
  for (int i = 0; i != looks; ++i) {
    if (!machine_.alive(pid_)) {
      return {.trouble = fmt::format("process {} has ended", pid_), .ended = true};
    }
    if (ec == std::errc::permission_denied || ec == std::errc::timed_out) break;
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  return result;
}

}  // namespace asio_pulse::top
