// SPDX-License-Identifier: BSL-1.0

// The sanitizers' run-time options, compiled in, so that a test stops at its first finding however
// it is started. Environment variables (ASAN_OPTIONS, TSAN_OPTIONS, UBSAN_OPTIONS) still win.

extern "C" {
const char* __asan_default_options();
const char* __ubsan_default_options();
const char* __tsan_default_options();

const char* __asan_default_options() {
  return "detect_leaks=1:halt_on_error=1:abort_on_error=0:detect_stack_use_after_return=0:"
         "strict_string_checks=1:check_initialization_order=1:strict_init_order=1";
}

const char* __ubsan_default_options() { return "halt_on_error=1:print_stacktrace=1"; }

// history_size=4: 512 Ki accesses a thread remembered, so that both stacks of a report are there.
const char* __tsan_default_options() {
  return "halt_on_error=1:second_deadlock_stack=1:history_size=4";
}
}
