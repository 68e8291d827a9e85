// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/protocol.h>

#include <string>

/// \file
/// Asks a running scx_pulse, over its socket.

namespace asio_pulse::scx {

/// The JSON object of STATUS.
///
/// \par Cost    Blocks, for 5 s at most, where the loader hangs.
/// \par Errors  std::runtime_error with a sentence: nobody serves the socket, or it was refused.
std::string ask_status(const std::string& socket_path);

/// SET. `change` needs no header; the settings are named by `change.fields`.
/// \par Cost, Errors  As above.
void ask_change(const std::string& socket_path, asio_pulse_set_request change);

}  // namespace asio_pulse::scx
