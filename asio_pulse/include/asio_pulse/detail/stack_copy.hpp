// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// \file
/// Reads this process's own memory where nobody knows what is mapped.

namespace asio_pulse::detail {

/// Ways to read that end where the mapping ends, without a fault.
enum class memory_reader : std::uint8_t {
  none,        ///< nothing is read
  process_vm,  ///< process_vm_readv(2): one system call; some sandboxes refuse it
  pipe         ///< through a pipe, a page at a time: write(2) says EFAULT; one user at a time
};

/// The best way that works here: tried once. Not in signal handlers.
memory_reader best_memory_reader() noexcept;

/// Copies from `address` on, until `to` is full or something is not readable. Returns the number of
/// bytes copied. best_memory_reader() has been called before.
///
/// \par Cost           process_vm: about 3 us, and 2 us for each further 64 KiB. pipe: three times
///                     that.
/// \par Thread safety  Any thread, and signal handlers. Changes errno.
/// \par Errors         None: what is not readable is not copied; a busy pipe copies nothing.
std::size_t copy_mapped(std::uintptr_t address, std::span<std::byte> to, memory_reader) noexcept;

}  // namespace asio_pulse::detail
