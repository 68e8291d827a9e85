// SPDX-License-Identifier: BSL-1.0
#include "rseq_area.hpp"

#include <asio_pulse/timing/slice_extension.hpp>

#if defined(__linux__) && defined(__x86_64__)
#include <sys/prctl.h>
#include <unistd.h>
#endif

namespace asio_pulse::timing {

#if defined(__linux__) && defined(__x86_64__)
namespace {

// These are newer than the kernel headers of most distributions.
constexpr int slice_extension = 79;            // PR_RSEQ_SLICE_EXTENSION
constexpr unsigned long set_command = 2;       // PR_RSEQ_SLICE_EXTENSION_SET
constexpr unsigned long enable = 1;            // PR_RSEQ_SLICE_EXT_ENABLE
constexpr long rseq_slice_yield = 471;         // the same on every architecture
constexpr std::ptrdiff_t word_offset = 8;      // of rseq_cs in struct rseq
constexpr std::ptrdiff_t control_offset = 28;  // of slice_ctrl: within the first version's 32 bytes

}  // namespace

slice_control* enable_slice_extension() noexcept {
  auto* const word = detail::rseq_word();
  if (word == nullptr) return nullptr;
  if (::prctl(slice_extension, set_command, enable, 0UL, 0UL) != 0) return nullptr;
  return reinterpret_cast<slice_control*>(reinterpret_cast<char*>(word) - word_offset +
                                          control_offset);
}

void yield_slice() noexcept { ::syscall(rseq_slice_yield); }

#else

slice_control* enable_slice_extension() noexcept { return nullptr; }
void yield_slice() noexcept {}

#endif

}  // namespace asio_pulse::timing
