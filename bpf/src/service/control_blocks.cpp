// SPDX-License-Identifier: BSL-1.0
#include "control_blocks.hpp"

#include <asio_pulse/bpf/words.hpp>

#include <time.h>

#include <atomic>
#include <limits>

namespace asio_pulse::scx {

using detail::read_word;
using detail::write_word;

std::uint64_t monotonic_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void write_system_block(asio_pulse_scb& block, const system_state& state, std::uint64_t now_ns) {
  static_assert(sizeof(asio_pulse_system) == sizeof(asio_pulse_scb));
  static_assert(alignof(asio_pulse_system) == alignof(asio_pulse_scb));
  auto& system = reinterpret_cast<asio_pulse_system&>(block);
  write_word(system.abi_version, std::uint32_t{ASIO_PULSE_ABI_VERSION});
  write_word(system.mode, static_cast<std::uint8_t>(state.settings.mode));
  write_word(system.cpu_pressure, state.pressure.cpu);
  write_word(system.io_pressure, state.pressure.io);
  write_word(system.memory_pressure, state.pressure.memory);
  write_word(system.queued, state.queued);
  write_word(system.cpus, state.cpus);
  write_word(system.slice_ns, state.settings.slice_ns);
  write_word(system.grace_ns, state.settings.grace_ns);
  write_word(system.max_critical_ns, state.settings.max_critical_ns);
  // Last, and with release: a reader that sees the new time sees the new words.
  write_word(system.updated_ns, now_ns, std::memory_order_release);
}

void prepare_block(asio_pulse_scb& block, std::uint32_t mode) {
  write_word(block.worker_state, std::uint8_t{ASIO_PULSE_WORKER_INIT});
  write_word(block.cpu_sequence, std::uint64_t{0});
  write_word(block.run_ns, std::uint64_t{0});
  write_word(block.run_start_ns, std::uint64_t{0});
  write_word(block.preempt_seq, std::uint64_t{0});
  write_word(block.budget_ns, std::int64_t{0});
  write_word(block.lost_hints, std::uint32_t{0});
  write_word(block.pressure, std::uint8_t{0});
  write_word(block.mode, static_cast<std::uint8_t>(mode));
  write_word(block.kernel_pad, std::uint8_t{0});
  write_word(block.escalations, std::uint32_t{0});
  write_word(block.violations, std::uint32_t{0});
  write_word(block.kernel_reserved, std::uint64_t{0});

  write_word(block.last_ack_seq, std::uint64_t{0});
  write_word(block.acks, std::uint64_t{0});
  write_word(block.priority, std::uint16_t{ASIO_PULSE_PRIORITY_DEFAULT});
  write_word(block.critical, std::uint8_t{0});
  write_word(block.escapable, std::uint8_t{0});
  write_word(block.policy, std::uint8_t{ASIO_PULSE_POLICY_NONE});
  write_word(block.yield_reason, std::uint8_t{ASIO_PULSE_YIELD_NONE});
  write_word(block.determinism, std::uint8_t{ASIO_PULSE_DETERMINISTIC});
  for (std::uint8_t& byte : block.runtime_pad) write_word(byte, std::uint8_t{0});

  write_word(block.worker_state, std::uint8_t{ASIO_PULSE_WORKER_REGISTERED});
}

void retire_block(asio_pulse_scb& block) {
  // An odd value means that CPU time is no longer published. The program can write this memory, so
  // the word may have any value.
  write_word(block.cpu_sequence, read_word(block.cpu_sequence) | 1U);
  write_word(block.mode, std::uint8_t{ASIO_PULSE_MODE_NONE});
  write_word(block.worker_state, std::uint8_t{ASIO_PULSE_WORKER_DEAD});
}

void close_system_block(asio_pulse_scb& block) {
  write_word(reinterpret_cast<asio_pulse_system&>(block).mode, std::uint8_t{ASIO_PULSE_MODE_NONE});
}

}  // namespace asio_pulse::scx
