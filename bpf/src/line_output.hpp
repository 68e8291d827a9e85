// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>

/// \file
/// The loader's lines on stdout.

namespace asio_pulse::scx {

/// Prints lines without waiting for a reader that does not read, such as a pager or a stopped
/// terminal: the scheduler has to be served meanwhile. Lines for which there is no room are dropped;
/// their number is printed as soon as there is room again.
///
/// Lines of at most PIPE_BUF bytes never wait. For a longer one, which the loader does not print,
/// the write may.
///
/// \par Thread safety  Distinct objects with distinct descriptors: Safe. Shared objects: Unsafe.
class line_output {
 public:
  explicit line_output(int fd) noexcept : fd_(fd) {}

  /// Whether the line about dropped lines is JSON; not at first.
  void use_json(bool json) noexcept { json_ = json; }

  /// \par Errors  std::bad_alloc. What cannot be written is dropped without a word.
  void say(const std::string& line);

 private:
  [[nodiscard]] bool has_room() const noexcept;
  void write(const std::string& text) const noexcept;

  int fd_;
  bool json_ = false;
  std::uint64_t dropped_ = 0;
};

}  // namespace asio_pulse::scx
