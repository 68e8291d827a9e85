// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string_view>

namespace asio_pulse::detail {

/// Whether the calling thread has a seccomp filter. True also if that cannot be found out. A filter
/// may end the process for a system call that a program on plain Asio does not make.
///
/// \par Cost    Three system calls, about 60 us.
/// \par Errors  None (noexcept). False if the kernel has no seccomp.
[[nodiscard]] bool may_be_filtered() noexcept;

/// Whether the text of a thread's status file names a filter.
[[nodiscard]] bool names_filter(std::string_view status) noexcept;

}  // namespace asio_pulse::detail
