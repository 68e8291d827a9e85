// SPDX-License-Identifier: BSL-1.0

// The tests of automatic checkpoints with several threads. asio_pulse::lock_count cannot be linked here,
// so the program says that its locks are counted; no check in these tests is under a lock.

#include "handlers_test.cpp"
#include "places_test.cpp"
#include "threads_test.cpp"

extern "C" {
extern int asio_pulse_locks_are_counted;
int asio_pulse_locks_are_counted = 1;
}
