// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

struct tsc_calibration {
  bool usable = false;
  double hz = 0;
  char reason[200] = {};
};

/// Decides whether the TSC can be the timebase, and measures its rate.
///
/// \par Cost    2 ms where CPUID states a rate that the measurement confirms, at most 10 ms.
/// \par Errors  None: not usable, with the reason.
[[nodiscard]] tsc_calibration calibrate_tsc() noexcept;

}  // namespace asio_pulse::detail
