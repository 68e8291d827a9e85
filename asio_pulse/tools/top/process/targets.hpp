// SPDX-License-Identifier: BSL-1.0
//
// Finds the process that the user means.

#pragma once

#include "machine.hpp"
#include "screen/styled.hpp"
#include "screen/ui.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::top {

/// What a word on the command line stands for: one process, several to choose from, or none with a
/// sentence that says why.
struct target {
  std::optional<std::uint64_t> pid{};
  std::vector<inspectable_process> choice{};
  std::string trouble{};
};

/// \param who  A number stands for that process, listed or not. A name is compared with the
///             kernel's name of the process, which is cut to 15 bytes. Empty stands for all
///             processes.
target find_target(machine&, std::string_view who);

/// One line for each process, each with a newline.
std::string list_of(const std::vector<inspectable_process>&, charset);

/// The screen on which the user chooses one. Exactly `rows` lines.
std::vector<line> chooser_frame(const std::vector<inspectable_process>&, std::size_t selected, size,
                                charset);

}  // namespace asio_pulse::top
