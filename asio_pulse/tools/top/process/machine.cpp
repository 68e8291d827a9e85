// SPDX-License-Identifier: BSL-1.0

#include "machine.hpp"

#include <fmt/core.h>
#include <signal.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <string>
#include <thread>

namespace asio_pulse::top {
namespace {

// Enough for long lists, and little compared with the rest of an answer.
constexpr metrics_request wanted{.top_tasks = 100, .top_sites = 100, .top_groups = 100};

class inspected_peer final : public peer {
 public:
  void connect(std::uint64_t pid, std::error_code& ec) override { inspector_.connect(pid, ec); }
  process_metrics fetch(std::error_code& ec) override { return inspector_.fetch(wanted, ec); }
  recording trace(std::chrono::milliseconds how_long, std::uint64_t context,
                  std::error_code& ec) override {
    return inspector_.trace(how_long, ec, context);
  }
  std::string change(std::uint64_t context, const context_change& what,
                     std::error_code& ec) override {
    return inspector_.change(context, what, ec);
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
    // A zombie still exists, but runs nothing.
    const std::vector<std::string> fields = stat_of(pid);
    return fields.empty() || (fields[0] != "Z" && fields[0] != "X");
  }

  std::optional<std::chrono::nanoseconds> age(std::uint64_t pid) override {
    // proc(5): the 22nd field; the state is the third.
    constexpr std::size_t start_time = 22 - 3;
    const std::vector<std::string> fields = stat_of(pid);
    const long per_second = ::sysconf(_SC_CLK_TCK);
    timespec now{};
    double ticks = 0;
    if (fields.size() <= start_time || per_second <= 0 ||
        ::clock_gettime(CLOCK_BOOTTIME, &now) != 0 ||
        !(std::istringstream(fields[start_time]) >> ticks)) {
      return std::nullopt;
    }
    const double seconds = static_cast<double>(now.tv_sec) +
                           static_cast<double>(now.tv_nsec) / 1e9 -
                           ticks / static_cast<double>(per_second);
    return std::chrono::nanoseconds{std::llround(std::max(seconds, 0.0) * 1e9)};
  }

 private:
  // The fields of /proc/PID/stat from the state on; empty if it cannot be read. It reads "PID
  // (name) S ...", where the name may contain anything, but the rest has no parentheses.
  static std::vector<std::string> stat_of(std::uint64_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string text;
    std::getline(file, text, '\0');
    const auto end = text.rfind(')');
    if (end == text.npos) return {};
    std::istringstream rest(text.substr(end + 1));
    return {std::istream_iterator<std::string>(rest), {}};
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
    connected_ = seen_ = true;
  }
  process_metrics metrics = peer_->fetch(ec);
  if (ec) return failed(ec);
  return {.metrics = std::move(metrics), .age = machine_.age(pid_)};
}

reading watcher::read_first() {
  reading first = read();
  if (!first.metrics) return first;
  const auto& contexts = first.metrics->contexts;
  const bool whole = std::all_of(contexts.begin(), contexts.end(),
                                 [](const context_metrics& c) { return c.collecting; });
  return whole ? first : read();
}

reading watcher::failed(const std::error_code& ec) {
  reading result{.trouble = peer_->detail()};
  if (result.trouble.empty()) {
    result.trouble = fmt::format("process {} cannot be read: {}", pid_, ec.message());
  }
  connected_ = false;
  // A connection breaks shortly before its process is gone.
  constexpr int looks = 10;
  for (int i = 0; i != looks; ++i) {
    if (!machine_.alive(pid_)) {
      return {.trouble = seen_ ? fmt::format("process {} has ended", pid_)
                               : fmt::format("there is no process {}", pid_),
              .ended = true};
    }
    if (ec == std::errc::permission_denied || ec == std::errc::timed_out) break;
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  return result;
}

}  // namespace asio_pulse::top
