// Compiled with automatic checkpoints, in a program that has nothing else of asio-pulse.
#include <asio_pulse/auto_checkpoint.h>

#include <cstdio>

namespace {
int calls = 0;
void hook(void*) noexcept { ++calls; }
}  // namespace

unsigned checked_loop(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 3 + static_cast<unsigned char>(*p);
  return s;
}
unsigned left_out_loop(const char* p) {
  unsigned s = 0;
  for (; *p != 0; ++p) s = s * 5 + static_cast<unsigned char>(*p);
  return s;
}

int main() {
  static char text[100000];
  for (char& c : text) c = 'a';
  text[sizeof text - 1] = 0;
  asio_pulse_set_checkpoint_hook(hook);
  calls = 0;
  asio_pulse_fuel = ASIO_PULSE_FUEL_ASK;
  const unsigned left = left_out_loop(text);
  const int before = calls;
  const unsigned sum = checked_loop(text);
  std::printf("%u %u, %d calls in the function that is left out, %d in the other\n", left, sum,
              before, calls);
  return before == 0 && calls > 0 ? 0 : 1;
}
