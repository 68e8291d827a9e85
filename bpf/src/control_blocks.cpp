// SPDX-License-Identifier: BSL-1.0
#include "control_blocks.hpp"

#include <time.h>

#include <atomic>
#include <limits>

namespace asio_pulse::scx {
namespace {

// Relaxed: the words are independent.
template <typename Word>
void put(Word& word, Word value) noexcept {
  std::atomic_ref<Word>(word).store(value, std::memory_order_relaxed);
}

}  // namespace

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
  put(system.abi_version, std::uint32_t{ASIO_PULSE_ABI_VERSION});
  put(system.mode, static_cast<std::uint8_t>(state.settings.mode));
  put(system.cpu_pressure, state.pressure.cpu);
  put(system.io_pressure, state.pressure.io);
  put(system.memory_pressure, state.pressure.memory);
  put(system.queued, state.queued);
  put(system.cpus, state.cpus);
  put(system.slice_ns, state.settings.slice_ns);
  put(system.grace_ns, state.settings.grace_ns);
  put(system.max_critical_ns, state.settings.max_critical_ns);
  // Last, and with release: a reader that sees the new time sees the new words.
  std::atomic_ref<std::uint64_t>(system.updated_ns).store(now_ns, std::memory_order_release);
}

void prepare_block(asio_pulse_scb& block, std::uint32_t mode) {
  put(block.worker_state, std::uint8_t{ASIO_PULSE_WORKER_INIT});
  put(block.cpu_sequence, std::uint64_t{0});
  put(block.run_ns, std::uint64_t{0});
  put(block.run_start_ns, std::uint64_t{0});
  put(block.preempt_seq, std::uint64_t{0});
  put(block.budget_ns, std::int64_t{0});
  put(block.lost_hints, std::uint32_t{0});
  put(block.pressure, std::uint8_t{0});
  put(block.mode, static_cast<std::uint8_t>(mode));
  put(block.kernel_pad, std::uint8_t{0});
  put(block.escalations, std::uint32_t{0});
  put(block.violations, std::uint32_t{0});
  put(block.kernel_reserved, std::uint64_t{0});

  put(block.last_ack_seq, std::uint64_t{0});
  put(block.acks, std::uint64_t{0});
  put(block.priority, std::uint16_t{ASIO_PULSE_PRIORITY_DEFAULT});
  put(block.critical, std::uint8_t{0});
  put(block.escapable, std::uint8_t{0});
  put(block.policy, std::uint8_t{ASIO_PULSE_POLICY_NONE});
  put(block.yield_reason, std::uint8_t{ASIO_PULSE_YIELD_NONE});
  put(block.determinism, std::uint8_t{ASIO_PULSE_DETERMINISTIC});
  for (std::uint8_t& byte : block.runtime_pad) put(byte, std::uint8_t{0});

  put(block.worker_state, std::uint8_t{ASIO_PULSE_WORKER_REGISTERED});
}

void retire_block(asio_pulse_scb& block) {
  // An odd value means that CPU time is no longer published. The program can write this memory, so
  // the word may have any value.
  std::atomic_ref<std::uint64_t> sequence(block.cpu_sequence);
  sequence.store(sequence.load(std::memory_order_relaxed) | 1U, std::memory_order_relaxed);
  put(block.mode, std::uint8_t{ASIO_PULSE_MODE_NONE});
  put(block.worker_state, std::uint8_t{ASIO_PULSE_WORKER_DEAD});
}

void close_system_block(asio_pulse_scb& block) {
  put(reinterpret_cast<asio_pulse_system&>(block).mode, std::uint8_t{ASIO_PULSE_MODE_NONE});
}

}  // namespace asio_pulse::scx
