// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// \file
/// The CPU quota of control groups, from the texts that the kernel gives. It opens no file.

namespace asio_pulse::detail {

/// No limit.
inline constexpr std::size_t no_quota = static_cast<std::size_t>(-1);

/// The CPUs that a group's `cpu.max` ("QUOTA PERIOD" or "max PERIOD", in microseconds) allows, rounded
/// up. no_quota if there is none, or the text is something else.
[[nodiscard]] std::size_t cpus_of_quota(std::string_view cpu_max) noexcept;

/// The process's group in the unified hierarchy, from /proc/self/cgroup: the path of the line "0::".
/// Empty if there is no such line.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string unified_group(std::string_view proc_self_cgroup);

}  // namespace asio_pulse::detail
