// SPDX-License-Identifier: BSL-1.0
//
// A program that only reads figures: it links the analysis and runs no context.
#include <asio_pulse/lints.hpp>

int main() { return asio_pulse::lints(asio_pulse::process_metrics{}).empty() ? 0 : 1; }
