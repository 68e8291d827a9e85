// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// Which sanitizer the program is compiled with. gcc defines macros, clang has features.

#if defined(__SANITIZE_ADDRESS__)
#define ASIO_PULSE_DETAIL_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define ASIO_PULSE_DETAIL_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASIO_PULSE_DETAIL_ASAN 1
#elif __has_feature(thread_sanitizer)
#define ASIO_PULSE_DETAIL_TSAN 1
#endif
#endif
