/* alloca, variable arrays, setjmp, computed gotos, cycles with two entries, asm goto, leaf functions that would use the red zone. */
#include "hooked.h"

#include <alloca.h>
#include <setjmp.h>

HOOKED_NOINLINE static unsigned with_alloca(unsigned n) {
  HOOKED_IMPURE;
  unsigned s = 0;
  unsigned* last = 0;
  for (unsigned i = 0; i < n; ++i) {
    unsigned* const p = alloca(16 + i % 64 * 4);
    p[0] = i * 7;
    p[3] = last != 0 ? last[0] : 1;
    s = s * 3 + p[3];
    last = p;
  }
  return s;
}
HOOKED_NOINLINE static unsigned with_vla(unsigned n, const char* until) {
  HOOKED_IMPURE;
  unsigned s = 0;
  for (; *until != 0; ++until) {
    unsigned a[n % 50 + 1 + (unsigned)(unsigned char)*until % 5];
    for (unsigned i = 0; i < sizeof a / sizeof *a; ++i) a[i] = s + i;
    for (unsigned i = 0; i < sizeof a / sizeof *a; ++i) s = s * 5 + a[i];
  }
  return s;
}
static jmp_buf back;
HOOKED_NOINLINE static void jumps(int depth, int value) {
  HOOKED_IMPURE;
  volatile int sum = 0;
  for (int i = 0; i < 100; ++i) sum = sum + i;
  if (depth == 0) longjmp(back, value + sum % 2);
  jumps(depth - 1, value);
}
HOOKED_NOINLINE static int with_setjmp(int rounds) {
  HOOKED_IMPURE;
  volatile int n = 0, sum = 0;
  const int got = setjmp(back);
  sum = sum * 3 + got;
  for (volatile int i = 0; i < 2000; ++i) sum = sum + i % 3;
  n = n + 1;
  if (n < rounds) jumps(n % 5, n);
  return sum;
}
/* A program for a machine with five instructions. */
HOOKED_NOINLINE static long interpret(const unsigned char* code, long turns) {
  HOOKED_IMPURE;
  static const void* const to[] = {&&add, &&subtract, &&again, &&times, &&halt};
  const unsigned char* at = code;
  long value = 1;
  goto* to[*at++];
add:
  value += *at++;
  goto* to[*at++];
subtract:
  value -= *at++;
  goto* to[*at++];
times:
  value = value * 3 % 1000003;
  goto* to[*at++];
again:
  if (--turns > 0) at = code;
  goto* to[*at++];
halt:
  return value;
}
HOOKED_NOINLINE static unsigned two_entries(unsigned n, int where) {
  HOOKED_IMPURE;
  unsigned s = 0;
  if (where) goto middle;
top:
  s = s * 3 + n;
middle:
  s ^= n << 1;
  if (n-- > 1) {
    if (s & 1) goto top;
    goto middle;
  }
  return s;
}
HOOKED_NOINLINE static unsigned states(const char* p) {
  HOOKED_IMPURE;
  unsigned s = 0;
  enum { a, b, c, d } state = a;
  for (;; ++p) switch (state) {
      case a:
        state = *p == 'x' ? b : c;
        s += 1;
        break;
      case b:
        state = *p == 'y' ? c : a;
        s += 3;
        break;
      case c:
        state = *p == 0 ? d : a;
        s *= 7;
        break;
      case d:
        return s;
    }
}
/* No calls: its variables may lie below the stack pointer. */
HOOKED_NOINLINE static unsigned leaf(const char* until) {
  HOOKED_IMPURE;
  volatile unsigned a[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  unsigned i = 0;
  for (; *until != 0; ++until) {
    a[i % 12] = a[(i + 5) % 12] * 3 + (unsigned)(unsigned char)*until;
    ++i;
  }
  unsigned s = 0;
  for (i = 0; i < 12; ++i) s = s * 31 + a[i];
  return s;
}
HOOKED_NOINLINE static unsigned with_asm_goto(const char* until) {
  HOOKED_IMPURE;
  unsigned s = 0;
  for (; *until != 0; ++until) {
    __asm__ goto("testb $1, (%0)\n jz %l1" : : "r"(until) : "cc" : even);
    s += 2;
  even:
    s = s * 3 + 1;
  }
  return s;
}

int main(void) {
  hooked_start();
  char* const text = malloc(20001);
  for (int i = 0; i < 20000; ++i) text[i] = (char)("xyxz"[i * 7 % 4]);
  text[20000] = 0;
  hooked_calls = 0;
  printf("alloca %u\n", with_alloca(5000));
  hooked_expect("alloca", 10);
  printf("vla %u\n", with_vla(33, text));
  hooked_expect("vla", 1000);
  printf("setjmp %d\n", with_setjmp(200));
  hooked_expect("setjmp", 1000);
  const unsigned char code[] = {0, 5, 3, 1, 2, 0, 9, 2, 4};
  printf("interpret %ld\n", interpret(code, 20000));
  hooked_expect("interpret", 10000);
  printf("two entries %u %u\n", two_entries(30000, 0), two_entries(30000, 1));
  hooked_expect("two entries", 5);
  printf("states %u\n", states(text));
  hooked_expect("states", 10);
  printf("leaf %u\n", leaf(text));
  hooked_expect("leaf", 10);
  printf("asm goto %u\n", with_asm_goto(text));
  hooked_expect("asm goto", 10);
  free(text);
  return 0;
}
