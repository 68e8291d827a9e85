// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/site.hpp>

#include <cstdint>

/// \file
/// Source locations as 16-bit numbers. An operation carries eight bytes of ours: 48 bits for the
/// address of its task, and 16 for the number of its source location.

namespace asio_pulse::hooks {

using location_id = std::uint16_t;  ///< 0 is "unknown".

/// The number of a location, which is the same in the whole process.
///
/// \par Cost           A hash look-up, about 3 ns. The first use of a location takes a
///                     compare-and-swap.
/// \par Thread safety  Any thread; lock-free.
/// \par Errors         None. Returns 0 (unknown) if `where.file` is null or more than 4 095
///                     locations are in use.
[[nodiscard]] location_id intern(const location& where) noexcept;

/// The location for a number that intern() has returned.
[[nodiscard]] location location_of(location_id id) noexcept;

}  // namespace asio_pulse::hooks
