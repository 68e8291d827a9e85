// SPDX-License-Identifier: BSL-1.0

#if defined(ASIO_PULSE_HAVE_LIBDW)

#include "libdw_memory.hpp"

#include <asio_pulse/hooks/assert.hpp>

#include <csetjmp>
#include <cstddef>
#include <exception>
#include <new>
#include <utility>

namespace asio_pulse::detail {
namespace {

// More than libdw allocates at a time for a program with hundreds of units. Less than the size from
// which the C library maps each allocation and returns it to the system at once.
constexpr std::size_t at_hand = std::size_t{96} << 10;

constinit thread_local std::jmp_buf* way_out = nullptr;

// An attribute of the type, as libdw declares it; that of C++ is none.
__attribute__((noreturn)) void leave() {
  // The handler of libdw must not return, so this is the only way to report the failure.
  if (std::jmp_buf* const to = std::exchange(way_out, nullptr)) {
    std::longjmp(*to, 1);  // NOLINT(cert-err52-cpp,modernize-avoid-setjmp-longjmp)
  }
  std::terminate();
}

}  // namespace

bool call_libdw(void (*body)(void*), void* of) noexcept {
  ASIO_PULSE_ASSERT(way_out == nullptr);
  std::jmp_buf here;
  // No local variable changes between the two returns of setjmp().
  if (setjmp(here) != 0) return false;  // NOLINT(cert-err52-cpp,modernize-avoid-setjmp-longjmp)
  way_out = &here;
  body(of);
  way_out = nullptr;
  return true;
}

void need_memory() {
  void* const some = ::operator new(at_hand);
  asm volatile("" : : "r"(some) : "memory");  // otherwise the compiler removes both
  ::operator delete(some);
}

void leave_when_out_of_memory(Dwarf* debug) noexcept {
  if (debug != nullptr) dwarf_new_oom_handler(debug, leave);
}

}  // namespace asio_pulse::detail

#endif
