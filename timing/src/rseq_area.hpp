// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {

/// The word of the calling thread's rseq area that names its critical section. Null if the thread
/// has no registered area (old C library, GLIBC_TUNABLES=glibc.pthread.rseq=0, an emulator).
///
/// \par Source  glibc 2.35, sys/rseq.h: the area is at the thread pointer plus __rseq_offset.
[[nodiscard]] std::atomic<std::uint64_t>* rseq_word() noexcept;

/// Why rseq_word() is null on this thread, or a description of the area.
[[nodiscard]] const char* rseq_state() noexcept;

/// Whether the value is the address of one of our descriptors.
[[nodiscard]] bool is_our_descriptor(std::uint64_t value) noexcept;

/// A descriptor of ours that was not used recently on this thread; 0 if there are none.
///
/// The descriptors are in a page of data that is never unmapped: a thread's word may still point to
/// it when this library is unloaded, and the kernel kills a thread whose word is invalid. They
/// describe a section inside that page. The page is not executable, so no instruction is ever
/// inside the section, and the kernel never jumps to the abort address. The address is still
/// preceded by RSEQ_SIG, because the kernel checks that.
[[nodiscard]] std::uint64_t next_descriptor() noexcept;

/// Removes our descriptor from the thread's word, if it is there.
void disarm_rseq() noexcept;

}  // namespace asio_pulse::detail
