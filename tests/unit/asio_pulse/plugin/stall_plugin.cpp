// SPDX-License-Identifier: BSL-1.0

// A library that is loaded while the program runs, and calls back into it: built with debug
// information, without it, and stripped.

extern "C" __attribute__((visibility("default"), noinline)) void plugin_entry(void (*stall)()) {
  stall();
  asm volatile("" ::: "memory");  // no tail call
}
