// SPDX-License-Identifier: BSL-1.0
#pragma once

// Included before everything else in substituted code.

#include <asio_pulse/io_context.hpp>

#if !defined(ASIO_PULSE_TRACKING)
#error "Boost.Asio is not tracked: the substitution would test nothing"
#endif
#if !defined(ASIO_PULSE_TESTABLE_PREEMPTION)
#error "ASIO_PULSE_ALWAYS_PREEMPT=1 would park nothing"
#endif
