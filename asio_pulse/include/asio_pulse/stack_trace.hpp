// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// What a report says of a poll that does not end: the stack of the thread that is stuck, and why.

namespace asio_pulse {

/// One function on the stack of a stuck thread. What is not known is empty or zero.
struct stack_frame {
  std::uintptr_t address = 0;  ///< in the process; of a call's return, not of the call
  std::string function{};      ///< demangled
  std::string file{};          ///< as the compiler wrote it into the debug information
  std::uint32_t line = 0;
  std::string module{};       ///< base name of the ELF file
  std::uintptr_t offset = 0;  ///< of the address in the module, as `addr2line` takes it
  bool inlined = false;       ///< into the next frame; both have the same address
  /// A suspended coroutine, which is not on the stack: it awaits the one before it. The address is
  /// where its body begins, the line that of its first.
  bool awaiting = false;
  friend bool operator==(const stack_frame&, const stack_frame&) = default;
};

/// Innermost first.
using stack_trace = std::vector<stack_frame>;

/// blamed_frame() of a stack that shows no user code.
inline constexpr std::size_t no_frame = std::numeric_limits<std::size_t>::max();

/// Index of the frame to blame: the innermost that is user code. Not the C and C++ libraries, the
/// loader, the vdso, sanitizers' run-time libraries, Asio's or this library's internals; nor other
/// parts of Boost where something of the user's called them. no_frame if there is none.
///
/// A function is judged by its own qualified name and file, never by its template arguments or
/// parameters: a lambda of the user's, called by Asio, is user code, and what Asio instantiates
/// with that lambda is not.
///
/// \par Cost    Linear in the names' length; no allocation.
/// \par Errors  None (noexcept).
std::size_t blamed_frame(std::span<const stack_frame>) noexcept;

/// The stack in several lines, one a frame, each ended by a newline, escaped as reports are:
/// `  #0 parse(char const*) at src/parse.cpp:12` or `  #3 libc.so.6+0x9c3fe`; "(inlined)" and
/// "(awaiting)" at the end say so.
///
/// \par Cost    Allocates; bounded by the number of frames.
/// \par Errors  std::bad_alloc.
std::string format(std::span<const stack_frame>);

/// Why a poll does not end.
enum class stall_cause : std::uint8_t {
  unknown,      ///< the evidence contradicts itself, or there is none
  spinning,     ///< it uses its CPU
  blocked,      ///< it waits: in a system call, for a lock, for memory from disk
  descheduled,  ///< it could run, and the kernel runs others: not the task's fault
  stopped       ///< by a signal or a debugger: not the task's fault
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(stall_cause) noexcept;

/// What stack traces of this build can say.
enum class stack_detail : std::uint8_t {
  none,       ///< stacks cannot be taken on this system
  addresses,  ///< built without libdw: the innermost frame's module and offset
  full        ///< built with libdw: the whole stack, with whatever names the modules carry
};

/// \par Cost  None: known when the library was built.
stack_detail stack_support() noexcept;

}  // namespace asio_pulse
