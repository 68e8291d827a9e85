// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process/errno_kept.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace asio_pulse::detail {

/// Makes an eventfd that a thread polls in addition to other descriptors. Negative on failure.
[[nodiscard]] inline int make_wakeup() noexcept { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

/// Ends the poll() that waits for the wakeup. Does nothing if it is negative. Preserves errno.
///
/// \par Thread safety  Any thread, and signal handlers.
inline void signal_wakeup(int wakeup) noexcept {
  if (wakeup < 0) return;
  const std::uint64_t one = 1;
  const errno_kept keep;
  (void)!::write(wakeup, &one, sizeof one);
}

/// Clears all signals so far. To be called by the thread that polls it.
inline void reset_wakeup(int wakeup) noexcept {
  std::uint64_t signals = 0;
  (void)!::read(wakeup, &signals, sizeof signals);
}

}  // namespace asio_pulse::detail
