// SPDX-License-Identifier: BSL-1.0

#include "recording_commands.hpp"

#include <iostream>

int main(int argc, char** argv) {
  return asio_pulse::tools::run_command(argc, argv, std::cout, std::cerr);
}
