// SPDX-License-Identifier: BSL-1.0
#include "process_name.hpp"

#if defined(__linux__)
#include <unistd.h>

#include <array>
#endif

namespace asio_pulse::detail {

std::uint64_t this_process_number() noexcept {
#if defined(__linux__)
  return static_cast<std::uint64_t>(::getpid());
#else
  return 0;
#endif
}

std::string this_program() {
#if defined(__linux__)
  std::array<char, 4096> path;
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  if (length > 0) {
    const std::string whole(path.data(), static_cast<std::size_t>(length));
    return whole.substr(whole.rfind('/') + 1);
  }
#endif
  return {};
}

}  // namespace asio_pulse::detail
