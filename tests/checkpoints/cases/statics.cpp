// Static initialisers have no checks; guards of function-local statics and thread-local objects work through checks.
#include "hooked.h"

#include <string>
#include <thread>
#include <vector>

namespace {
struct early {
  std::vector<int> v;
  early() {
    hooked_start();
    for (int i = 0; i < 8000; ++i) v.push_back(i * 3);
  }
};
const early object;
HOOKED_NOINLINE const std::vector<int>& lazy() {
  HOOKED_IMPURE;
  static const std::vector<int> v = [] {
    std::vector<int> r;
    for (int i = 0; i < 20000; ++i) r.push_back(i % 91);
    return r;
  }();
  return v;
}
thread_local std::string own = std::string(3000, 'a');
HOOKED_NOINLINE long use(char c) {
  HOOKED_IMPURE;
  long s = 0;
  for (const char& each : own) s = s * 3 + each + c;
  own[5] = c;
  return s;
}
}  // namespace

int main() {
  long s = 0;
  for (const int i : object.v) s += i;
  for (const int i : lazy()) s = s * 3 + i;
  printf("%ld %ld\n", s, use('b'));
  hooked_expect("statics", 50);
#if defined(CHECKED)
  asio_pulse_set_checkpoint_hook(nullptr);  // the hook of these programs is for one thread
#endif
  std::thread([] { printf("%ld\n", use('c')); }).join();
}
