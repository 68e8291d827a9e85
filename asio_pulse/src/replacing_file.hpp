// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>
#include <system_error>

namespace asio_pulse::detail {

/// Writes a file beside `path` and renames it: whoever looks sees the old one, or the whole new
/// one. What is there and is no regular file (a device, a folder) is refused.
///
/// \param what  First word of the fault, as in "recording: file: ...".
/// \return The fault in a sentence, and `ec`; empty if there was none.
std::string replace_file(const std::string& path, std::string_view what,
                         const std::function<void(std::ostream&)>& write, std::error_code& ec);

}  // namespace asio_pulse::detail
