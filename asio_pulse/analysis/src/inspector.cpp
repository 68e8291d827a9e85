// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/inspect.hpp>

#include <utility>

#if defined(__linux__)

#include "files/descriptor.hpp"
#include "inspect_wire.hpp"
#include "process/user_identity.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

namespace asio_pulse {
namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

std::error_code last_error() { return {errno, std::system_category()}; }

// How long to wait for the connection to be accepted.
constexpr std::chrono::seconds introduction = 5s;
// How long to read an answer after it has begun.
constexpr std::chrono::seconds reading = 10s;

std::string program_of(std::uint64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string name;
  std::getline(file, name);
  return name;
}

/// Waits until the socket can be read or written. Returns false on a time-out, or with `ec` set.
bool ready(int socket, short events, clock_type::time_point until, std::error_code& ec) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - clock_type::now()).count();
    pollfd one{.fd = socket, .events = events, .revents = 0};
    const int n = ::poll(&one, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 600'000)));
    if (n > 0) return true;
    if (n < 0 && errno == EINTR) continue;
    ec = n < 0 ? last_error() : std::make_error_code(std::errc::timed_out);
    return false;
  }
}

/// Reads until `done(in)` is true, or the time is over.
template <class Done>
bool read_until(int socket, std::string& in, clock_type::time_point until, std::error_code& ec,
                Done done) {
  char bytes[16384];
  while (!done(in)) {
    if (!ready(socket, POLLIN, until, ec)) return false;
    const ssize_t n = ::recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0) {
      in.append(bytes, static_cast<std::size_t>(n));
    } else if (n == 0) {
      ec = std::make_error_code(std::errc::connection_reset);
      return false;
    } else if (errno != EAGAIN && errno != EINTR) {
      ec = last_error();
      return false;
    }
  }
  return true;
}

enum class listener { the_process, of_another_user, impostor };

// Any user may bind a free name. The kernel says which process listens, and as which user it called
// listen().
listener who_listens(int socket, std::uint64_t pid) noexcept {
  ucred who{};
  socklen_t size = sizeof who;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) return listener::impostor;
  const bool same = who.pid == 0 || static_cast<std::uint64_t>(who.pid) == pid;
  const bool root = ::geteuid() == 0;
  if (root || detail::is_own_user(who.uid))
    return same ? listener::the_process : listener::impostor;
  // A daemon may have called listen() as root, and have become this user since.
  const auto now = detail::effective_user_of(pid);
  if (who.uid == 0 && same && now && detail::is_own_user(*now)) return listener::the_process;
  return listener::of_another_user;
}

}  // namespace

std::vector<inspectable_process> inspectable_processes(std::error_code& ec) {
  std::vector<inspectable_process> found;
  ec = {};
  std::ifstream sockets("/proc/net/unix");
  if (!sockets) {
    ec = std::make_error_code(std::errc::no_such_file_or_directory);
    return found;
  }
  const std::string mark = fmt::format(" @{}", detail::socket_prefix);
  for (std::string line; std::getline(sockets, line);) {
    const auto at = line.rfind(mark);
    if (at == std::string::npos) continue;
    std::uint64_t pid = 0;
    if (!detail::parse_number(std::string_view(line).substr(at + mark.size()), pid)) continue;
    // "Num: RefCount Protocol Flags ...". Connections have the name as well, but do not listen.
    std::istringstream words(line);
    std::string number_in_kernel, references, family, flags;
    words >> number_in_kernel >> references >> family >> flags;
    constexpr std::string_view listens = "00010000";  // __SO_ACCEPTCON
    if (flags != listens) continue;
    const bool known = std::any_of(found.begin(), found.end(),
                                   [pid](const inspectable_process& p) { return p.pid == pid; });
    if (known) continue;
    const auto user = detail::effective_user_of(pid);
    if (!user || (::geteuid() != 0 && !detail::is_own_user(*user))) continue;
    found.push_back({.pid = pid, .program = program_of(pid)});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.pid < b.pid; });
  return found;
}

