// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <string>

#include "block_store.hpp"

/// \file
/// The file of the service's socket: whose it is, and who may remove it.

namespace asio_pulse::scx {

/// Connects to the service at `path`.
/// \par Errors  std::runtime_error with a sentence that says whether there is no such file, no
///              scx_pulse behind it, or no permission.
unique_fd connect_to_service(const std::string& path);

/// A listening SOCK_SEQPACKET socket at a path, which goes with the object.
///
/// A file that is there already is replaced if it is a socket that nobody listens on, left by a
/// loader that was killed. It is refused if somebody listens, and if it is anything but a socket.
/// Two that start at the very same instant may both find such a stale file, and the later one
/// removes the other's: accepted, since the kernel attaches only one scheduler.
///
/// \par Thread safety  One thread; the constructor changes the process's umask for a moment.
class socket_file {
 public:
  /// \par Errors  std::runtime_error with a sentence.
  socket_file(std::string path, mode_t mode);
  /// Removes the file if it is still ours.
  ~socket_file();
  socket_file(const socket_file&) = delete;
  socket_file& operator=(const socket_file&) = delete;

  /// As the constructor looks, for who wants to know before he does something expensive.
  static void check_free(const std::string& path);

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
  unique_fd socket_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace asio_pulse::scx
