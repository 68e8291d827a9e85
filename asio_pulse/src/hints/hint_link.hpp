// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "hint_watch.hpp"

#include <asio_pulse/bpf/control_block.h>
#include <asio_pulse/bpf/words.hpp>
#include <asio_pulse/options.hpp>

#include <cstdint>
#include <memory>

/// \file
/// A worker's end of its control block.

namespace asio_pulse::detail {

class context_core;

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
  write_word(block.last_ack_seq, sequence, std::memory_order_release);
}

}  // namespace asio_pulse::detail
