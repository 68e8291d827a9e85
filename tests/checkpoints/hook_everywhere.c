/* Linked to programs that know nothing of hooks: calls the hook of cases/hooked.h at every check, and prints at the end how often that was. */
#include "cases/hooked.h"

__attribute__((constructor)) ASIO_PULSE_NO_AUTO_CHECKPOINTS static void start(void) { hooked_start(); }
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void report(void) { fprintf(stderr, "checks %lu\n", hooked_calls); }
__attribute__((constructor)) ASIO_PULSE_NO_AUTO_CHECKPOINTS static void at_end(void) { atexit(report); }
