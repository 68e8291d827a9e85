// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/control_block.h>

#include <asio_pulse/detail/hint_watch.hpp>
#include <asio_pulse/options.hpp>
#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

/// \file
/// A worker's end of its control block, whoever writes the other half.

namespace asio_pulse::detail {

class context_core;

/// Words of a control block, each read and written whole. Relaxed unless said otherwise: none of
/// them publishes anything but itself.
template <class T>
[[nodiscard]] T read_word(const T& word) noexcept {
  return std::atomic_ref<T>(const_cast<T&>(word)).load(std::memory_order_relaxed);
}
template <class T>
void write_word(T& word, std::type_identity_t<T> value) noexcept {
  std::atomic_ref<T>(word).store(value, std::memory_order_relaxed);
}

/// One worker's. Belongs to the worker from when it takes it; see hint_hub.
struct hint_link {
  explicit hint_link(timing::ticks calm) noexcept : watch(calm) {}

  hint_watch watch;
  asio_pulse_scb* block = nullptr;
  /// Keeps the block's memory mapped.
  std::shared_ptr<void> memory;
  hint_source source = hint_source::off;
  bool scheduled = false;  ///< its thread is to be SCHED_EXT
  std::uint32_t slot = 0;
  std::uint32_t session = 0;  ///< of the connection that the slot is from
  /// Why the next acknowledgement will have been made; ASIO_PULSE_YIELD_NONE: its poll just ended.
  std::uint8_t reason = ASIO_PULSE_YIELD_NONE;
};

/// Tells whoever writes the other half that `sequence` has been acted upon.
///
/// \par Memory order  The sequence is a release: who sees it sees why.
inline void acknowledge(asio_pulse_scb& block, std::uint64_t sequence,
                        std::uint8_t reason) noexcept {
  write_word(block.yield_reason, reason);
  write_word(block.acks, read_word(block.acks) + 1);
  std::atomic_ref<std::uint64_t>(block.last_ack_seq).store(sequence, std::memory_order_release);
}

}  // namespace asio_pulse::detail
