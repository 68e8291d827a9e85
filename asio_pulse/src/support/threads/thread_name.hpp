// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

/// Sets the name of the calling thread, as debuggers and top show it; at most 15 characters.
///
/// \par Cost    Eight system calls, about 100 us.
/// \par Errors  None (noexcept). If the name cannot be set, the thread keeps its old one.
void name_this_thread(const char* name) noexcept;

}  // namespace asio_pulse::detail
