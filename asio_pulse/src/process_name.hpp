// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>

namespace asio_pulse::detail {

[[nodiscard]] std::uint64_t this_process_number() noexcept;

/// Base name of the executable; empty where the system does not tell.
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string this_program();

}  // namespace asio_pulse::detail
