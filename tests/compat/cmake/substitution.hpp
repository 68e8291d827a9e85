// SPDX-License-Identifier: BSL-1.0
#pragma once

// Included before everything else in substituted code.

#include <asio_pulse/io_context.hpp>

#if !defined(ASIO_PULSE_TRACKING)
#error "Boost.Asio is not tracked: the substitution would test nothing"
#endif
#if defined(COMPAT_ALWAYS_PREEMPT) && !ASIO_PULSE_ALWAYS_PREEMPT
#error "nothing would be parked"
#endif
