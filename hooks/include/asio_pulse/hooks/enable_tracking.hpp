// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// Sets Boost.Asio's custom handler tracking to asio-pulse. In CMake the target
/// asio_pulse::asio_pulse does this with a definition. This header is for build systems that cannot
/// pass a quoted definition through a shell: compile every translation unit of the program with
///
///     -include asio_pulse/hooks/enable_tracking.hpp
///
/// asio_pulse.pc does that. The header has to come before Boost.Asio, hence -include and not
/// #include.

#ifndef BOOST_ASIO_CUSTOM_HANDLER_TRACKING
#define BOOST_ASIO_CUSTOM_HANDLER_TRACKING "asio_pulse/hooks/tracking.hpp"
#endif
