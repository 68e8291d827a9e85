// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace asio_pulse::detail {

/// A small value that one thread at a time replaces while others read it. Readers never see parts
/// of two values, and never wait: a writer that loses its CPU delays no reader.
///
/// Each value gets a version, and is written into the next slot of a ring. Then the version is
/// published. A reader copies the slot of the version that it has read. The copy is whole unless
/// the writer came back to this slot meanwhile, which takes at least `slots - 1` new values. Then
/// the reader tries again.
///
/// \par Cost           get(): a load for each word and two more, no store. No allocation: the
///                     memory is the same however often the value is replaced.
/// \par Thread safety  get(): any thread. set(): one thread at a time.
/// \par Memory order   A word is stored with release, after the version that was published before,
///                     and loaded with acquire, before the version is checked. So a reader that
///                     sees a word of a later round also sees that the version has moved on. The
///                     version is sequentially consistent, for readers that have to see either the
///                     new value or, in another atomic, what the writer stores after set(); see
///                     context_core::show_attention().
template <class T>
class published_value {
  static_assert(std::is_trivially_copyable_v<T> && std::is_default_constructible_v<T>);
  static constexpr std::size_t slots = 4;
  using words = std::array<std::uint64_t, (sizeof(T) + 7) / 8>;

 public:
  explicit published_value(const T& value) noexcept { set(value); }

  void set(const T& value) noexcept {
    words copy{};
    std::memcpy(copy.data(), &value, sizeof value);
    const std::uint64_t next = version_.load(std::memory_order_relaxed) + 1;
    auto& slot = slots_[next % slots];
    for (std::size_t i = 0; i < copy.size(); ++i) {
      slot[i].store(copy[i], std::memory_order_release);
    }
    version_.store(next, std::memory_order_seq_cst);
  }

  [[nodiscard]] T get() const noexcept {
    for (;;) {
      const std::uint64_t version = version_.load(std::memory_order_seq_cst);
      const auto& slot = slots_[version % slots];
      words copy;
      for (std::size_t i = 0; i < copy.size(); ++i) {
        copy[i] = slot[i].load(std::memory_order_acquire);
      }
      if (version_.load(std::memory_order_relaxed) - version < slots - 1) {
        T value;
        std::memcpy(static_cast<void*>(&value), copy.data(), sizeof value);
        return value;
      }
    }
  }

 private:
  std::array<std::array<std::atomic<std::uint64_t>, words{}.size()>, slots> slots_{};
  std::atomic<std::uint64_t> version_{0};
};

}  // namespace asio_pulse::detail
