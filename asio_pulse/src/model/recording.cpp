// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/recording.hpp>
#include <asio_pulse/report.hpp>

#include <fmt/core.h>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "files/replacing_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <new>
#include <ostream>

namespace asio_pulse {
namespace {

constexpr std::uint64_t latest_start = (std::uint64_t{1} << 48) - 1;
constexpr std::uint64_t largest_count = 0xffffffff;
constexpr std::uint64_t coarse = 16;
constexpr unsigned coarse_shift = 10;
// The rings of a context take at most 1 GiB (options::instrument_bytes), so a recording that the
// library has written is smaller.
constexpr std::uintmax_t largest_file = std::uintmax_t{4} << 30;
constexpr std::size_t path_bytes = 512;

std::uint64_t not_negative(std::chrono::nanoseconds value) noexcept {
  return static_cast<std::uint64_t>(std::max<std::chrono::nanoseconds::rep>(value.count(), 0));
}

std::uint64_t first_word(event_kind kind, std::chrono::nanoseconds start,
                         std::uint32_t site) noexcept {
  return (static_cast<std::uint64_t>(kind) & 15) |
         std::uint64_t{std::min(site, recorded_event::no_site)} << 5 |
         std::min(not_negative(start), latest_start) << 16;
}

struct closer {
  void operator()(std::FILE* file) const noexcept { (void)std::fclose(file); }
};
using open_file = std::unique_ptr<std::FILE, closer>;

std::error_code last_error() { return {errno != 0 ? errno : EIO, std::generic_category()}; }

// Opens a regular file. The checks are made on the open file, and opening a pipe does not block.
open_file open_regular(const std::string& path, std::error_code& ec) {
  const auto kind_error = [](bool directory) {
    return std::make_error_code(directory ? std::errc::is_a_directory
                                          : std::errc::invalid_argument);
  };
  ec.clear();
  errno = 0;
#if defined(__unix__) || defined(__APPLE__)
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  open_file file(fd < 0 ? nullptr : ::fdopen(fd, "rb"));
  if (file == nullptr) {
    ec = last_error();
    if (fd >= 0) ::close(fd);
    return file;
  }
  struct stat there {};
  if (::fstat(fd, &there) != 0) {
    ec = last_error();
  } else if (!S_ISREG(there.st_mode)) {
    ec = kind_error(S_ISDIR(there.st_mode));
  }
#else
  const std::filesystem::file_status there = std::filesystem::status(path, ec);
  if (!ec && !std::filesystem::is_regular_file(there))
    ec = kind_error(std::filesystem::is_directory(there));
  open_file file(ec ? nullptr : std::fopen(path.c_str(), "rb"));
  if (!ec && file == nullptr) ec = last_error();
#endif
  if (ec) file.reset();
  return file;
}

std::string read_file(const std::string& path, std::string& bytes, std::error_code& ec) {
  const auto fault = [&](std::string_view rule) {
    return fmt::format("recording: file: \"{}\" {}: {}", escape(path, path_bytes), rule,
                       ec.message());
  };
  const open_file file = open_regular(path, ec);
  if (ec == std::errc::is_a_directory || ec == std::errc::invalid_argument) {
    return fault("must be a regular file");
  }
  if (ec) return fault("cannot be read");
  constexpr std::size_t piece = std::size_t{1} << 20;
  std::size_t size = 0;
  for (std::size_t n = piece; n == piece; size += n) {
    if (size > largest_file) {
      ec = std::make_error_code(std::errc::file_too_large);
      return fault("must be at most 4 GiB");
    }
    bytes.resize(size + piece);
    errno = 0;
    n = std::fread(bytes.data() + size, 1, piece, file.get());
  }
  bytes.resize(size);
  if (std::ferror(file.get()) != 0) {
    ec = last_error();
    return fault("cannot be read");
  }
  return {};
}

}  // namespace

std::string_view to_string(event_kind kind) noexcept {
  switch (kind) {
    case event_kind::poll:
      return "poll";
    case event_kind::tier:
      return "tier";
    case event_kind::parked:
      return "parked";
    case event_kind::yielded:
      return "yielded";
    case event_kind::isolated:
      return "isolated";
    case event_kind::hint:
      return "hint";
    case event_kind::stall:
      return "stall";
    case event_kind::updated:
      return "updated";
    case event_kind::refused:
      return "refused";
    case event_kind::queue_delay:
      return "queue_delay";
  }
  return "unknown";
}

recorded_event recorded_event::make(event_kind kind, std::chrono::nanoseconds start,
                                    std::uint32_t site, std::uint32_t task,
                                    std::chrono::nanoseconds duration) noexcept {
  recorded_event e;
  e.first = first_word(kind, start, site);
  std::uint64_t count = not_negative(duration);
  if (count > largest_count) {
    count = std::min(count >> coarse_shift, largest_count);
    e.first |= coarse;
  }
  e.second = count << 32 | task;
  return e;
}

recorded_event recorded_event::make(event_kind kind, std::chrono::nanoseconds start,
                                    std::uint32_t site, std::uint32_t task,
                                    std::uint32_t value) noexcept {
  recorded_event e;
  e.first = first_word(kind, start, site);
  e.second = std::uint64_t{value} << 32 | task;
  return e;
}

recording read_recording(const std::string& path, std::error_code& ec, std::string* why) {
  std::string fault;
  std::string bytes;
  try {
    fault = read_file(path, bytes, ec);
  } catch (const std::bad_alloc&) {
    ec = std::make_error_code(std::errc::not_enough_memory);
    fault = "recording: file: there is not enough memory for it";
  }
  if (!ec) {
    recording r = decode_recording(bytes, ec, &fault);
    constexpr std::string_view what = "recording: ";
    if (ec && fault.starts_with(what)) {
      fault.insert(what.size(), fmt::format("file: \"{}\": ", escape(path, path_bytes)));
    }
    if (why != nullptr) *why = fault;
    return r;
  }
  if (why != nullptr) *why = fault;
  return {};
}

void write_recording(const recording& r, const std::string& path, std::error_code& ec,
                     std::string* why) {
  const std::string bytes = encode(r);
  const std::string fault = detail::replace_file(
      path, "recording",
      [&bytes](std::ostream& out) {
        out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      },
      ec);
  if (why != nullptr) *why = fault;
}

}  // namespace asio_pulse
