// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>

namespace worker {

/// The resident memory of this process.
inline double resident_bytes() {
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  unsigned long total = 0;
  unsigned long resident = 0;
  const bool read = file != nullptr && std::fscanf(file, "%lu %lu", &total, &resident) == 2;
  if (file != nullptr) std::fclose(file);
  if (!read) throw std::runtime_error("cannot read /proc/self/statm");
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

/// The memory that this process has allocated and not freed, including the allocator's overhead.
inline double allocated_bytes() {
  const struct mallinfo2 all = mallinfo2();
  return static_cast<double>(all.uordblks + all.hblkhd);
}

}  // namespace worker
