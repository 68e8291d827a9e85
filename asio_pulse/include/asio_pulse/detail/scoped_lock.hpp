// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <mutex>

namespace asio_pulse::detail {

/// A parameter of functions that must be called with a mutex held, as in Asio: the caller passes
/// the lock.
using scoped_lock = std::unique_lock<std::mutex>;

/// For ASIO_PULSE_ASSERT.
[[nodiscard]] inline bool holds(const scoped_lock& lock, const std::mutex& mutex) noexcept {
  return lock.owns_lock() && lock.mutex() == &mutex;
}

}  // namespace asio_pulse::detail
