// SPDX-License-Identifier: BSL-1.0
#include <unistd.h>

#include <cerrno>

#include "block_store.hpp"

namespace asio_pulse::scx {

void unique_fd::reset() noexcept {
  if (fd_ < 0) return;
  const int saved = errno;
  ::close(std::exchange(fd_, -1));  // not again on EINTR: Linux has closed it by then
  errno = saved;
}

}  // namespace asio_pulse::scx
