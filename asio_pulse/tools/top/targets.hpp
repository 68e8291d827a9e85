// SPDX-License-Identifier: BSL-1.0
//
// Which process is meant.

#pragma once

#include "machine.hpp"
#include "styled.hpp"
#include "ui.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::top {

/// What a word on the command line leads to: one process, or some to choose from, or none, and
/// then a sentence why.
struct target {
  std::optional<std::uint64_t> pid{};
  std::vector<inspectable_process> choice{};
  std::string trouble{};
};

/// \param who  a number: that process, listed or not. A name: as the kernel knows it, which keeps
/// 15
///             bytes of it. Empty: all.
target find_target(machine&, std::string_view who);

/// One line for each of them, each ended by a newline.
std::string list_of(const std::vector<inspectable_process>&, charset);

/// To choose from them on the screen. Exactly `rows` lines.
std::vector<line> chooser_frame(const std::vector<inspectable_process>&, std::size_t selected, size,
                                charset);

}  // namespace asio_pulse::top
