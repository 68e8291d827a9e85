// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/hooks/site.hpp>
#include <asio_pulse/stack_trace.hpp>

#include <chrono>
#include <cstdint>
#include <thread>

namespace asio_pulse::detail {

/// What is known about a poll that does not end.
struct stalled_poll {
  task_state* task = nullptr;  ///< null if it belongs to no task
  const hooks::site* site = nullptr;
  hooks::location where{};
  std::uint64_t thread_number = 0;  ///< the kernel's id of the thread
  std::thread::id thread{};
  std::chrono::nanoseconds lasted{0};  ///< by the wall clock
  std::chrono::nanoseconds blamed{0};  ///< without waits for a CPU and time in which it was stopped
  stall_cause cause = stall_cause::unknown;
  bool critical = false;  ///< in a critical section
  int fault = 0;          ///< the errno if /proc could not be read completely
  no_stack why_no_stack = no_stack::none;
};

}  // namespace asio_pulse::detail
