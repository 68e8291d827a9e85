// SPDX-License-Identifier: BSL-1.0

// A program on plain Boost.Asio that links a library which uses asio-pulse: the definition is
// missing here.

#include "plain_part.hpp"
#include "tracked_part.hpp"

#include <iostream>

int main() {
  tracked_part::run_a_context();
  plain_part::run_a_context_of_its_own();
  tracked_part::run_a_context();
  std::cout << "ran to its end\n";
}
