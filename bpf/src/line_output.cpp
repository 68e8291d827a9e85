// SPDX-License-Identifier: BSL-1.0
#include "line_output.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace asio_pulse::scx {

// A pipe that is ready takes PIPE_BUF bytes. A descriptor without a reader counts as ready: then the
// write fails.
bool line_output::has_room() const noexcept {
  pollfd look{.fd = fd_, .events = POLLOUT, .revents = 0};
  return ::poll(&look, 1, 0) == 1;
}

void line_output::write(const std::string& text) const noexcept {
  while (::write(fd_, text.data(), text.size()) < 0 && errno == EINTR) {
  }
}

void line_output::say(const std::string& line) {
  if (dropped_ != 0 && has_room()) {
    const std::uint64_t dropped = std::exchange(dropped_, 0);
    write(json_ ? fmt::format("{{\"event\":\"dropped\",\"lines\":{}}}\n", dropped)
                : fmt::format("scx_pulse: {} line(s) were dropped, because nobody read them\n",
                              dropped));
  }
  if (has_room()) {
    write(line + "\n");
  } else {
    ++dropped_;
  }
}

}  // namespace asio_pulse::scx
