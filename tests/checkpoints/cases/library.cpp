// Half of the program is a shared library (LIBRARY is defined for it), and half of that is loaded by dlopen(). All of them share
// one hook, and the program's fuel.
#include "hooked.h"

extern "C" unsigned long library_work(const char* until);
extern "C" int* library_fuel(void);

#if defined(LIBRARY)
extern "C" unsigned long library_work(const char* until) {
  unsigned long s = 0;
  for (; *until != 0; ++until) s = s * 7 + static_cast<unsigned char>(*until);
  return s;
}
extern "C" int* library_fuel(void) {
#if defined(CHECKED)
  return &asio_pulse_fuel;
#else
  return nullptr;
#endif
}
#else
#include <dlfcn.h>
int main(int argc, char** argv) {
  if (argc < 2) return 2;
  hooked_start();
  char text[20001];
  for (int i = 0; i < 20000; ++i) text[i] = static_cast<char>('a' + i % 26);
  text[20000] = 0;
  hooked_expect("filling", 1);
  printf("linked %lu\n", library_work(text));
  hooked_expect("linked", 10);
  void* const loaded = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (loaded == nullptr) return fprintf(stderr, "%s\n", dlerror()), 1;
  const auto work = reinterpret_cast<unsigned long (*)(const char*)>(dlsym(loaded, "library_work"));
  const auto fuel = reinterpret_cast<int* (*)()>(dlsym(loaded, "library_fuel"));
  printf("loaded %lu\n", work(text));
  hooked_expect("loaded", 10);
#if defined(CHECKED)
  if (fuel() != &asio_pulse_fuel || library_fuel() != &asio_pulse_fuel)
    return fprintf(stderr, "several fuel words\n"), 1;
#else
  if (fuel() != nullptr) return 1;
#endif
}
#endif
