// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

/// \file
/// What shards need of the operating system.

namespace asio_pulse::detail {

/// How many shards this process can make use of: the CPUs that it may run on (affinity), but no more
/// than its control groups' quota, rounded up. At least 1.
///
/// \par Cost    Some system calls, and reading a few files.
/// \par Errors  std::bad_alloc. What cannot be read is no limit.
[[nodiscard]] std::size_t usable_cpus();

/// Empty if this process may run on each of the CPUs. Otherwise a text that names the first one that
/// does not exist or is not allowed. Where affinity cannot be read, no CPU is refused.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string invalid_cpus(const std::vector<int>& cpus);

/// The CPUs that this process may run on, in ascending order. Empty if they cannot be read.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::vector<int> allowed_cpus();

/// Pins the calling thread to one CPU. Returns false if the system refuses.
[[nodiscard]] bool pin_this_thread(int cpu) noexcept;

/// Names the calling thread "shard/N".
void name_shard_thread(std::size_t shard) noexcept;

/// The CPU time of the calling thread.
///
/// \par Cost  A system call.
[[nodiscard]] std::chrono::nanoseconds thread_cpu_time() noexcept;

}  // namespace asio_pulse::detail
