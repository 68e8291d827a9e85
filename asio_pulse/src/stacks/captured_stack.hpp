// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

/// \file
/// The copy of a stuck thread's stack.

namespace asio_pulse::detail {

/// The registers of a thread, and the memory around and above its stack pointer.
struct captured_stack {
#if defined(__x86_64__)
  // DWARF's numbers: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 ... r15, rip.
  static constexpr std::size_t register_count = 17;
  static constexpr std::size_t stack_register = 7;
  static constexpr std::size_t program_counter = 16;
#elif defined(__aarch64__)
  // DWARF's numbers: x0 ... x30, sp; then the program counter, which has none.
  static constexpr std::size_t register_count = 33;
  static constexpr std::size_t stack_register = 31;
  static constexpr std::size_t program_counter = 32;
#else
  static constexpr std::size_t register_count = 2;  // never filled
  static constexpr std::size_t stack_register = 0;
  static constexpr std::size_t program_counter = 1;
#endif

  std::array<std::uint64_t, register_count> registers{};
  std::uintptr_t address = 0;          ///< of the first byte: stack_pointer() less the red zone
  std::span<const std::byte> bytes{};  ///< the memory from there on
  bool truncated = false;              ///< the stack continues beyond the copy
  /// Only two registers are known: the stack pointer and the program counter.
  bool only_position = false;

  [[nodiscard]] std::uintptr_t pc() const noexcept {
    return static_cast<std::uintptr_t>(registers[program_counter]);
  }
  [[nodiscard]] std::uintptr_t stack_pointer() const noexcept {
    return static_cast<std::uintptr_t>(registers[stack_register]);
  }
};

}  // namespace asio_pulse::detail
