// SPDX-License-Identifier: BSL-1.0
#pragma once

// Which sanitizer the tests are compiled with: gcc says it by macros, clang by features.

#if defined(__SANITIZE_ADDRESS__)
#define PULSE_TEST_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define PULSE_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PULSE_TEST_ASAN 1
#elif __has_feature(thread_sanitizer)
#define PULSE_TEST_TSAN 1
#endif
#if __has_feature(undefined_behavior_sanitizer)
#define PULSE_TEST_CLANG_UBSAN 1
#endif
#endif

namespace pulse_test {
#if defined(PULSE_TEST_TSAN)
inline constexpr bool thread_sanitizer = true;
#else
inline constexpr bool thread_sanitizer = false;
#endif
#if defined(PULSE_TEST_ASAN)
inline constexpr bool address_sanitizer = true;
#else
inline constexpr bool address_sanitizer = false;
#endif
inline constexpr bool sanitized = thread_sanitizer || address_sanitizer;
/// clang's check of types at member calls reads the object through a pipe that it opens for it.
#if defined(PULSE_TEST_CLANG_UBSAN)
inline constexpr bool sanitizer_needs_descriptors = true;
#else
inline constexpr bool sanitizer_needs_descriptors = false;
#endif
}  // namespace pulse_test
