// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

/// \file
/// Reads the files of the process's modules without keeping descriptors open.

namespace asio_pulse::detail {

/// A file that is mapped to be read. It is an element of a linked list.
struct module_image {
  void* bytes = nullptr;
  std::size_t size = 0;
  module_image* next = nullptr;
};

/// \par Errors  Null if it is not a regular file, or cannot be read.
[[nodiscard]] module_image* map_module(const char* path) noexcept;

/// Unmaps all files of the list.
void unmap_modules(module_image* first) noexcept;

}  // namespace asio_pulse::detail
