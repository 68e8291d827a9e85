/* The slow path's decisions, in C: how much work may pass until the next call, and whether there is a hook. Compiled with
 * -mgeneral-regs-only, because out_of_fuel.S has saved the general registers alone. */
#define _POSIX_C_SOURCE 200809L
#include <asio_pulse/auto_checkpoint.h>

#include <cpuid.h>
#include <errno.h>
#include <stdint.h>
#include <time.h>

/* How often a check is to take the slow path. The costs that it sits between: a slow path with a hook takes 0.1 to 0.3 us (about 1 %
 * of 20 us); a timer beside checked code waits for one quantum and for one such gap. */
enum { target_us = 20, target_without_hook_us = 200 };

/* A fuel that is more than this was not measured but is the limit: 2^24 units are 2 ms at 8 units/ns, and 100 ms in code
 * that the compilers' cost model values far too high. */
enum { least_fuel = 64, most_fuel = 1 << 24, first_fuel = 1 << 15 };

/* A guess at the TSC's rate until it has been measured: in the middle of what servers have. */
enum { guessed_per_us = 2500, calibrate_after_us = 2000 };

extern asio_pulse_checkpoint_hook asio_pulse_checkpoint_cell;
void asio_pulse_checkpoint_saved(void (*f)(void*), void* argument);

/* How out_of_fuel.S saves the vector registers: 0 fxsave, 1 xsave, 2 xsavec. Bytes 0 means: not looked up yet. */
struct save {
  uint32_t method, bytes, components;
};
__attribute__((visibility("hidden"))) struct save asio_pulse_checkpoint_save;

/* TSC ticks a microsecond, and where its measurement began. Relaxed atomics: the values publish nothing else, and two threads
 * that measure at a time both get it right. */
static uint64_t ticks_per_us = 0;
static uint64_t start_tsc = 0, start_ns = 0;

/* This thread's last refuelling. */
static __thread uint64_t last_tsc __attribute__((tls_model("initial-exec")));
static __thread int given __attribute__((tls_model("initial-exec")));
static __thread int rated
    __attribute__((tls_model("initial-exec"))); /* the fuel for target_us, as last measured */

static uint64_t asio_pulse_tsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

/* Which registers there are. Intel SDM volume 1, chapter 13; component 9 (PKRU) and AMX's tiles are left alone: no compiler keeps
 * values there across a check. */
static void asio_pulse_look_up_save(void) {
  struct save s = {0, 512, 3};
  uint32_t a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) != 0) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    s.components = low & 0xe7;
    s.method = __get_cpuid_count(0xd, 1, &a, &b, &c, &d) && (a & 2) != 0 ? 2 : 1;
    s.bytes = 576;
    for (uint32_t i = 2; i < 8; ++i) {
      if ((s.components & 1u << i) == 0 || !__get_cpuid_count(0xd, i, &a, &b, &c, &d)) continue;
      /* The standard format has an offset (b), the compacted one puts them one after the other, at worst 64-byte aligned. */
      const uint32_t end = s.method == 2 ? ((s.bytes + 63) & ~63u) + a : a + b;
      if (end > s.bytes) s.bytes = end;
    }
  }
  s.bytes += 64; /* the alignment */
  asio_pulse_checkpoint_save.method = s.method;
  asio_pulse_checkpoint_save.components = s.components;
  /* Release: pairs with the acquire load in asio_pulse_refuel; whoever sees the bytes sees the rest. */
  __atomic_store_n(&asio_pulse_checkpoint_save.bytes, s.bytes, __ATOMIC_RELEASE);
}

