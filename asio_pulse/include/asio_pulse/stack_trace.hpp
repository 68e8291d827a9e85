// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// What a report says about a poll that does not end: the stack of the stuck thread, and the cause.

namespace asio_pulse {

/// A frame on the stack of a stuck thread. What is not known is empty or zero.
struct stack_frame {
  std::uintptr_t address = 0;  ///< in the process; the return address, not that of the call
  std::string function{};      ///< demangled
  std::string file{};          ///< as the compiler wrote it into the debug information
  std::uint32_t line = 0;
  std::string module{};       ///< base name of the ELF file
  std::uintptr_t offset = 0;  ///< of the address in the module, as `addr2line` takes it
  bool inlined = false;       ///< into the next frame, which has the same address
  /// A suspended coroutine, which is not on the stack. It awaits the frame before it. `address` is
  /// where its body begins, and `line` is the body's first line.
  bool awaiting = false;
  friend bool operator==(const stack_frame&, const stack_frame&) = default;
};

/// Innermost first.
using stack_trace = std::vector<stack_frame>;

/// blamed_frame() of a stack that shows no user code.
inline constexpr std::size_t no_frame = std::numeric_limits<std::size_t>::max();

/// The index of the frame to blame: the innermost frame of user code, or no_frame if there is none.
/// The C and C++ libraries, the loader, the vdso, the run-time libraries of sanitizers, and the
/// internals of Asio and of this library are not user code. Other parts of Boost are not either, if
/// user code called them.
///
/// A function is judged by its own qualified name and file, never by its template arguments or
/// parameters. So a lambda of the program that Asio calls is user code, and a function template of
/// Asio that is instantiated with that lambda is not.
///
/// \par Cost    Linear in the length of the names; no allocation.
/// \par Errors  None (noexcept).
std::size_t blamed_frame(std::span<const stack_frame>) noexcept;

/// The stack as text, with one line for each frame, escaped as reports are:
/// `  #0 parse(char const*) at src/parse.cpp:12` or `  #3 libc.so.6+0x9c3fe`. Lines of inlined
/// functions end with "(inlined)", those of suspended coroutines with "(awaiting)".
///
/// \par Cost    Allocates; bounded by the number of frames.
/// \par Errors  std::bad_alloc.
std::string format(std::span<const stack_frame>);

/// Why a poll does not end.
enum class stall_cause : std::uint8_t {
  unknown,      ///< there is no evidence, or it is contradictory
  spinning,     ///< the thread uses its CPU
  blocked,      ///< the thread waits: in a system call, for a lock, or for memory from disk
  descheduled,  ///< the thread could run, but the kernel runs others: not the task's fault
  stopped       ///< the thread was stopped by a signal or a debugger: not the task's fault
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(stall_cause) noexcept;

/// Why a report of a stall has no stack.
enum class no_stack : std::uint8_t {
  none,              ///< the report has a stack, or is of a kind that has none
  switched_off,      ///< options::stall_signal is negative
  moved_on,          ///< the thread continued while its stack was being taken
  signal_blocked,    ///< the thread blocks the signal
  handler_replaced,  ///< the program has since installed its own handler for the signal
  no_answer,         ///< the thread got no CPU time to handle the signal
  not_permitted,     ///< the kernel does not show where the thread is blocked, because the process
                     ///< has changed its user
  small_stack,       ///< the thread's stack may have no room for a signal handler
  no_descriptor,     ///< no file descriptor was free
  no_memory,
  unreadable,   ///< the stack was read, but could not be unwound
  unsupported,  ///< stacks cannot be taken on this system
  filtered      ///< a seccomp filter may end the process for the system calls that are needed
};

/// The reason in words: "the thread blocks the signal". Empty for `none`.
std::string_view to_string(no_stack) noexcept;

/// What stack traces contain in this build.
enum class stack_detail : std::uint8_t {
  none,       ///< stacks cannot be taken on this system
  addresses,  ///< built without libdw: the module and offset of the innermost frame
  full        ///< built with libdw: the whole stack, with the names that the modules contain
};

/// What stack traces contain in this build.
///
/// \par Cost  None: it is a constant.
stack_detail stack_support() noexcept;

}  // namespace asio_pulse
