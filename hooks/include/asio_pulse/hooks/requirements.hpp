// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// Checks how a translation unit is compiled. If something is missing, the compiler prints one
/// sentence, and not an error for each line that needs it. For this purpose every public header
/// that a program may include first includes this file first, and a missing file ends the
/// compilation.

#if defined(_MSVC_LANG)
#define ASIO_PULSE_DETAIL_CPLUSPLUS _MSVC_LANG
#else
#define ASIO_PULSE_DETAIL_CPLUSPLUS __cplusplus
#endif

#if ASIO_PULSE_DETAIL_CPLUSPLUS <= 201703L
#error "asio_pulse: needs C++20: compile with -std=c++20 or later"
#include "the error above says what is missing"
#elif !defined(__cpp_exceptions)
#error \
    "asio_pulse: needs exceptions, as Boost.Asio's coroutines do: compile without -fno-exceptions"
#include "the error above says what is missing"
#endif

// The interface of the compiled library uses the standard library. The CMake and pkg-config files
// define which one it was compiled with.
#include <version>
#if defined(_LIBCPP_VERSION) && !defined(ASIO_PULSE_LIBCXX)
#error \
    "asio_pulse: this asio-pulse was built with libstdc++, and this program with libc++: build asio-pulse and {fmt} with -stdlib=libc++"
#include "the error above says what is missing"
#elif !defined(_LIBCPP_VERSION) && defined(ASIO_PULSE_LIBCXX)
#error \
    "asio_pulse: this asio-pulse was built with libc++: compile the program with -stdlib=libc++, too"
#include "the error above says what is missing"
#endif

// The awaitable.hpp of Boost 1.74 uses std::exchange without it.
#include <utility>
