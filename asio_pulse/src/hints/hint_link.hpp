// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "hint_watch.hpp"

#include <asio_pulse/bpf/control_block.h>
#include <asio_pulse/options.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

/// \file
/// A worker's end of its control block.

namespace asio_pulse::detail {

class context_core;

/// Accesses the words of a control block atomically. Relaxed unless said otherwise, because no word
/// publishes anything but itself.
template <class T>
[[nodiscard]] T read_word(const T& word) noexcept {
  return std::atomic_ref<T>(const_cast<T&>(word)).load(std::memory_order_relaxed);
}
template <class T>
void write_word(T& word, std::type_identity_t<T> value) noexcept {
  std::atomic_ref<T>(word).store(value, std::memory_order_relaxed);
}

/// The link of one worker. Once the worker has taken it, it belongs to the worker; see hint_hub.
struct hint_link {
  explicit hint_link(timing::ticks calm) noexcept : watch(calm) {}

  hint_watch watch;
  asio_pulse_scb* block = nullptr;
  /// Keeps the block's memory mapped.
  std::shared_ptr<void> memory;
  hint_source source = hint_source::off;
  bool scheduled = false;  ///< the thread has to become SCHED_EXT
  std::uint32_t slot = 0;
  std::uint32_t session = 0;  ///< the session of the connection that the slot is from
};

/// Acknowledges to the source that the worker has reacted to `sequence`.
///
/// \par Memory order  The sequence is stored with release: a source that sees it also sees the
///                    reason.
inline void acknowledge(asio_pulse_scb& block, std::uint64_t sequence,
                        std::uint8_t reason) noexcept {
  write_word(block.yield_reason, reason);
  write_word(block.acks, read_word(block.acks) + 1);
  std::atomic_ref<std::uint64_t>(block.last_ack_seq).store(sequence, std::memory_order_release);
}

}  // namespace asio_pulse::detail
