// SPDX-License-Identifier: BSL-1.0
#include "cpu_quota.hpp"

#include <charconv>
#include <cstdint>
#include <system_error>

namespace asio_pulse::detail {

std::size_t cpus_of_quota(std::string_view cpu_max) noexcept {
  std::uint64_t quota = 0;
  std::uint64_t period = 0;
  const char* const end = cpu_max.data() + cpu_max.size();
  const auto first = std::from_chars(cpu_max.data(), end, quota);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != ' ') return no_quota;
  const auto second = std::from_chars(first.ptr + 1, end, period);
  if (second.ec != std::errc{} || quota == 0 || period == 0) return no_quota;
  return static_cast<std::size_t>(quota / period + (quota % period != 0 ? 1 : 0));
}

std::string unified_group(std::string_view proc_self_cgroup) {
  while (!proc_self_cgroup.empty()) {
    const std::string_view line = proc_self_cgroup.substr(0, proc_self_cgroup.find('\n'));
    if (line.starts_with("0::")) return std::string(line.substr(3));
    proc_self_cgroup.remove_prefix(line.size() == proc_self_cgroup.size() ? line.size()
                                                                          : line.size() + 1);
  }
  return {};
}

}  // namespace asio_pulse::detail
