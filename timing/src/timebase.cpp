// SPDX-License-Identifier: BSL-1.0
#include "thread_cpu.hpp"
#include "tsc_calibration.hpp"

#include <asio_pulse/timing/timebase.hpp>

#include <cstdio>

namespace asio_pulse::timing {

timebase::timebase() noexcept {
  const detail::tsc_calibration tsc = detail::calibrate_tsc();
  uses_tsc_ = tsc.usable;
  ticks_per_second_ = tsc.usable ? tsc.hz : 1e9;
  to_ns_ = detail::tick_scale{1e9 / ticks_per_second_};
  from_ns_ = detail::tick_scale{ticks_per_second_ / 1e9};
  std::snprintf(reason_, sizeof reason_, "%s", tsc.reason);
}

const timebase& timebase::get() noexcept {
  static const timebase instance;
  return instance;
}

ticks timebase::steady_ns() noexcept { return detail::monotonic_ns(); }

}  // namespace asio_pulse::timing
