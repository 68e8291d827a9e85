// SPDX-License-Identifier: BSL-1.0
//
// Results as files: read with suspicion, written whole or not at all.

#pragma once

#include <boost/json/object.hpp>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pulse_bench {

/// A file that is no result of ours; the text says why in one sentence.
struct bad_document : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// \par Errors  bad_document: naming the field and the rule.
boost::json::object parse_document(std::string_view text, const std::string& name);
boost::json::object load_document(const std::filesystem::path& path);

/// Writes the file beside its place, and then puts it there: afterwards it is there as a whole, or
/// what was there before.
///
/// \par Errors  std::runtime_error with one sentence.
void write_file(const std::filesystem::path& path, std::string_view text);

/// A text from a file or another program, for a terminal: what is not printable ASCII is '?', UTF-8
/// stays.
std::string for_terminal(std::string_view text);

}  // namespace pulse_bench
