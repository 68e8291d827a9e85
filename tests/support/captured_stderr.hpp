// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "files/standard_error.hpp"
#include "reports/report_writer.hpp"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <stdexcept>
#include <string>

namespace pulse_test {

/// Captures what the library writes to stderr from here on, at most as much as a pipe holds.
/// GoogleTest's own capture makes descriptor 2 a file that is also read, which the library does not
/// take for standard error.
class captured_stderr {
 public:
  captured_stderr() : saved_(::dup(STDERR_FILENO)) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0 || saved_ < 0) throw std::runtime_error("no pipe for stderr");
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    read_ = ends[0];
    asio_pulse::detail::adopt_standard_error();
  }
  captured_stderr(const captured_stderr&) = delete;
  captured_stderr& operator=(const captured_stderr&) = delete;
  ~captured_stderr() { (void)end(); }

  /// Returns everything, and restores stderr. There must be something: it waits for the thread that
  /// writes, which may not have the CPU for as long as flush() waits.
  std::string end() {
    std::string text;
    if (saved_ < 0) return text;
    asio_pulse::detail::report_writer::flush();
    pollfd text_is_there{.fd = read_, .events = POLLIN, .revents = 0};
    (void)::poll(&text_is_there, 1, 60'000);
    ::dup2(saved_, STDERR_FILENO);
    ::close(saved_);
    saved_ = -1;
    std::array<char, 4096> buffer{};
    for (ssize_t n = 0; (n = ::read(read_, buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(n));
    }
    ::close(read_);
    return text;
  }

 private:
  int saved_;
  int read_ = -1;
};

}  // namespace pulse_test
