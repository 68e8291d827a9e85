// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// \file
/// Reads memory of this process without knowing what is mapped.

namespace asio_pulse::detail {

/// Ways to read memory that stop at the end of the mapping instead of causing a fault.
enum class memory_reader : std::uint8_t {
  none,        ///< nothing is read
  process_vm,  ///< process_vm_readv(2)
  file         ///< pread(2) from /proc/self/mem: slower, but allowed in any sandbox
};

/// Chooses how memory is read from now on: with process_vm_readv(2) if that works and there is no
/// seccomp filter, which may end the process for it. Otherwise from a file, which is opened now and
/// stays open. Not in signal handlers.
void choose_memory_reader(bool filtered) noexcept;

/// The last choice. Chooses if there was none, so signal handlers may call it only after a choice.
[[nodiscard]] memory_reader chosen_memory_reader() noexcept;

/// Opens the file of memory_reader::file, if it is not open. Returns false if it cannot be opened.
/// Not in signal handlers.
bool open_memory_file() noexcept;
/// For a forked child. If the file is open, it is the parent's memory; opens that of the child.
void renew_memory_file() noexcept;

/// Copies from `address` on, until `to` is full or memory is not readable. Returns the number of
/// bytes copied. The reader must have been chosen or opened before. memory_reader::file also reads
/// pages that the process may not access.
///
/// \par Cost           process_vm: about 3 us, and 2 us for each further 64 KiB. file: three times
///                     that.
/// \par Thread safety  Any thread, and signal handlers. Changes errno.
/// \par Errors         None. Memory that is not readable is not copied.
std::size_t copy_mapped(std::uintptr_t address, std::span<std::byte> to, memory_reader) noexcept;

}  // namespace asio_pulse::detail
