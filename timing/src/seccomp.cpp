// SPDX-License-Identifier: BSL-1.0
#include "seccomp.hpp"

#if defined(__linux__)
#include <fcntl.h>
#include <unistd.h>
#endif

#include <cstddef>

namespace asio_pulse::detail {

bool names_filter(std::string_view status) noexcept {
  // Newlines in the thread's name, which comes first, are escaped.
  constexpr std::string_view key = "\nSeccomp:\t";
  const std::size_t at = status.find(key);
  return at != status.npos && !status.substr(at + key.size()).starts_with('0');
}

bool may_be_filtered() noexcept {
#if defined(__linux__)
  const int file = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return true;
  }
  char text[4096];
  const ssize_t length = read(file, text, sizeof text);
  close(file);
  return length <= 0 || names_filter({text, static_cast<std::size_t>(length)});
#else
  return false;
#endif
}

}  // namespace asio_pulse::detail
