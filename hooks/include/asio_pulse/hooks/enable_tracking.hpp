// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// Points Boost.Asio's custom handler tracking at asio-pulse, as asio_pulse::asio_pulse does in
/// CMake by a definition. For build systems that cannot pass a quoted definition through a shell:
/// compile every translation unit of the program with `-include
/// asio_pulse/hooks/enable_tracking.hpp`. asio_pulse.pc does. It has to come before Boost.Asio,
/// hence -include and not #include.

#ifndef BOOST_ASIO_CUSTOM_HANDLER_TRACKING
#define BOOST_ASIO_CUSTOM_HANDLER_TRACKING "asio_pulse/hooks/tracking.hpp"
#endif
