// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>
#include <system_error>

namespace asio_pulse::detail {

/// Writes a new file beside `path` and renames it, so that a reader sees either the old file or the
/// complete new one. If `path` exists and is not a regular file (but a device or a folder), that is
/// an error; a symbolic link is replaced.
///
/// The folder may be writable by everybody, such as /tmp: the new file is created under a name that
/// cannot be guessed, opened once, and never through a link.
///
/// \param what  The first word of the error message, as in "recording: file: ...".
/// \return The error as a sentence, with `ec` set; empty on success.
std::string replace_file(const std::string& path, std::string_view what,
                         const std::function<void(std::ostream&)>& write, std::error_code& ec);

}  // namespace asio_pulse::detail
