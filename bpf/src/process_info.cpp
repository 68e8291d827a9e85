// SPDX-License-Identifier: BSL-1.0
#include "process_info.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <memory>

namespace asio_pulse::scx {
namespace {

std::optional<std::string> read_all(int fd) {
  if (fd < 0) return std::nullopt;
  const unique_fd file(fd);
  constexpr std::size_t most = std::size_t{1} << 16;
  std::string text;
  char buffer[4096];
  while (text.size() < most) {
    const ssize_t n = ::read(file.get(), buffer, sizeof buffer);
    if (n < 0) return std::nullopt;
    if (n == 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

template <typename Number>
std::optional<Number> parse_number(std::string_view text) noexcept {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct folder_closer {
  void operator()(DIR* folder) const noexcept { ::closedir(folder); }
};

std::string thread_file(pid_t tid, const char* name) {
  return "task/" + std::to_string(tid) + "/" + name;
}

}  // namespace

std::optional<std::string> read_file(const std::string& path) {
  return read_all(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

std::optional<std::string> read_file_at(int folder, const std::string& path) {
  return read_all(::openat(folder, path.c_str(), O_RDONLY | O_CLOEXEC));
}

std::optional<std::uint64_t> parse_start_ticks(std::string_view stat) noexcept {
  const std::size_t bracket = stat.rfind(')');
  if (bracket == std::string_view::npos) return std::nullopt;
  stat.remove_prefix(bracket + 1);
  // The state, field 3, is the first word after the parenthesis.
  for (int field = 3;; ++field) {
    const std::size_t start = stat.find_first_not_of(" \n");
    if (start == std::string_view::npos) return std::nullopt;
    stat.remove_prefix(start);
    const std::size_t end = stat.find_first_of(" \n");
    if (field == 22) return parse_number<std::uint64_t>(stat.substr(0, end));
    if (end == std::string_view::npos) return std::nullopt;
    stat.remove_prefix(end);
  }
}

std::vector<pid_t> parse_namespace_pids(std::string_view status) {
  // Only at the start of a line. Line ends in the name, which is in the first line, are escaped.
  constexpr std::string_view key = "\nNSpid:";
  const std::size_t at = status.find(key);
  if (at == std::string_view::npos) return {};
  std::string_view line = status.substr(at + key.size());
  line = line.substr(0, line.find('\n'));
  std::vector<pid_t> pids;
  for (;;) {
    const std::size_t start = line.find_first_not_of("\t ");
    if (start == std::string_view::npos) return pids;
    line.remove_prefix(start);
    const std::size_t end = line.find_first_of("\t ");
    const auto pid = parse_number<pid_t>(line.substr(0, end));
    if (!pid) return {};
    pids.push_back(*pid);
    if (end == std::string_view::npos) return pids;
    line.remove_prefix(end);
  }
}

process_info::process_info(pid_t pid) {
  if (pid <= 0) return;
  const std::string path = "/proc/" + std::to_string(pid);
  folder_ = unique_fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

std::optional<thread_identity> process_info::find_thread(pid_t own_tid) const {
  if (!folder_ || own_tid <= 0) return std::nullopt;
  const auto status = read_file_at(folder_.get(), "status");
  if (!status) return std::nullopt;
  const std::size_t levels = parse_namespace_pids(*status).size();
  if (levels == 0) return std::nullopt;

  const auto identify = [&](pid_t tid) -> std::optional<thread_identity> {
    const auto text = read_file_at(folder_.get(), thread_file(tid, "status"));
    if (!text) return std::nullopt;
    const std::vector<pid_t> pids = parse_namespace_pids(*text);
    if (pids.empty() || pids.back() != own_tid) return std::nullopt;
    const auto stat = read_file_at(folder_.get(), thread_file(tid, "stat"));
    const auto start = stat ? parse_start_ticks(*stat) : std::nullopt;
    if (!start) return std::nullopt;
    return thread_identity{.tid = tid, .own_tid = own_tid, .start_ticks = *start};
  };
  // All threads of a process are in the same PID namespace. If there is one number, it is ours.
  if (levels == 1) return identify(own_tid);

  const int tasks = ::openat(folder_.get(), "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (tasks < 0) return std::nullopt;
  const std::unique_ptr<DIR, folder_closer> folder(::fdopendir(tasks));
  if (!folder) {
    ::close(tasks);
    return std::nullopt;
  }
  unsigned seen = 0;
  while (const dirent* entry = ::readdir(folder.get())) {
    const auto tid = parse_number<pid_t>(std::string_view(entry->d_name));
    if (!tid) continue;
    if (auto thread = identify(*tid)) return thread;
    if (++seen == most_threads) break;
  }
  return std::nullopt;
}

bool process_info::has_thread(const thread_identity& thread) const {
  if (!folder_) return false;
  const auto stat = read_file_at(folder_.get(), thread_file(thread.tid, "stat"));
  return stat && parse_start_ticks(*stat) == thread.start_ticks;
}

}  // namespace asio_pulse::scx
