// SPDX-License-Identifier: BSL-1.0
//
// The command pulse_top: its options, and what is done with them.

#pragma once

#include "machine.hpp"

#include <chrono>
#include <string>

namespace asio_pulse::top {

/// Exit statuses.
inline constexpr int fine = 0;
inline constexpr int cannot = 1;  ///< the process has ended or cannot be read; a file not written
inline constexpr int bad_usage = 2;  ///< the arguments, no terminal, or several processes

/// All but main(): the locale is set, and nothing was printed yet.
int run_command(int argc, char** argv, machine&);

/// The screen, until the user quits. `who` as in find_target().
int run_screen(machine&, const std::string& who, std::chrono::milliseconds interval);

/// A sentence on stderr; returns the status.
int complain(const std::string& what, int status);

}  // namespace asio_pulse::top
