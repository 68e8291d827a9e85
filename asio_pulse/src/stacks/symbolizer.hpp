// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "captured_stack.hpp"

#include <asio_pulse/stack_trace.hpp>

#include <cstddef>
#include <memory>

/// \file
/// Turns the copy of a stack into functions, files and lines, on another thread.

namespace asio_pulse::detail {

/// Unwinds with the modules' unwind tables (no frame pointers needed), and names frames by their
/// debug information or, if there is none, by symbols or by module and offset. Without libdw there
/// is only the module and offset of the innermost frame.
///
/// No file is kept open between two traces.
///
/// \par Cost           The constructor: none. The first trace reads the tables of the mapped files,
///                     which takes 10 to 15 ms and 5 to 6 MB. Each trace: 50 us to some
///                     milliseconds; the names of places that were seen before are cached. Files
///                     with separate debug information are opened again for each trace.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe. Takes only locks that a
///                     stuck thread does not hold for long: the allocator's, and the one for the
///                     loader's list.
/// \par Errors         None. If the stack cannot be read, or there is no memory, the trace is empty
///                     or incomplete. The next trace begins a new session.
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
