// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <elfutils/libdw.h>

/// \file
/// What to do when libdw gets no memory. By default it ends the process when an allocation fails.

namespace asio_pulse::detail {

/// Calls `body(of)`. If libdw gets no memory meanwhile, the call is left with longjmp(), because an
/// exception must not pass through the C functions of libdw. So neither `body` nor the functions
/// that it calls may own anything while they call libdw.
///
/// \par Thread safety  Any thread. Calls must not be nested.
/// \par Errors         Returns false if there was no memory. libdw may have been interrupted at any
///                     point, so the session must be ended and not used otherwise.
[[nodiscard]] bool call_libdw(void (*body)(void*), void* of) noexcept;

template <class Body>
[[nodiscard]] bool call_libdw(Body body) noexcept {
  return call_libdw([](void* of) { (*static_cast<Body*>(of))(); }, &body);
}

/// Checks that some memory is available. libdw does not check all of its allocations (in 0.188 not
/// those of its tables of abbreviations), so it should not be called without memory.
///
/// \par Errors  std::bad_alloc.
void need_memory();

/// Makes a failed allocation for `debug` end the call of call_libdw() in which it happens. From now
/// on `debug` must be used only inside call_libdw().
void leave_when_out_of_memory(Dwarf* debug) noexcept;

}  // namespace asio_pulse::detail
