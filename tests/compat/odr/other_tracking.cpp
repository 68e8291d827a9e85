// SPDX-License-Identifier: BSL-1.0

// Includes asio-pulse in a build that has handler tracking of another kind: must not compile.

#define BOOST_ASIO_ENABLE_HANDLER_TRACKING 1
#include <asio_pulse/io_context.hpp>

int main() { asio_pulse::io_context context; }
