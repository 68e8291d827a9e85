// A backtrace taken in a check names the functions that are running, inner ones first, and ends in main.
#include "hooked.h"

#include <dlfcn.h>
#include <execinfo.h>

extern "C" {
// Visible, so that dladdr() finds them.
__attribute__((visibility("default"))) HOOKED_NOINLINE unsigned innermost_function(const char* p) {
  HOOKED_IMPURE;
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 3 + static_cast<unsigned char>(*p);
  return s;
}
__attribute__((visibility("default"))) HOOKED_NOINLINE unsigned middle_function(const char* p,
                                                                                unsigned depth) {
  HOOKED_IMPURE;
  unsigned s = innermost_function(p + depth % 2);
  for (; *p == 'x'; ++p) s += depth > 0 ? middle_function(p + 4000, depth - 1) : 1;
  return s + 1;
}
}
#if defined(CHECKED)
namespace {
unsigned long good, bad;
ASIO_PULSE_NO_AUTO_CHECKPOINTS bool is(void* address, const char* name) {
  Dl_info info;
  return dladdr(address, &info) != 0 && info.dli_sname != nullptr &&
         strcmp(info.dli_sname, name) == 0;
}
ASIO_PULSE_NO_AUTO_CHECKPOINTS void look(void* place) {
  void* frames[64];
  const int n = backtrace(frames, 64);
  int at = 0;
  while (at < n && frames[at] != place) ++at;  // the place is a return address of this very stack
  const bool inner = at < n && is(frames[at], "innermost_function");
  if (inner) ++at;
  const int middles = at;
  while (at < n && is(frames[at], "middle_function")) ++at;
  const bool right = at > middles && at < n && is(frames[at], "main");
  if (!right && bad == 0) {
    backtrace_symbols_fd(frames, n, 2);
    fprintf(stderr, "place %p\n", place);
  }
  ++(right ? good : bad);
}
}  // namespace
#endif

int main() {
  static char text[5001];
  memset(text, 'y', sizeof text - 1);
  memset(text, 'x', 50);
  memset(text + 4000, 'x', 20);
#if defined(CHECKED)
  // Frames above the program's are of no interest: the hook runs on this stack.
  static void (*const hook)(void*) = [](void* p) {
    look(p);
    asio_pulse_fuel = ASIO_PULSE_FUEL_ASK;
  };
  asio_pulse_set_checkpoint_hook(hook);
  asio_pulse_fuel = ASIO_PULSE_FUEL_ASK;
#endif
  const unsigned result = middle_function(text, 1);
#if defined(CHECKED)
  asio_pulse_set_checkpoint_hook(nullptr);
  if (bad != 0 || good < 100)
    return fprintf(stderr, "%lu good stacks, %lu bad ones\n", good, bad), 1;
#endif
  printf("%u\n", result);
}
