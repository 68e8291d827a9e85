// SPDX-License-Identifier: BSL-1.0
//
// Runs a program to its end, and keeps its output.

#pragma once

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

namespace pulse_bench {

struct process_result {
  int status = 0;      ///< exit status; 128 + the signal that ended it
  std::string output;  ///< all of stdout
  std::string errors;  ///< the end of stderr
};

/// Thrown by run_process() when the user has pressed Ctrl-C; the program has ended by then.
struct interrupted : std::runtime_error {
  interrupted() : std::runtime_error("interrupted") {}
};

/// From now on SIGINT and SIGTERM end the running program with its children, and then this one.
void catch_interrupts();

/// Runs \p command, looked up in PATH, in a separate process group. A program that has not ended
/// within \p limit is killed, with its children, and an error is thrown.
process_result run_process(const std::vector<std::string>& command, std::chrono::seconds limit);

/// The last line of a text that is not empty, without its newline.
std::string last_line(const std::string& text);

}  // namespace pulse_bench
