// SPDX-License-Identifier: BSL-1.0
//
// How much memory the stacks of fibers use: those of preemptible() and spawn().

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <cstddef>
#include <vector>

namespace asio_pulse {

/// The fiber stacks of one size.
struct fiber_stacks {
  std::size_t size = 0;    ///< of each, in bytes
  std::size_t in_use = 0;  ///< stacks of handlers that run or are suspended
  std::size_t idle = 0;    ///< kept with their memory: at most 64, and one for each thread
  std::size_t made = 0;    ///< in all; those neither in use nor idle take addresses, but no memory
  /// The most that any of them has used, in bytes, rounded up to pages. Of stacks whose memory was
  /// given back since, one in 64 was measured. Under a seccomp filter nothing is measured.
  std::size_t high_water = 0;
};

/// The fiber stacks of this process, one entry for each size that was ever used.
///
/// \par Cost           A system call for each stack that holds memory, about a microsecond. Good
///                     for a status page, but not for a handler.
/// \par Thread safety  Any thread. The figures may be out of date when the call returns.
/// \par Errors         std::bad_alloc.
/// \par Source         mincore(2): a page that was touched stays resident until its stack is
///                     returned.
[[nodiscard]] std::vector<fiber_stacks> fiber_stack_usage();

}  // namespace asio_pulse
