// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <type_traits>

/// \file
/// Atomic access to the words of a control block, which are plain integers, because C programs and
/// the sched_ext program share them. Relaxed unless said otherwise: most words publish nothing but
/// themselves.
///
/// std::atomic_ref would do the same, but libc++ has it only from version 19 on.

namespace asio_pulse::detail {

template <class T>
[[nodiscard]] T read_word(const T& word,
                          std::memory_order order = std::memory_order_relaxed) noexcept {
  static_assert(std::is_integral_v<T> && __atomic_always_lock_free(sizeof(T), nullptr));
  return __atomic_load_n(&word, static_cast<int>(order));
}

template <class T>
void write_word(T& word, std::type_identity_t<T> value,
                std::memory_order order = std::memory_order_relaxed) noexcept {
  static_assert(std::is_integral_v<T> && __atomic_always_lock_free(sizeof(T), nullptr));
  __atomic_store_n(&word, value, static_cast<int>(order));
}

}  // namespace asio_pulse::detail
