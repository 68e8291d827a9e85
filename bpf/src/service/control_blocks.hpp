// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "service.hpp"

#include <asio_pulse/bpf/control_block.h>

#include <cstdint>
#include <span>

/// \file
/// The loader's own writes to control blocks. Each word is written separately, because others read
/// and write the same memory. Nothing that is read there is trusted.

namespace asio_pulse::scx {

/// Writes element 0 except its reserved bytes.
void write_system_block(asio_pulse_scb& block, const system_state& state, std::uint64_t now_ns);

/// Prepares a block for its next thread: both halves as if new, and REGISTERED. Called before the
/// scheduler knows the thread, so the scheduler does not write the kernel's half yet.
void prepare_block(asio_pulse_scb& block, std::uint32_t mode);

/// Called after the scheduler has forgotten the thread. The block then shows that, in case that the
/// thread still reads it, and CPU time is no longer published.
void retire_block(asio_pulse_scb& block);

/// Marks element 0 before the array is abandoned: it is not written any more.
void close_system_block(asio_pulse_scb& block);

/// CLOCK_MONOTONIC.
std::uint64_t monotonic_ns() noexcept;

}  // namespace asio_pulse::scx
