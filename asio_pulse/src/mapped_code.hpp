// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace asio_pulse::detail {

/// A file that this process runs code of, from its first byte's address on.
struct mapped_code {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  std::string path;  ///< as the kernel shows it; "[vdso]" for that
};

/// What is mapped now, by address. By the kernel's list and not the loader's, whose lock a thread
/// that is stuck in dlopen() may hold.
///
/// A file that somebody reads by mapping it is in the kernel's list too (libdw does so with every
/// file that it looks at), perhaps right below where the same file is loaded. It has no executable
/// part, and starts with the file's first byte again.
///
/// \par Errors  std::bad_alloc. Empty where there is no /proc.
std::vector<mapped_code> read_mapped_code();

}  // namespace asio_pulse::detail
