// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>

namespace asio_pulse::detail {

[[nodiscard]] std::uint64_t this_process_number() noexcept;

/// The base name of the executable; empty if the system does not report it.
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string this_program();

}  // namespace asio_pulse::detail
