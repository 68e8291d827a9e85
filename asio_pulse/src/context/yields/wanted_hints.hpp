// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/options.hpp>

namespace asio_pulse::detail {

/// The source of hints that the options name or, if that is `environment`, the variable
/// ASIO_PULSE_HINTS. Never `environment`.
///
/// \par Errors  std::invalid_argument if the variable has an unknown value.
[[nodiscard]] hint_source wanted_hints(const options&);

}  // namespace asio_pulse::detail
