// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// ASIO_PULSE_ASSERT(condition): a condition that the following code relies on. If assertions are
/// on (ASIO_PULSE_ASSERTIONS=1, which the CMake option of that name defines for the whole program)
/// and the condition is false, it is printed with its place, and the program aborts. Otherwise the
/// condition is compiled but not evaluated, so that it costs nothing and still has to be correct.
///
/// It is for mistakes in this library, never for errors of a user or of the system.

namespace asio_pulse::hooks::detail {

/// Prints one line on stderr and aborts. Async-signal-safe.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line,
                                   const char* function) noexcept;

}  // namespace asio_pulse::hooks::detail

#if defined(ASIO_PULSE_ASSERTIONS) && ASIO_PULSE_ASSERTIONS
#define ASIO_PULSE_ASSERT(...)                                                     \
  (static_cast<bool>(__VA_ARGS__) ? static_cast<void>(0)                           \
                                  : ::asio_pulse::hooks::detail::assertion_failed( \
                                        #__VA_ARGS__, __FILE__, __LINE__, __func__))
#else
#define ASIO_PULSE_ASSERT(...) static_cast<void>(sizeof(static_cast<bool>(__VA_ARGS__)))
#endif
