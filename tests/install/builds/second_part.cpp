// SPDX-License-Identifier: BSL-1.0

// A second file, which a unity build compiles together with program.cpp.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/io_context.hpp>

int second_part(boost::asio::io_context& io);
int second_part(boost::asio::io_context& io) { return static_cast<int>(io.poll()); }
