// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>

#include "scheduler.hpp"
#include "service.hpp"

/// \file
/// The command's main job: the scheduler and the service, from start to end.

namespace asio_pulse::scx {

/// What the command ends with. Part of its interface: see --help.
enum exit_status : int {
  exit_fine = 0,
  exit_cannot_run = 1,  ///< this machine, these privileges, this socket; or nobody to ask
  exit_usage = 2,
  exit_thrown_out = 3,  ///< the kernel has ended the scheduler
};

struct loader_options {
  scheduler_options scheduler = {};
  service_options service = {};
  std::chrono::duration<double> statistics_every{0};  ///< zero: none
  bool json = false;                                  ///< one object a line, on stdout
};

/// Loads the scheduler and serves until a SIGINT, SIGTERM or SIGHUP, or until the kernel throws it
/// out. Says on stdout what it does, on stderr why it cannot.
///
/// Where the kernel asks for it, because a CPU came or went, the scheduler is loaded again, with
/// the settings of the moment. The programs' connections are closed then, as when the loader ends:
/// they come back by themselves.
///
/// \par Thread safety  Once at a time in a process; it takes over SIGINT, SIGTERM, SIGHUP and
/// SIGPIPE. \par Errors         None: an exit_status.
exit_status run_loader(const loader_options& options);

}  // namespace asio_pulse::scx
