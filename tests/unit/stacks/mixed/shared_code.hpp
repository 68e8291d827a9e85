// SPDX-License-Identifier: BSL-1.0
#pragma once

// The size depends on the file that includes this. The linker keeps one of the functions.
#if !defined(STEP_BYTES)
#define STEP_BYTES 8
#endif

#define MIXED_TEXT(x) #x
#define MIXED_STEP(bytes) \
  value = value * 7 + 1;  \
  asm volatile(".skip " MIXED_TEXT(bytes) ", 0x90" : "+r"(value));

// clang-format off: the debug information needs several lines
__attribute__((noinline, visibility("default"))) inline unsigned shared_code(unsigned value) {
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  MIXED_STEP(STEP_BYTES)
  return value;
}
// clang-format on

#define MIXED_EXPORT extern "C" __attribute__((noinline, visibility("default")))
