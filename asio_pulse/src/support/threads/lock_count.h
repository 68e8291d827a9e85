#ifndef ASIO_PULSE_LOCK_COUNT_H
#define ASIO_PULSE_LOCK_COUNT_H

/* What asio_pulse::lock_count tells the library: how many locks the code on this thread holds. The library has weak
 * definitions, which asio_pulse::lock_count replaces. Definitions, because an undefined weak thread-local is not null: it is
 * the thread's own block. */

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The locks that are held: how many, and the sum of their addresses. If a thread has taken one lock and released another, the
 * sum is not zero either. The same as in detail/fiber_stack.hpp, which is installed. */
#ifndef ASIO_PULSE_HELD_LOCKS
#define ASIO_PULSE_HELD_LOCKS
struct asio_pulse_held_locks {
  int count;
  uintptr_t sum;
};
#endif

/* Only its own thread, and signal handlers on it, use them. */
extern __thread struct asio_pulse_held_locks asio_pulse_locks_held;
/* The lock that this thread has taken last. Not to be dereferenced: it may be gone. */
extern __thread const void* asio_pulse_lock_taken;
/* 1 if locks are counted. Constant. */
extern int asio_pulse_locks_are_counted;

#ifdef __cplusplus
}
#endif

#endif
