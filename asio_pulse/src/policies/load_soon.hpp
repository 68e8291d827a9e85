// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

namespace asio_pulse::detail {

/// Loads the cache lines of an object that is used soon. The object is not read, so it may have ended; it
/// may be null.
template <class T>
void load_soon(const T* object) noexcept {
#if defined(__GNUC__)
  if (object == nullptr) return;
  constexpr std::size_t line = 64;
  const auto* const bytes = reinterpret_cast<const char*>(object);
  for (std::size_t at = 0; at < sizeof(T); at += line) __builtin_prefetch(bytes + at);
  // The allocator does not align it to a line.
  if constexpr (alignof(T) < line && sizeof(T) > 1) __builtin_prefetch(bytes + sizeof(T) - 1);
#else
  static_cast<void>(object);
#endif
}

}  // namespace asio_pulse::detail
