// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

/// \file
/// Makes a system call again that our signal has ended early. SA_RESTART does that for most calls.
/// The others (poll, select, epoll_wait, nanosleep, sockets with a time-out; see signal(7)) return
/// EINTR with any flags, which the program may not expect.

namespace asio_pulse::detail {

/// The number of the system call at the end of `code`: the instruction `syscall`, and the one
/// before it that loads the number, as in the C library's functions up to glibc 2.40. Empty if the
/// instructions look different. For x86-64.
[[nodiscard]] std::optional<long> call_number(std::span<const std::uint8_t> code) noexcept;

/// Whether a call that a signal has ended before it did anything may be made again: it would
/// otherwise return EINTR, and does not itself wait for a signal.
///
/// \param arguments  The six.
[[nodiscard]] bool may_be_made_again(long number,
                                     std::span<const std::uint64_t, 6> arguments) noexcept;

/// Call it in a signal handler, with the handler's third argument. If the signal has interrupted a
/// system call that returns EINTR and may be made again, the thread makes it again when the handler
/// returns. Such a call had just begun, because the signal is sent only to threads that run.
///
/// \par Thread safety  For signal handlers. Changes errno.
void make_interrupted_call_again(void* context) noexcept;

/// Whether make_interrupted_call_again() recognises the calls of this program's C library.
[[nodiscard]] bool calls_can_be_made_again() noexcept;

}  // namespace asio_pulse::detail
