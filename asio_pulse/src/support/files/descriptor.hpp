// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process/errno_kept.hpp"

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace asio_pulse::detail {

/// A file descriptor that is closed with its owner. Preserves errno.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class descriptor {
 public:
  descriptor() noexcept = default;
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(other.release()) {}
  descriptor& operator=(descriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  ~descriptor() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept {
    if (fd_ < 0) return;
    const errno_kept keep;
    ::close(release());  // not repeated after EINTR, since Linux has closed it
  }

 private:
  int fd_ = -1;
};

}  // namespace asio_pulse::detail
