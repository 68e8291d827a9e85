// SPDX-License-Identifier: BSL-1.0
//
// The command pulse_top: its options, and how they are carried out.

#pragma once

#include "process/machine.hpp"

#include <chrono>
#include <string>

namespace asio_pulse::top {

/// Exit statuses.
inline constexpr int fine = 0;
inline constexpr int cannot = 1;  ///< the process has ended or cannot be read; a file not written
inline constexpr int bad_usage = 2;  ///< wrong arguments, no terminal, or several processes

/// Everything except main(), which has set the locale.
int run_command(int argc, char** argv, machine&);

/// Runs the screen until the user quits. `who` is as for find_target().
int run_screen(machine&, const std::string& who, std::chrono::milliseconds interval);

/// Prints a sentence on stderr. If stderr is closed or full, nothing happens.
void tell(const std::string& what) noexcept;
/// The same; returns the status.
int complain(const std::string& what, int status) noexcept;

}  // namespace asio_pulse::top
