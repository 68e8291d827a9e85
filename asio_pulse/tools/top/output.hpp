// SPDX-License-Identifier: BSL-1.0
//
// A picture without a screen: plain text, and JSON.

#pragma once

#include "picture.hpp"
#include "text.hpp"

#include <cstddef>
#include <string>

namespace asio_pulse::top {

/// All contexts, with whole lines of at most `width` columns, without escape sequences.
std::string plain_text(const picture&, std::size_t width, charset);

/// One line, without its end. README.md has the members.
std::string json_text(const picture&);

}  // namespace asio_pulse::top
