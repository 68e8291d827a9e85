// SPDX-License-Identifier: BSL-1.0
//
// Results as files. They are checked when read, and written completely or not at all.

#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pulse_bench {

/// A file that is not a valid result. The text gives the reason in one sentence.
struct bad_document : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// \par Errors  bad_document: naming the field and the rule.
boost::json::object parse_document(std::string_view text, const std::string& name);
boost::json::object load_document(const std::filesystem::path& path);

/// Checks that a file can be written there, before minutes are spent on its contents.
///
/// \par Errors  std::runtime_error with one sentence.
void check_place(const std::filesystem::path& path);

/// Writes the file under a temporary name, and then renames it. Afterwards either the complete new
/// file or the old one exists.
///
/// \par Errors  std::runtime_error with one sentence.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Makes a text from a file or another program safe for a terminal: control characters become '?';
/// UTF-8 stays.
std::string for_terminal(std::string_view text);
/// The string member `key`, for a terminal. Throws if there is none.
std::string shown_text(const boost::json::value& in, std::string_view key);

}  // namespace pulse_bench
