/* For the programs of this folder. Each runs its work with checks that call the hook every time, and prints results that must be
 * the same without checks. The hook leaves nothing as it was that a callee may change: it switches to another stack, overwrites
 * vector registers, errno and the stack's lower part, allocates, and comes back. */
#ifndef HOOKED_H
#define HOOKED_H
#include <asio_pulse/auto_checkpoint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#ifdef __cplusplus
#define HOOKED_SILENT noexcept
#else
#define HOOKED_SILENT
#endif

static volatile unsigned long hooked_calls;
static void* volatile hooked_place;
static void (*volatile hooked_extra)(void*);

#if defined(CHECKED)
static ucontext_t hooked_here, hooked_other;
static char hooked_stack[256 << 10] __attribute__((aligned(16)));

ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_scribble(void) {
  volatile char below[4096];
  for (unsigned i = 0; i < sizeof below; i += 64) below[i] = (char)0xa5;
  void* const p = malloc(64 + (size_t)below[0] % 7);
  memset(p, 0x5a, 64);
  free(p);
#if !defined(HOOKED_NO_VECTORS)
  __asm__ volatile(
      "pcmpeqd %%xmm0,%%xmm0\n pcmpeqd %%xmm1,%%xmm1\n pcmpeqd %%xmm2,%%xmm2\n pcmpeqd "
      "%%xmm3,%%xmm3\n"
      "pcmpeqd %%xmm7,%%xmm7\n pcmpeqd %%xmm8,%%xmm8\n pcmpeqd %%xmm15,%%xmm15\n fldpi\n fldpi\n "
      "faddp\n fstp %%st(0)\n" ::
          : "xmm0", "xmm1", "xmm2", "xmm3", "xmm7", "xmm8", "xmm15", "memory");
  if (__builtin_cpu_supports("avx"))
    __asm__ volatile(".byte 0xc5,0xfc,0x77" ::: "memory"); /* vzeroall */
#endif
  errno = 77;
}
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_elsewhere(void) {
  for (;;) {
    hooked_scribble();
    swapcontext(&hooked_other, &hooked_here);
  }
}
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_hook(void* place) {
  hooked_calls = hooked_calls + 1;
  hooked_place = place;
  if (hooked_extra != 0) hooked_extra(place);
#if defined(HOOKED_NO_SWITCH)
  hooked_scribble();
#else
  if (hooked_calls % 32 == 0)
    swapcontext(&hooked_here, &hooked_other);
  else
    hooked_scribble();
#endif
  asio_pulse_fuel = ASIO_PULSE_FUEL_ASK; /* every check calls */
}
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_start(void) {
  getcontext(&hooked_other);
  hooked_other.uc_stack.ss_sp = hooked_stack;
  hooked_other.uc_stack.ss_size = sizeof hooked_stack;
  makecontext(&hooked_other, hooked_elsewhere, 0);
  asio_pulse_set_checkpoint_hook(hooked_hook);
  asio_pulse_fuel = ASIO_PULSE_FUEL_ASK;
}
/* The hook was called at least so often since the last call of this function. */
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_expect(const char* what, unsigned long least) {
  if (hooked_calls < least) {
    fprintf(stderr, "%s: %lu checks, expected %lu or more\n", what, hooked_calls, least);
    exit(1);
  }
  hooked_calls = 0;
}
#else
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_start(void) {}
ASIO_PULSE_NO_AUTO_CHECKPOINTS static void hooked_expect(const char* what, unsigned long least) {
  (void)what, (void)least;
}
#endif
/* A function that has no effects may be called at another time than it is written: not these. */
#define HOOKED_IMPURE __asm__ volatile("" ::: "memory")
#if defined(__clang__)
#define HOOKED_NOINLINE __attribute__((noinline))
#else
#define HOOKED_NOINLINE __attribute__((noinline, noclone))
#endif
#endif
