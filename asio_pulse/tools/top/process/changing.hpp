// SPDX-License-Identifier: BSL-1.0
//
// Changes a running process.

#pragma once

#include "background.hpp"
#include "machine.hpp"

#include <cstdint>
#include <string>

namespace asio_pulse::top {

struct change_result {
  bool made = false;
  std::string text{};  ///< what has changed, or why nothing has; a sentence without a full stop
};

/// Blocks as long as asio_pulse::inspector does. `context` is the number of the context.
change_result change_process(machine&, std::uint64_t pid, std::uint64_t context,
                             const context_change&);

/// The same on a separate thread. If it fails, the text of the result says why.
void start_change(background<change_result>&, machine&, std::uint64_t pid, std::uint64_t context,
                  const context_change&);

}  // namespace asio_pulse::top
