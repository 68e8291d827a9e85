// SPDX-License-Identifier: BSL-1.0

#include "replacing_file.hpp"

#include "text/escaped.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <ostream>
#include <random>
#include <streambuf>

namespace asio_pulse::detail {
namespace {

namespace fs = std::filesystem;

// With 2^64 names, a single collision is unlikely already.
constexpr int most_attempts = 4;
constexpr std::size_t path_bytes = 512;

// For writing. x: the file must not exist, not even as a symbolic link (C11). e: close on exec.
#if defined(__linux__)
constexpr const char* create_new = "wbxe";
#else
constexpr const char* create_new = "wbx";
#endif

// Not every failure of a stream sets errno.
std::error_code last_error() { return {errno != 0 ? errno : EIO, std::generic_category()}; }

struct closer {
  void operator()(std::FILE* file) const noexcept { (void)std::fclose(file); }
};
using open_file = std::unique_ptr<std::FILE, closer>;

/// A stream buffer for an open file, which does its own buffering.
class file_buffer final : public std::streambuf {
 public:
  explicit file_buffer(std::FILE* to) noexcept : to_(to) {}

 protected:
  int_type overflow(int_type c) override {
    if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
    return std::fputc(c, to_) == EOF ? traits_type::eof() : c;
  }
  std::streamsize xsputn(const char* bytes, std::streamsize size) override {
    return static_cast<std::streamsize>(std::fwrite(bytes, 1, static_cast<std::size_t>(size), to_));
  }
  int sync() override { return std::fflush(to_) == 0 ? 0 : -1; }

 private:
  std::FILE* to_;
};

struct new_file {
  fs::path name{};  ///< complete before the file is created, so that removing it allocates nothing
  open_file file{};
};

// \throw std::exception if the machine has no random numbers.
std::uint64_t random_number() {
  std::random_device random;
  const std::uint64_t high = random();
  return high << 32 | random();
}

new_file create_beside(const std::string& path, std::error_code& ec) {
  for (int n = 0; n < most_attempts; ++n) {
    new_file made{};
    try {
      made.name = fmt::format("{}.{:016x}.tmp", path, random_number());
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {
      ec = std::make_error_code(std::errc::no_such_device);
      break;
    }
    errno = 0;
    made.file.reset(std::fopen(made.name.string().c_str(), create_new));
    if (made.file != nullptr) {
      ec.clear();
      return made;
    }
    ec = last_error();
    if (ec != std::errc::file_exists) break;
  }
  return {};
}

}  // namespace

std::string replace_file(const std::string& path, std::string_view what,
                         const std::function<void(std::ostream&)>& write, std::error_code& ec) {
  const auto fault = [&](std::string_view rule) {
    return fmt::format("{}: file: \"{}\" {}: {}", what, escaped(path, path_bytes), rule,
                       ec.message());
  };
  ec.clear();
  if (path.empty() || path.find('\0') != std::string::npos) {
    ec = std::make_error_code(std::errc::invalid_argument);
    return fault("must be a name without zero bytes");
  }
  std::error_code unknown;
  const fs::path place(path);
  const fs::file_status there = fs::status(place, unknown);
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    ec = std::make_error_code(fs::is_directory(there) ? std::errc::is_a_directory
                                                      : std::errc::invalid_argument);
    return fault("exists and is not a regular file");
  }
  new_file made = create_beside(path, ec);
  if (made.file == nullptr) return fault("cannot be created");
  std::error_code ignored;
  try {
    file_buffer buffer(made.file.get());
    std::ostream stream(&buffer);
    errno = 0;
    write(stream);
    if (!stream.flush()) ec = last_error();
    errno = 0;
    if (std::fclose(made.file.release()) != 0 && !ec) ec = last_error();
  } catch (...) {
    fs::remove(made.name, ignored);
    throw;
  }
  if (ec) {
    fs::remove(made.name, ignored);
    return fault("could not be written completely, and was removed");
  }
  fs::rename(made.name, place, ec);
  if (ec) {
    fs::remove(made.name, ignored);
    return fault("cannot be moved to its place");
  }
  return {};
}

}  // namespace asio_pulse::detail
