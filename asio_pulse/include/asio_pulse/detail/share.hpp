// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <cstdint>

namespace asio_pulse::detail {

/// What the gate keeps for a task's share of the CPU; see fair_shares.hpp. Guarded by the gate's
/// mutex.
struct share {
  timing::ticks tag = 0;      ///< its virtual time
  timing::ticks seen = 0;     ///< its total CPU time when the tag was brought up to date
  timing::ticks looked = 0;   ///< when the tag was brought up to date
  std::uint32_t counted = 0;  ///< the last reading of the queue in which it was counted
};

}  // namespace asio_pulse::detail
