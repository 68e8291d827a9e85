// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

/// If the program is linked with code that was compiled with automatic checkpoints, makes their
/// checks call this library. The first call does something.
///
/// \par Thread safety  Any thread.
void install_automatic_checkpoints() noexcept;

}  // namespace asio_pulse::detail
