// SPDX-License-Identifier: BSL-1.0
//
// Records a process for a while, and writes two files.

#pragma once

#include "background.hpp"
#include "machine.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace asio_pulse::top {

/// The file of a recording, and the one for Perfetto beside it.
struct trace_files {
  std::string recording{};
  std::string json{};
};

/// "x" and "x.pulse" and "x.json": x.pulse and x.json.
trace_files files_of(std::string_view path);

/// Files "PROGRAM.PID.NUMBER" in the current folder, with the first number that is free. Characters
/// in the program's name other than letters, digits, '-', '_' and '.' become '_'.
trace_files free_files(std::string_view program, std::uint64_t pid);

struct trace_result {
  bool written = false;
  std::string text{};  ///< a sentence without a full stop, not escaped
};

/// Blocks for a little longer than `how_long`. `context` is the number of the context; 0 stands for
/// the one with the most events.
trace_result write_trace_of(machine&, std::uint64_t pid, std::uint64_t context,
                            std::chrono::milliseconds how_long, const trace_files&);

/// The same on a separate thread. If it fails, the text of the result says why.
void start_trace(background<trace_result>&, machine&, std::uint64_t pid, std::uint64_t context,
                 std::chrono::milliseconds how_long, trace_files);

}  // namespace asio_pulse::top
