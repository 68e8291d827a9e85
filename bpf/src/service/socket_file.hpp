// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "block_store.hpp"

#include <sys/types.h>

#include <string>

/// \file
/// The file of the service's socket.

namespace asio_pulse::scx {

/// Connects to the service at `path`.
/// \par Errors  std::runtime_error with a sentence that says whether there is no such file, no
///              scx_pulse behind it, or no permission.
unique_fd connect_to_service(const std::string& path);

/// A listening SOCK_SEQPACKET socket at a path. The file is removed with the object.
///
/// If the file exists and is a socket on which nobody listens, which a killed loader has left
/// behind, it is replaced. If somebody listens, or the file is not a socket, the constructor
/// throws. Two loaders that start at the same instant may both find such a stale file, and the
/// later one removes the other's. This is accepted, since the kernel attaches only one scheduler.
///
/// \par Thread safety  For one thread only. The constructor changes the process's umask for a
///                     moment.
class socket_file {
 public:
  /// \par Errors  std::runtime_error with a sentence.
  socket_file(std::string path, mode_t mode);
  /// Removes the file if it is still the one that the constructor made.
  ~socket_file();
  socket_file(const socket_file&) = delete;
  socket_file& operator=(const socket_file&) = delete;

  /// Only the constructor's check, for use before something expensive is done.
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
