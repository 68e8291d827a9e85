// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "scheduler.hpp"
#include "service/service.hpp"

#include <chrono>

/// \file
/// The main job of the command: runs the scheduler and the service.

namespace asio_pulse::scx {

/// The exit status of the command, which is part of its interface; see --help.
enum exit_status : int {
  exit_fine = 0,
  exit_cannot_run = 1,  ///< because of the machine, privileges or socket; or no scx_pulse to ask
  exit_usage = 2,
  exit_thrown_out = 3,  ///< the kernel has ended the scheduler
};

struct loader_options {
  scheduler_options scheduler = {};
  service_options service = {};
  std::chrono::duration<double> statistics_every{0};  ///< zero: no statistics
  bool json = false;                                  ///< one object on each line, on stdout
};

/// Loads the scheduler and serves until SIGINT, SIGTERM or SIGHUP, or until the kernel ends the
/// scheduler. Prints on stdout what it does, and on stderr why it cannot.
///
/// If the kernel asks for it, because a CPU was added or removed, the scheduler is loaded again
/// with its current settings. The connections of programs are then closed, as when the loader ends.
/// The programs reconnect by themselves.
///
/// \par Thread safety  Must not run twice at a time in a process. It takes over SIGINT, SIGTERM,
///                     SIGHUP and SIGPIPE.
/// \par Errors         None; returns an exit_status.
exit_status run_loader(const loader_options& options);

}  // namespace asio_pulse::scx
