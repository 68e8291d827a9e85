/* Checked code in a program without asio-pulse: there is no hook. Two threads, so that the word is one a thread. */
#include <pthread.h>
#include <stdio.h>
#if defined(CHECKED)
#include <asio_pulse/auto_checkpoint.h>
#endif

__attribute__((noinline)) static unsigned work(const char* p, unsigned s) {
  for (; *p != 0; ++p) s = s * 3 + (unsigned char)*p;
  return s;
}
static char text[100001];
static void* run(void* argument) {
  unsigned* const s = argument;
#if defined(CHECKED)
  *(volatile int*)&asio_pulse_fuel = -1;
#endif
  for (int i = 0; i < 200; ++i) *s = work(text, *s);
#if defined(CHECKED)
  /* It was refuelled: what a check leaves is zero or more. */
  if (*(volatile int*)&asio_pulse_fuel < 0) *s = 0;
#endif
  return 0;
}
int main(void) {
  for (int i = 0; i < 100000; ++i) text[i] = "abc"[i % 3];
  unsigned one = 1, two = 2;
  pthread_t t;
  if (pthread_create(&t, 0, run, &one) != 0) return 1;
  run(&two);
  pthread_join(t, 0);
  printf("%u %u\n", one, two);
  return 0;
}
