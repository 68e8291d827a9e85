// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/captured_stack.hpp>
#include <asio_pulse/stack_trace.hpp>
#include <cstddef>
#include <memory>

/// \file
/// Turns the copy of a stack into functions, files and lines, away from the thread it was taken of.

namespace asio_pulse::detail {

/// Unwinds by the modules' unwind tables (no frame pointers needed) and names what it finds by
/// their debug information, or else their symbols, or else module and offset. Without libdw: the
/// innermost frame's module and offset.
///
/// \par Cost           The constructor reads the tables of what is mapped now. A trace: 50 us to
///                     some milliseconds; a place that was seen before is named from a cache.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe. Takes no lock that a
///                     stuck thread holds for long: the allocator's, and the loader's for its list.
/// \par Errors         None: a stack that cannot be read is an empty trace, or a shorter one.
class symbolizer {
 public:
  symbolizer() noexcept;
  ~symbolizer();
  symbolizer(const symbolizer&) = delete;
  symbolizer& operator=(const symbolizer&) = delete;

  stack_trace trace(const captured_stack&, std::size_t max_frames = 64) noexcept;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace asio_pulse::detail
