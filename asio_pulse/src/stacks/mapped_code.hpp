// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace asio_pulse::detail {

/// A file with code that is mapped in this process, from the address of its first byte on.
struct mapped_code {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  std::string path;  ///< as the kernel shows it; "[vdso]" for that
};

/// The code that is mapped now, sorted by address. It is read from the kernel's list. The loader
/// has a list as well, but a thread that is stuck in dlopen() may hold its lock.
///
/// Files that are mapped only to be read are in the kernel's list as well (libdw maps every file
/// that it reads), perhaps directly below the place where the same file is loaded. They have no
/// executable part, and start with the first byte of the file.
///
/// \par Errors  std::bad_alloc. Empty if there is no /proc.
std::vector<mapped_code> read_mapped_code();

}  // namespace asio_pulse::detail
