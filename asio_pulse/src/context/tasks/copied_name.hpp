// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstring>
#include <memory>
#include <string_view>

namespace asio_pulse::detail {

/// A null-terminated copy, for the names of tasks and groups.
///
/// \par Errors  std::bad_alloc.
inline std::unique_ptr<char[]> copy_name(std::string_view name) {
  auto copy = std::make_unique<char[]>(name.size() + 1);
  std::memcpy(copy.get(), name.data(), name.size());
  return copy;
}

}  // namespace asio_pulse::detail
