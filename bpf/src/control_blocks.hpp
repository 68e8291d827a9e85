// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/control_block.h>

#include <cstdint>
#include <span>

#include "service.hpp"

/// \file
/// The loader's own writes to control blocks. Each word by itself, since others read and write the
/// same memory meanwhile; nothing that is read there is believed.

namespace asio_pulse::scx {

/// Element 0, all but its reserved bytes.
void write_system_block(asio_pulse_scb& block, const system_state& state, std::uint64_t now_ns);

/// A worker's block for its next thread: both halves as if new, and REGISTERED. Before the
/// scheduler knows of the thread, so nobody else writes the kernel's half.
void prepare_block(asio_pulse_scb& block, std::uint32_t mode);

/// After the scheduler has forgotten the thread: it is told so, should it still read, and its CPU
/// time is published no more.
void retire_block(asio_pulse_scb& block);

/// Element 0, before the array is given up: nobody writes it any more.
void close_system_block(asio_pulse_scb& block);

/// CLOCK_MONOTONIC.
std::uint64_t monotonic_ns() noexcept;

}  // namespace asio_pulse::scx
