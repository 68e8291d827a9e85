// SPDX-License-Identifier: BSL-1.0
//
// Finds out what a blocked handler waited for, from its system call and its stack.

#pragma once

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/report.hpp>

#include <cstdint>
#include <string_view>

namespace asio_pulse::detail {

enum class waits_for : std::uint8_t {
  lock,             ///< another thread, through a lock or a condition variable
  name_resolution,  ///< DNS
  call              ///< another system call, or the kernel
};

struct blocked_reason {
  waits_for kind;
  std::string_view for_what;  // completes a sentence: "waited up to 5ms ..."
  std::string_view advice;
};

/// Whether the stall has a stack or a system call.
bool described(const stall_metrics&) noexcept;

/// \pre The stall's cause is `blocked`.
blocked_reason why_blocked(const stall_metrics&) noexcept;

/// The value of report::remedy: where the remedy is described. Empty if the report alone does not
/// show what is wrong.
std::string_view remedy_of(const report&) noexcept;

}  // namespace asio_pulse::detail
