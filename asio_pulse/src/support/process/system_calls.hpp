// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string_view>

/// \file
/// The names of system calls.

namespace asio_pulse::detail {

/// The name of the call; empty if it is newer than the headers that this library was built with.
///
/// \par Errors  None (noexcept).
[[nodiscard]] std::string_view system_call_name(long number) noexcept;

/// Whether the first argument of the call is a descriptor.
[[nodiscard]] bool takes_descriptor(std::string_view call) noexcept;

}  // namespace asio_pulse::detail
