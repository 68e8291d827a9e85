// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cerrno>

namespace asio_pulse::detail {

/// Restores errno at the end of its scope, so that the program does not see errors of calls that
/// the library makes.
class errno_kept {
 public:
  errno_kept() noexcept : saved_(errno) {}
  ~errno_kept() { errno = saved_; }
  errno_kept(const errno_kept&) = delete;
  errno_kept& operator=(const errno_kept&) = delete;

 private:
  const int saved_;
};

}  // namespace asio_pulse::detail
