// SPDX-License-Identifier: BSL-1.0

// Includes asio-pulse and was given neither the definition nor a mode: must not compile.

#include <asio_pulse/io_context.hpp>

int main() { asio_pulse::io_context context; }
