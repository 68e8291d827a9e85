// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace asio_pulse::timing {

/// The bytes of a thread's rseq area with which it asks the kernel for a few more microseconds if
/// its slice ends in a short critical section. This is the rseq slice extension, which Linux has
/// from 7.0 on if it is configured.
///
/// \par Layout         The kernel's struct rseq_slice_ctrl.
/// \par Thread safety  Only its own thread uses it, and the kernel on the same CPU. Relaxed atomics
///                     suffice, with compiler barriers where the order matters.
/// \par Source         Linux, Documentation/userspace-api/rseq.rst.
struct slice_control {
  std::atomic<std::uint8_t> request{0};  ///< set by the thread; cleared by it, or by a grant
  std::atomic<std::uint8_t> granted{0};  ///< set by the kernel: time granted, a yield must follow
  std::uint16_t reserved{0};

  /// A section begins that should not be interrupted.
  void enter() noexcept {
    request.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

  /// The section ends. Returns true if time was granted and used; then yield_slice() must be
  /// called.
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

/// Switches the extension on for the calling thread. Null if the kernel, the C library or the
/// machine does not have it, which is found out by trying and not by a version.
///
/// \par Cost    A system call.
[[nodiscard]] slice_control* enable_slice_extension() noexcept;

/// Yields the CPU after leave() has returned true, with rseq_slice_yield(2), which the kernel tells
/// from any other system call.
void yield_slice() noexcept;

}  // namespace asio_pulse::timing
