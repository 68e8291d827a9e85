/* SPDX-License-Identifier: BSL-1.0
 *
 * What the parts of asio_pulse::chunked_memory share. */
#pragma once
#include <asio_pulse/auto_checkpoint.h>

namespace asio_pulse::detail::chunked {

/// A check that counts \p units of work.
[[gnu::always_inline]] inline void check(int units) noexcept {
  if ((asio_pulse_fuel -= units) < 0) asio_pulse_out_of_fuel();
}

}  // namespace asio_pulse::detail::chunked
