// SPDX-License-Identifier: BSL-1.0
//
// A picture as plain text or JSON, without a screen.

#pragma once

#include "screen/picture.hpp"
#include "text.hpp"

#include <cstddef>
#include <string>

namespace asio_pulse::top {

/// All contexts as lines of at most `width` columns, without escape sequences.
std::string plain_text(const picture&, std::size_t width, charset);

/// One line, without a newline. README.md lists the members.
std::string json_text(const picture&);

}  // namespace asio_pulse::top
