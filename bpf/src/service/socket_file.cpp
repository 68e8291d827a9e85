// SPDX-License-Identifier: BSL-1.0
#include "socket_file.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace asio_pulse::scx {
namespace {

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

[[noreturn]] void fail_at(const char* what, const std::string& path, int error) {
  fail(fmt::format("{} {}: {}", what, path, std::strerror(error)));
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.find('\0') != std::string::npos) {
    fail("the socket's path must not be empty or contain a zero byte");
  }
  if (path.size() >= sizeof address.sun_path) {
    fail(fmt::format("the socket's path {} has {} bytes; the limit is {}", path, path.size(),
                     sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

unique_fd make_socket(int more_flags) {
  unique_fd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | more_flags, 0));
  if (!made) fail(fmt::format("cannot make a unix socket: {}", std::strerror(errno)));
  return made;
}

int connect_errno(int fd, const sockaddr_un& address) {
  const int result =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(sockaddr_un));
  return result == 0 ? 0 : errno;
}

// Returns true if there is a socket on which nobody listens.
bool find_stale(const std::string& path, const sockaddr_un& address) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return false;
    fail_at("cannot look at", path, errno);
  }
  if (!S_ISSOCK(found.st_mode)) {
    fail(fmt::format(
        "{} exists and is not a socket, so it is not replaced; choose another path with --socket",
        path));
  }
  const unique_fd probe = make_socket(SOCK_NONBLOCK);
  switch (const int error = connect_errno(probe.get(), address)) {
    case ECONNREFUSED:
      return true;
    case ENOENT:  // removed meanwhile
      return false;
    case 0:
    case EAGAIN:  // its queue is full, so somebody listens
      fail(fmt::format("another scx_pulse serves {}: end it, or choose another path with --socket",
                       path));
    case EPROTOTYPE:
      fail(fmt::format(
          "another program serves {}, which is not scx_pulse: choose another path with --socket",
          path));
    default:
      fail_at("cannot find out whether a process serves", path, error);
  }
}

void bind_and_listen(int fd, const sockaddr_un& address, mode_t mode, const std::string& path) {
  // With the umask and not with chmod afterwards, so that the file never has more permissions.
  const mode_t before = ::umask(~mode & 0777U);
  const int bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::umask(before);
  if (bound != 0) fail_at("cannot make the socket", path, error);
  if (::listen(fd, SOMAXCONN) != 0) {
    const int why = errno;
    ::unlink(address.sun_path);
    fail_at("cannot listen on", path, why);
  }
}

}  // namespace

unique_fd connect_to_service(const std::string& path) {
  const sockaddr_un address = address_of(path);
  unique_fd made = make_socket(0);
  // Do not wait for ever for a loader that hangs.
  const timeval patience{.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(made.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(made.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  switch (const int error = connect_errno(made.get(), address)) {
    case 0:
      return made;
    case ENOENT:
      fail(
          fmt::format("scx_pulse is not running: there is no {}; start `scx_pulse` as root, or "
                      "give the path of its socket with --socket",
                      path));
    case ECONNREFUSED:
      fail(fmt::format("scx_pulse is not running: no process serves {}; start `scx_pulse` as root",
                       path));
    case EPROTOTYPE:
      fail(fmt::format("the program that serves {} is not scx_pulse", path));
    case EAGAIN:
      fail(fmt::format("the scx_pulse that serves {} does not answer", path));
    default:
      fail_at("cannot connect to", path, error);
  }
}

void socket_file::check_free(const std::string& path) {
  static_cast<void>(find_stale(path, address_of(path)));
}

socket_file::socket_file(std::string path, mode_t mode) : path_(std::move(path)) {
  const sockaddr_un address = address_of(path_);
  if (find_stale(path_, address) && ::unlink(path_.c_str()) != 0 && errno != ENOENT) {
    fail_at("cannot remove the stale socket", path_, errno);
  }
  socket_ = make_socket(SOCK_NONBLOCK);
  // Bound under another name first, because a socket on which nobody listens yet looks stale.
  const std::size_t slash = path_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path_ : path_.substr(slash + 1);
  const unique_fd at(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at) fail_at("cannot make the socket", path_, errno);
  const std::string first_name = fmt::format(".scx_pulse.{}", ::getpid());
  bind_and_listen(socket_.get(),
                  address_of(fmt::format("/proc/self/fd/{}/{}", at.get(), first_name)), mode,
                  path_);
  struct stat made {};
  if (::fstatat(at.get(), first_name.c_str(), &made, AT_SYMLINK_NOFOLLOW) == 0) {
    device_ = made.st_dev;
    inode_ = made.st_ino;
  }
  if (::renameat2(at.get(), first_name.c_str(), at.get(), name.c_str(), RENAME_NOREPLACE) != 0) {
    const int why = errno;
    ::unlinkat(at.get(), first_name.c_str(), 0);
    fail_at("cannot make the socket", path_, why);
  }
}

socket_file::~socket_file() {
  struct stat now {};
  if (::lstat(path_.c_str(), &now) == 0 && S_ISSOCK(now.st_mode) && now.st_dev == device_ &&
      now.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
}

}  // namespace asio_pulse::scx
