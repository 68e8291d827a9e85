// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <cstdint>
#include <string_view>

/// \file
/// The poll that this thread runs, for the decisions of its context.

namespace asio_pulse::detail {

inline task_state& state_of(hooks::task_record& t) noexcept { return static_cast<task_state&>(t); }

/// The context whose handlers the thread runs, or null. Each arbiter of the poll path is the core of
/// a context.
inline context_core* core_of(const hooks::thread_state& ts) noexcept {
  return static_cast<context_core*>(ts.arbiter);
}
/// The poll that the thread runs, or null. To be called by the thread itself only: relaxed, since it
/// is the one that writes it.
inline hooks::poll_frame* poll_of(const hooks::thread_state& ts) noexcept {
  return ts.top.load(std::memory_order_relaxed);
}

/// The site of the operation that this thread runs. To be called inside a poll only.
inline const hooks::site& current_site() noexcept {
  return *hooks::this_thread().poll_site.load(std::memory_order_relaxed);
}

/// Adds an event without a duration to the thread's recording, if there is one.
inline void mark(hooks::poll_recorder::kind what, const task_state& t,
                 std::uint32_t value) noexcept {
  if (hooks::poll_recorder* const recorder = hooks::this_thread().recorder) [[unlikely]] {
    recorder->mark(what, timing::timebase::get().now(), t.number, value);
  }
}

}  // namespace asio_pulse::detail