void inspector::connect(std::uint64_t pid, std::error_code& ec) {
  close();
  detail_.clear();
  ec = {};
  const detail::inspect_address address(pid);
  detail::descriptor s(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!s) {
    ec = last_error();
    detail_ = fmt::format("no socket: {}", ec.message());
    return;
  }
  // connect() waits while the backlog is full, but not longer than this.
  const timeval patience{.tv_sec = introduction.count(), .tv_usec = 0};
  ::setsockopt(s.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const auto until = clock_type::now() + introduction;
  int status = 0;
  while ((status = ::connect(s.get(), address.get(), address.length)) != 0 && errno == EINTR &&
         clock_type::now() < until) {
  }
  if (status != 0) {
    ec = last_error();
    struct stat there {};
    if (::stat(fmt::format("/proc/{}", pid).c_str(), &there) != 0) {
      detail_ = fmt::format("there is no process {}", pid);
    } else if (ec == std::errc::connection_refused) {
      detail_ = fmt::format(
          "process {} has no asio-pulse context that can be inspected (options::inspectable), or "
          "is in another network namespace",
          pid);
    } else if (ec == std::errc::resource_unavailable_try_again) {
      ec = std::make_error_code(std::errc::timed_out);
      detail_ = fmt::format("process {} accepts no more connections: too many are waiting", pid);
      return;
    } else {
      detail_ = fmt::format("process {}: {}", pid, ec.message());
      return;
    }
    ec = std::make_error_code(std::errc::no_such_process);
    return;
  }
  if (const listener other = who_listens(s.get(), pid); other != listener::the_process) {
    ec = std::make_error_code(std::errc::permission_denied);
    detail_ = other == listener::impostor
                  ? fmt::format("another process answers in place of process {}", pid)
                  : fmt::format("process {} belongs to another user", pid);
    return;
  }
  socket_ = s.release();
}

std::string inspector::exchange(const std::string& request, std::size_t longest,
                                std::chrono::milliseconds patience, std::error_code& ec) {
  ec = {};
  detail_.clear();
  const auto fail = [&](std::error_code why, std::string sentence) {
    ec = why;
    detail_ = std::move(sentence);
    close();
    return std::string();
  };
  if (socket_ < 0) {
    return fail(std::make_error_code(std::errc::not_connected), "not connected");
  }
  std::string in;
  const auto broken = [&] {
    if (ec == std::errc::timed_out) return fail(ec, "the process does not answer");
    return fail(ec, "the process has ended, or closed the connection");
  };
  const ssize_t sent = ::send(socket_, request.data(), request.size(), MSG_NOSIGNAL);
  // A process that refuses answers and closes before it has read anything, so EPIPE is no error.
  if (sent != static_cast<ssize_t>(request.size()) && (sent >= 0 || errno != EPIPE)) {
    ec = last_error();
    return broken();
  }
  const auto line_is_there = [](const std::string& s) { return s.find('\n') != std::string::npos; };
  if (!read_until(socket_, in, clock_type::now() + patience, ec,
                  [&](const std::string& s) { return line_is_there(s) || s.size() > 4096; })) {
    return broken();
  }
  const std::string line = in.substr(0, in.find('\n'));
  const std::string ok = fmt::format("{} ok ", detail::protocol);
  const std::string error = fmt::format("{} error ", detail::protocol);
  if (line.starts_with(error)) {
    const std::string why = line.substr(error.size());
    const bool denied = why.find("another user") != std::string::npos;
    return fail(std::make_error_code(denied ? std::errc::permission_denied
                                            : std::errc::operation_not_permitted),
                why);
  }
  std::uint64_t size = 0;
  if (!line.starts_with(ok) ||
      !detail::parse_number(std::string_view(line).substr(ok.size()), size)) {
    return fail(
        std::make_error_code(std::errc::protocol_not_supported),
        fmt::format("the process does not use protocol {}: it has another version of asio-pulse",
                    detail::protocol));
  }
  if (size > longest) {
    return fail(std::make_error_code(std::errc::bad_message),
                fmt::format("the process's answer has {} bytes; the limit is {}", size, longest));
  }
  in.erase(0, line.size() + 1);
  if (!read_until(socket_, in, clock_type::now() + reading, ec,
                  [size](const std::string& s) { return s.size() >= size; })) {
    return broken();
  }
  return in;
}

process_metrics inspector::fetch(const metrics_request& what, std::error_code& ec,
                                 std::chrono::milliseconds patience) {
  const std::string answer = exchange(fmt::format("{} metrics {} {} {}\n", detail::protocol,
                                                  what.top_tasks, what.top_sites, what.top_groups),
                                      detail::longest_metrics, patience, ec);
  process_metrics m;
  if (!ec && !detail::decode(answer, m)) {
    ec = std::make_error_code(std::errc::bad_message);
    detail_ = "the process's answer is damaged, or comes from another version of asio-pulse";
    close();
    m = {};
  }
  return m;
}

recording inspector::trace(std::chrono::milliseconds how_long, std::error_code& ec,
                           std::uint64_t context) {
  const std::string answer =
      exchange(fmt::format("{} trace {} {}\n", detail::protocol, how_long.count(), context),
               detail::longest_answer, how_long + reading, ec);
  if (ec) return {};
  recording r = decode_recording(answer, ec, &detail_);
  if (ec) close();
  return r;
}

std::string inspector::change(std::uint64_t context, const context_change& what,
                              std::error_code& ec, std::chrono::milliseconds patience) {
  std::string request = fmt::format("{} change {} ", detail::protocol, context);
  switch (what.what) {
    case context_change::kind::enforce:
      request += "enforce\n";
      break;
    case context_change::kind::shadow:
      request += "shadow\n";
      break;
    case context_change::kind::weight:
      request += fmt::format("weight {} {}\n", what.weight, detail::encode_word(what.group));
      break;
    case context_change::kind::undo:
      request += "undo\n";
      break;
  }
  if (request.size() > detail::longest_request) {
    ec = std::make_error_code(std::errc::operation_not_permitted);
    detail_ = "the path of the group is too long";
    return {};
  }
  return exchange(request, detail::longest_sentence, patience, ec);
}

void inspector::close() noexcept {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

}  // namespace asio_pulse

#else

namespace asio_pulse {

std::vector<inspectable_process> inspectable_processes(std::error_code& ec) {
  ec = std::make_error_code(std::errc::function_not_supported);
  return {};
}

void inspector::connect(std::uint64_t, std::error_code& ec) {
  ec = std::make_error_code(std::errc::function_not_supported);
  detail_ = "other processes can be inspected on Linux only";
}
process_metrics inspector::fetch(const metrics_request&, std::error_code& ec,
                                 std::chrono::milliseconds) {
  ec = std::make_error_code(std::errc::not_connected);
  return {};
}
recording inspector::trace(std::chrono::milliseconds, std::error_code& ec, std::uint64_t) {
  ec = std::make_error_code(std::errc::not_connected);
  return {};
}
std::string inspector::change(std::uint64_t, const context_change&, std::error_code& ec,
                              std::chrono::milliseconds) {
  ec = std::make_error_code(std::errc::not_connected);
  return {};
}
void inspector::close() noexcept {}

}  // namespace asio_pulse

#endif

namespace asio_pulse {

inspector::inspector(inspector&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), detail_(std::move(other.detail_)) {}

inspector& inspector::operator=(inspector&& other) noexcept {
  if (this == &other) return *this;
  close();
  socket_ = std::exchange(other.socket_, -1);
  detail_ = std::move(other.detail_);
  return *this;
}

inspector::~inspector() { close(); }

}  // namespace asio_pulse
