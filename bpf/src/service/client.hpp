// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/protocol.h>

#include <string>

/// \file
/// Sends requests to a running scx_pulse through its socket.

namespace asio_pulse::scx {

/// The JSON object of STATUS.
///
/// \par Blocking  At most 5 s, if the loader hangs.
/// \par Errors    std::runtime_error with a sentence: no process serves the socket, or the request
///                was refused.
std::string ask_status(const std::string& socket_path);

/// Sends SET. `change` needs no header; `change.fields` names the settings.
///
/// \par Blocking  As ask_status().
/// \par Errors    As ask_status().
void ask_change(const std::string& socket_path, asio_pulse_set_request change);

}  // namespace asio_pulse::scx
