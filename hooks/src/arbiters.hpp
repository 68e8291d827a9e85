// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/thread_state.hpp>

#include <cstdint>

/// \file
/// Which arbiter a thread works for.

namespace asio_pulse::hooks {

/// A token that never equals the arbiter's word, so that the next poll takes the slow path.
[[nodiscard]] constexpr std::uint32_t never(std::uint32_t state) noexcept { return ~state; }

/// The arbiter of `scheduler`, or null. The caller keeps the arbiter alive.
[[nodiscard]] path_arbiter* find_arbiter(void* scheduler) noexcept;

/// Puts the arbiter of `scheduler` into the thread's state. The arbiter is not notified.
void attach(thread_state& ts, void* scheduler, path_arbiter& arbiter) noexcept;

/// Closes the account, removes the arbiter from the thread's state, and notifies the arbiter.
void detach(thread_state& ts) noexcept;

/// Makes `s` the thread's run state. The next poll takes the slow path: nothing is known of the word
/// that `s.state` refers to.
inline void set_run_state(thread_state& ts, const run_state& s) noexcept {
  static_cast<run_state&>(ts) = s;
  ts.token = never(ts.state->load(std::memory_order_relaxed));
}

/// Shows the watchdog the thread's arbiter.
inline void show_arbiter(thread_state& ts) noexcept {
  ts.watched.store(ts.arbiter, std::memory_order_relaxed);
}

/// Finds out whether `owner` is observed. Returns true if the thread is now attached to its
/// arbiter.
[[nodiscard]] bool recognise(thread_state& ts, void* owner) noexcept;

}  // namespace asio_pulse::hooks
