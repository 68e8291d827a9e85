// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// \file
/// Which memory that another process has sent may be mapped.

namespace asio_pulse::detail {

/// Checks that `slots` control blocks can be mapped from the descriptor and used as long as they
/// are mapped, whatever the sender does with its own copy of the descriptor. Returns why not, or
/// empty.
///
/// If a file is truncated, every process that has mapped it gets SIGBUS at the next access. Two
/// kinds of memory are accepted, for which the kernel excludes that:
/// - a memory file (memfd_create) with the seal F_SEAL_SHRINK, which cannot be removed;
/// - a BPF array, whose size never changes (scx_pulse sends one).
///
/// The check asks no file system, which could be a program that never answers (FUSE).
///
/// \par Cost    Up to five system calls; for a BPF array two files in /proc.
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string why_not_control_blocks(int fd, std::uint32_t slots);

/// The same check on the text in /proc/self/fdinfo about a BPF map. Pure.
[[nodiscard]] std::string why_not_control_blocks(std::string_view map_info, std::uint32_t slots);

}  // namespace asio_pulse::detail
