// What is left out has no checks: by the attribute, by a list; even where it would be inlined.
#include "hooked.h"

namespace {
ASIO_PULSE_NO_AUTO_CHECKPOINTS unsigned by_attribute(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 3 + static_cast<unsigned char>(*p);
  return s;
}
HOOKED_NOINLINE unsigned by_list(const char* p) {
  HOOKED_IMPURE;
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 5 + static_cast<unsigned char>(*p);
  return s;
}
HOOKED_NOINLINE unsigned taken(const char* p) {
  HOOKED_IMPURE;
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 7 + static_cast<unsigned char>(*p);
  return s;
}
}  // namespace

// The list names these exactly. Nothing keeps the compiler from inlining them, from copies for an argument
// that is always the same, and from dropping one that is not used.
static unsigned exactly_inlined(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 11 + static_cast<unsigned char>(*p);
  return s;
}
inline unsigned exactly_inline(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 13 + static_cast<unsigned char>(*p);
  return s;
}
__attribute__((noinline)) static unsigned exactly_copied(const char* p, unsigned by, unsigned) {
  HOOKED_IMPURE;
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * by + static_cast<unsigned char>(*p);
  return s;
}
__attribute__((noinline)) static unsigned symbol_copied(const char* p, unsigned by, unsigned) {
  HOOKED_IMPURE;
  unsigned s = 1;
  for (; *p != 0; ++p) s = s * by + static_cast<unsigned char>(*p);
  return s;
}
// The same body as that of a function that is taken.
__attribute__((noinline)) static unsigned exactly_the_same(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 17 ^ static_cast<unsigned char>(*p);
  return s;
}
__attribute__((noinline)) static unsigned same_but_taken(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 17 ^ static_cast<unsigned char>(*p);
  return s;
}

int main() {
  hooked_start();
  static char text[20001];
  memset(text, 'a', sizeof text - 1);
  hooked_calls = 0;
  printf("attribute %u\n", by_attribute(text));
  printf("list %u\n", by_list(text));
  printf("exact %u %u\n", exactly_inlined(text), exactly_inline(text));
  printf("copies %u %u\n", exactly_copied(text, 3, 1), symbol_copied(text, 5, 2));
  printf("same %u\n", exactly_the_same(text));
#if defined(CHECKED)
  if (hooked_calls != 0)
    return fprintf(stderr, "%lu checks in what is left out\n", hooked_calls), 1;
#endif
  printf("taken %u\n", taken(text));
  hooked_expect("taken", 10);
  printf("same, but taken %u\n", same_but_taken(text));
  hooked_expect("same_but_taken", 10);
}
