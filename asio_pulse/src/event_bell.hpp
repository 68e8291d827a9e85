// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace asio_pulse::detail {

/// Rings an eventfd; nothing where there is none (negative). Leaves errno alone.
///
/// \par Thread safety  Any thread, and signal handlers.
inline void ring(int bell) noexcept {
  if (bell < 0) return;
  const std::uint64_t one = 1;
  const int saved = errno;
  (void)!::write(bell, &one, sizeof one);
  errno = saved;
}

}  // namespace asio_pulse::detail
