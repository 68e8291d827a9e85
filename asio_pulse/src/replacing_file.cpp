// SPDX-License-Identifier: BSL-1.0

#include "replacing_file.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/format.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>

namespace asio_pulse::detail {
namespace {

namespace fs = std::filesystem;

constexpr int most_names = 100;  // left behind by programs that died while writing
constexpr std::size_t path_bytes = 512;

// Not every failure of a stream has a number.
std::error_code last_error() { return {errno != 0 ? errno : EIO, std::generic_category()}; }

// A new file: never one that is there, nor where a symbolic link points to.
std::string create_beside(const std::string& path, std::error_code& ec) {
  for (int n = 0; n < most_names; ++n) {
    std::string name = fmt::format("{}.{}.tmp", path, n);
    errno = 0;
    if (std::FILE* const file = std::fopen(name.c_str(), "wbx")) {
      (void)std::fclose(file);
      ec.clear();
      return name;
    }
    ec = last_error();
    if (ec != std::errc::file_exists) return {};
  }
  return {};
}

}  // namespace

std::string replace_file(const std::string& path, std::string_view what,
                         const std::function<void(std::ostream&)>& write, std::error_code& ec) {
  const auto fault = [&](std::string_view rule) {
    return fmt::format("{}: file: \"{}\" {}: {}", what, escape(path, path_bytes), rule,
                       ec.message());
  };
  ec.clear();
  if (path.empty() || path.find('\0') != std::string::npos) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return fault("must be a name without zero bytes");
  }
  std::error_code unknown;
  const fs::file_status there = fs::status(path, unknown);
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    ec = std::make_error_code(fs::is_directory(there) ? std::errc::is_a_directory
                                                      : std::errc::invalid_argument);
    return fault("is there and must be a regular file");
  }
  const std::string name = create_beside(path, ec);
  if (name.empty()) return fault("cannot be created");
  std::error_code ignored;
  try {
    errno = 0;
    std::ofstream file(name, std::ios::binary | std::ios::trunc);
    if (file) write(file);
    file.close();
    if (!file) ec = last_error();
  } catch (...) {
    fs::remove(name, ignored);
    throw;
  }
  if (ec) {
    fs::remove(name, ignored);
    return fault("could not be written whole, and nothing is left of it");
  }
  fs::rename(name, path, ec);
  if (ec) {
    fs::remove(name, ignored);
    return fault("cannot be put in its place");
  }
  return {};
}

}  // namespace asio_pulse::detail
