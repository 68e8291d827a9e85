// SPDX-License-Identifier: BSL-1.0

#include "command.hpp"

#include <clocale>
#include <exception>

int main(int argc, char** argv) {
  try {
    // If the locale does not exist, output is plain ASCII.
    std::setlocale(LC_CTYPE, "");
    return asio_pulse::top::run_command(argc, argv, *asio_pulse::top::this_machine());
  } catch (const std::exception& e) {
    return asio_pulse::top::complain(e.what(), asio_pulse::top::cannot);
  }
}
