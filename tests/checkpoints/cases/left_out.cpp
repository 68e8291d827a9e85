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

int main() {
  hooked_start();
  static char text[20001];
  memset(text, 'a', sizeof text - 1);
  hooked_calls = 0;
  printf("attribute %u\n", by_attribute(text));
  printf("list %u\n", by_list(text));
#if defined(CHECKED)
  if (hooked_calls != 0)
    return fprintf(stderr, "%lu checks in what is left out\n", hooked_calls), 1;
#endif
  printf("taken %u\n", taken(text));
  hooked_expect("taken", 10);
}
