// SPDX-License-Identifier: BSL-1.0

// Boost.Asio is included first, and the definition comes too late: must not compile.

#include <boost/asio/io_context.hpp>

#define BOOST_ASIO_CUSTOM_HANDLER_TRACKING "asio_pulse/hooks/tracking.hpp"
#include <asio_pulse/io_context.hpp>

int main() { asio_pulse::io_context context; }
