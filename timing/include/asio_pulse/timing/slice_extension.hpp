// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::timing {

/// The words of a thread's rseq area by which it asks the kernel for a few more microseconds when
/// its slice ends in a short critical section: the rseq slice extension, from Linux 7.0 where it is
/// configured.
///
/// \par Layout         The kernel's struct rseq_slice_ctrl.
/// \par Thread safety  Its own thread's, and the kernel's on the same CPU: relaxed atomics, and
///                     compiler barriers where the order matters.
/// \par Source         Linux, Documentation/userspace-api/rseq.rst.
struct slice_control {
  std::atomic<std::uint8_t> request{0};  ///< set by the thread; cleared by it, or by a grant
  std::atomic<std::uint8_t> granted{0};  ///< set by the kernel: the thread stays, and owes a yield
  std::uint16_t reserved{0};

  /// A section begins that had better not be interrupted.
  void enter() noexcept {
    request.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

  /// It is over. True: time was granted and used, and the kernel waits for yield_slice().
  ///
  /// \par Cost  One exchange on this thread's own cache line.
  [[nodiscard]] bool leave() noexcept {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (request.exchange(0, std::memory_order_relaxed) != 0) return false;
    return granted.load(std::memory_order_relaxed) != 0;
  }
};
static_assert(sizeof(slice_control) == 4);
static_assert(offsetof(slice_control, granted) == 1);

/// Switches the extension on for the calling thread. Null where this kernel, C library or machine
/// has none; found by asking, never by version.
///
/// \par Cost    A system call.
[[nodiscard]] slice_control* enable_slice_extension() noexcept;

/// Gives the CPU back after leave() has said so: rseq_slice_yield(2), which the kernel tells from
/// any other system call.
void yield_slice() noexcept;

}  // namespace asio_pulse::timing
