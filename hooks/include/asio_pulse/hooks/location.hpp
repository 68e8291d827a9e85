// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/site.hpp>
#include <cstdint>

/// \file
/// Source locations as 16-bit numbers. An operation has room for eight bytes of ours: a task's
/// address takes 48 bits, the number of its source location the other 16.

namespace asio_pulse::hooks {

using location_id = std::uint16_t;  ///< 0 is "unknown".

/// The number of a location; the same location has the same number in the whole process.
///
/// \par Cost           A hash look-up, about 3 ns; the first use of a location takes one
/// compare-and-swap. \par Thread safety  Any thread; lock-free. \par Errors         None: 0
/// (unknown) when `where.file` is null or more than 4 095 locations are in use.
[[nodiscard]] location_id intern(const location& where) noexcept;

/// The location behind a number from intern().
[[nodiscard]] location location_of(location_id id) noexcept;

}  // namespace asio_pulse::hooks
