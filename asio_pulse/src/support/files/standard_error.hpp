// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

/// \file
/// Descriptor 2 as standard error. A program may close it, and the next file or socket that it
/// opens gets the number. The library must not write to that.

namespace asio_pulse::detail {

/// Whether descriptor 2 is standard error. It is if it refers to one of the following:
///
/// - the file that it was when this library was loaded, or when a context was made last (see
///   adopt_standard_error());
/// - the same file as descriptor 1, as after `dup2(log, 1); dup2(log, 2)`, or in a daemon;
/// - a regular file opened for appending, such as a log that was reopened.
///
/// \par Thread safety  Any thread, and signal handlers. errno is preserved.
/// \par Cost           Up to three system calls.
[[nodiscard]] bool is_standard_error() noexcept;

/// Called when a context is made. From now on the present file of descriptor 2 counts as standard
/// error, if the program was started with one and the file can be one: opened for writing only, and
/// not a socket. Programs usually redirect their output before they make a context.
void adopt_standard_error() noexcept;

/// For a process that is about to end: writes a text to standard error in one piece if that is
/// possible without blocking. Raises no SIGPIPE.
///
/// \par Thread safety  Any thread, and signal handlers.
void write_last_words(const char* text, std::size_t size) noexcept;

}  // namespace asio_pulse::detail
