// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {

/// The word of the calling thread's rseq area that names its critical section; null where this
/// thread has no registered area (old C library, GLIBC_TUNABLES=glibc.pthread.rseq=0, an emulator).
///
/// \par Source  glibc 2.35, sys/rseq.h: the area is at the thread pointer plus __rseq_offset.
[[nodiscard]] std::atomic<std::uint64_t>* rseq_word() noexcept;

/// Why rseq_word() is null on this thread, or a description of the area.
[[nodiscard]] const char* rseq_state() noexcept;

/// Whether the value is the address of one of our descriptors.
[[nodiscard]] bool is_our_descriptor(std::uint64_t value) noexcept;

/// Another descriptor of ours than the last few handed out on this thread; 0 if there are none.
///
/// The descriptors lie in a page of data that is never unmapped (a thread's word may still point
/// at it when this library is unloaded, and the kernel kills a thread whose word is bad). They
/// describe a section inside that page, which is not executable, so no instruction is ever inside
/// and the kernel never jumps to the abort address. That address is preceded by RSEQ_SIG all the
/// same: the kernel checks it.
[[nodiscard]] std::uint64_t next_descriptor() noexcept;

/// Takes our descriptor out of the thread's word, if it is there.
void disarm_rseq() noexcept;

}  // namespace asio_pulse::detail