static void asio_pulse_read_clock(void* ns) {
  struct timespec t;
  const int error = errno;
  *(uint64_t*)ns = clock_gettime(CLOCK_MONOTONIC, &t) == 0
                       ? (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec
                       : 0;
  errno = error;
}

/* Ticks a microsecond: measured once a process, between the first call and the first one that comes calibrate_after_us later. */
static uint64_t asio_pulse_rate(uint64_t now) {
  uint64_t known = __atomic_load_n(&ticks_per_us, __ATOMIC_RELAXED);
  if (known != 0) return known;
  const uint64_t from =
      __atomic_load_n(&start_tsc, __ATOMIC_ACQUIRE); /* pairs with the release store below */
  if (from == 0 || now - from > (uint64_t)calibrate_after_us * guessed_per_us) {
    uint64_t ns = 0;
    asio_pulse_checkpoint_saved(asio_pulse_read_clock, &ns);
    if (from == 0) {
      uint64_t none = 0;
      if (ns != 0 &&
          __atomic_compare_exchange_n(&start_ns, &none, ns, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        __atomic_store_n(&start_tsc, now, __ATOMIC_RELEASE);
    } else {
      const uint64_t passed = ns - __atomic_load_n(&start_ns, __ATOMIC_RELAXED);
      known = passed >= 1000 ? (now - from) / (passed / 1000) : 0;
      if (known < 100 || known > 20000)
        known = guessed_per_us; /* no clock, or a TSC that stands still */
      __atomic_store_n(&ticks_per_us, known, __ATOMIC_RELAXED);
      return known;
    }
  }
  return guessed_per_us;
}

static int asio_pulse_within(uint64_t value, int least, int most) {
  return value < (uint64_t)least ? least : value > (uint64_t)most ? most : (int)value;
}

/* Out of line, and not the same at every call: the C library declares that it is, but the hook may return on another thread, if
 * the first one has left its context. */
__attribute__((noinline)) static int* asio_pulse_errno_here(void) {
  __asm__ volatile("" ::: "memory");
  return &errno;
}

static void asio_pulse_call_hook(void* argument) {
  void** const both = argument;
  const int error = *asio_pulse_errno_here();
  ((asio_pulse_checkpoint_hook)both[0])(both[1]);
  *asio_pulse_errno_here() = error;
}

void asio_pulse_refuel(void* place) {
  if (__atomic_load_n(&asio_pulse_checkpoint_save.bytes, __ATOMIC_ACQUIRE) == 0) asio_pulse_look_up_save();
  const uint64_t now = asio_pulse_tsc();
  const uint64_t per_us = asio_pulse_rate(now);
  const int left = asio_pulse_fuel;
  /* Adapts by what the fuel since the last call took: a fixed cost model fails (Compiler Interrupts, PLDI 2020), because a unit takes 0.1 ns
   * in vectorised code and 100 ns where it misses caches. One call changes it by a factor of two at most, for the time may be
   * spent elsewhere: in code without checks, in the kernel, off the CPU. Fuel that was taken away says nothing. */
  if (rated == 0) {
    rated = first_fuel;
  } else if (left > ASIO_PULSE_FUEL_ASK / 2) {
    const uint64_t passed = now - last_tsc, spent = (uint64_t)((int64_t)given - left);
    const uint64_t next = passed != 0 ? spent * (target_us * per_us) / passed : (uint64_t)most_fuel;
    rated = asio_pulse_within(asio_pulse_within(next, rated / 2, rated * 2), least_fuel, most_fuel);
  }
  const asio_pulse_checkpoint_hook hook =
      __atomic_load_n(&asio_pulse_checkpoint_cell, __ATOMIC_ACQUIRE);
  last_tsc = now;
  given = hook != 0 ? rated : rated * (target_without_hook_us / target_us);
  asio_pulse_fuel = given;
  if (hook != 0) {
    void* both[2] = {(void*)hook, place};
    asio_pulse_checkpoint_saved(asio_pulse_call_hook, both);
  }
}

void asio_pulse_set_checkpoint_hook(asio_pulse_checkpoint_hook hook) {
  __atomic_store_n(&asio_pulse_checkpoint_cell, hook, __ATOMIC_RELEASE);
}

asio_pulse_checkpoint_hook asio_pulse_get_checkpoint_hook(void) {
  return __atomic_load_n(&asio_pulse_checkpoint_cell, __ATOMIC_ACQUIRE);
}
