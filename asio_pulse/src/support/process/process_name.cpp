// SPDX-License-Identifier: BSL-1.0
#include "process_name.hpp"

#if defined(__linux__)
#include <unistd.h>

#include <array>
#include <string_view>
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
    std::string whole(path.data(), static_cast<std::size_t>(length));
    // The kernel's note that the file was removed, or replaced by a new version.
    constexpr std::string_view removed = " (deleted)";
    if (whole.ends_with(removed) && ::access(whole.c_str(), F_OK) != 0) {
      whole.resize(whole.size() - removed.size());
    }
    return whole.substr(whole.rfind('/') + 1);
  }
#endif
  return {};
}

}  // namespace asio_pulse::detail
