// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/options.hpp>

namespace asio_pulse::detail {

/// Makes the calling thread give way as asked. Lowering needs no privilege; what the system refuses
/// stays as it is.
void lower_priority(isolation_priority how, int nice) noexcept;

}  // namespace asio_pulse::detail
