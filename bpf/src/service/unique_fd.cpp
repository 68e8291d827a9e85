// SPDX-License-Identifier: BSL-1.0
#include "block_store.hpp"

#include <unistd.h>

#include <cerrno>

namespace asio_pulse::scx {

void unique_fd::reset() noexcept {
  if (fd_ < 0) return;
  const int saved = errno;
  ::close(std::exchange(fd_, -1));  // not repeated after EINTR, since Linux has closed it
  errno = saved;
}

}  // namespace asio_pulse::scx
