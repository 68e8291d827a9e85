// Every kind of loop reaches a check, and computes what it computed.
#include "hooked.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace {
struct node {
  node* next;
  int value;
};
HOOKED_NOINLINE long counted(const int* p, long n) {
  HOOKED_IMPURE;
  long s = 0;
  for (long i = 0; i < n; ++i) s += p[i] * 3 ^ static_cast<int>(i);
  return s;
}
HOOKED_NOINLINE long backwards(const int* p, int n) {
  HOOKED_IMPURE;
  long s = 0;
  for (int i = n; i > 0; i -= 3) s = s * 7 + p[i - 1];
  return s;
}
HOOKED_NOINLINE long pointers(const int* from, const int* to) {
  HOOKED_IMPURE;
  long s = 1;
  while (from < to) s = s * 5 + *from++;
  return s;
}
HOOKED_NOINLINE unsigned short narrow(unsigned short n) {
  HOOKED_IMPURE;
  unsigned short s = 1;
  for (unsigned short i = 0; i != n; ++i) s = static_cast<unsigned short>(s * 31 + i);
  return s;
}
HOOKED_NOINLINE unsigned long wraps(unsigned from,
                                    unsigned to) {  // through the end of the type's range
  unsigned long s = 0;
  unsigned i = from;
  do s = s * 3 + i;
  while ((i += 1) != to);
  return s;
}
HOOKED_NOINLINE long list(const node* n) {
  HOOKED_IMPURE;
  long s = 0;
  for (; n != nullptr; n = n->next) s = s * 3 + n->value;
  return s;
}
HOOKED_NOINLINE long text(const char* p) {
  HOOKED_IMPURE;
  long s = 0;
  for (; *p != 0; ++p) s += *p == ',';
  return s;
}
HOOKED_NOINLINE long nest(const std::string& a, const std::string& b) {
  HOOKED_IMPURE;
  long s = 0;
  for (std::size_t i = 0; a[i] != 0; ++i)
    for (std::size_t k = 0; b[k] != 0; ++k) {
      if (a[i] == b[k]) ++s;
      if (b[k] == 'q') break;
    }
  return s;
}
HOOKED_NOINLINE long early(const int* p, long n, int what) {
  HOOKED_IMPURE;
  for (long i = 0; i < n; ++i)
    if (p[i] == what) return i;
  return -1;
}
HOOKED_NOINLINE long matrix(long n, std::vector<double>& c) {
  HOOKED_IMPURE;
  for (long i = 0; i < n; ++i)
    for (long k = 0; k < n; ++k)
      for (long j = 0; j < n; ++j)
        c[i * n + j] += static_cast<double>(i * k % 7) * static_cast<double>(k - j);
  return static_cast<long>(std::accumulate(c.begin(), c.end(), 0.0));
}
HOOKED_NOINLINE unsigned endless() {  // ends by the check itself
  unsigned n = 0;
  for (unsigned long before = hooked_calls;;) {
    ++n;
#if defined(CHECKED)
    if (hooked_calls != before) return 1;
#else
    if (n > 1000 && before == 0) return 1;
#endif
  }
}
HOOKED_NOINLINE int collatz(std::uint64_t n) {
  HOOKED_IMPURE;
  int steps = 0;
  while (n != 1) n = n % 2 != 0 ? 3 * n + 1 : n / 2, ++steps;
  return steps;
}
}  // namespace

int main() {
  hooked_start();
  std::vector<int> v(60000);
  unsigned x = 1;
  for (int& i : v) i = static_cast<int>((x = x * 1664525 + 1013904223) >> 8);
  std::vector<node> nodes(5000);
  for (std::size_t i = 0; i + 1 < nodes.size(); ++i)
    nodes[i] = {&nodes[i + 1], static_cast<int>(i)};
  hooked_expect("filling", 5);
  for (long n : {0L, 1L, 2L, 7L, 1000L, 4095L, 60000L})
    printf("counted %ld\n", counted(v.data(), n));
  hooked_expect("counted", 5);
  for (int n : {0, 1, 2, 3, 4, 59999, 60000}) printf("backwards %ld\n", backwards(v.data(), n));
  hooked_expect("backwards", 5);
  for (int n : {0, 1, 7, 8, 60000}) printf("pointers %ld\n", pointers(v.data(), v.data() + n));
  hooked_expect("pointers", 10);
  for (unsigned n : {0u, 1u, 1000u, 65535u})
    printf("narrow %u\n", narrow(static_cast<unsigned short>(n)));
  hooked_expect("narrow", 10);
  printf("wraps %lu\n", wraps(4294960000u, 50000));
  hooked_expect("wraps", 10);
  printf("list %ld\n", list(nodes.data()));
  hooked_expect("list", 10);
  const std::string s(20000, 'a'), t = std::string(300, ',') + "xq" + std::string(20, 'y');
  printf("text %ld %ld\n", text(s.c_str()), text(t.c_str()));
  hooked_expect("text", 10);
  printf("nest %ld\n", nest(s, t));
  hooked_expect("nest", 5000);
  for (int what : {v[0], v[31000], -5}) printf("early %ld\n", early(v.data(), 60000, what));
  hooked_expect("early", 10);
  std::vector<double> c(60 * 60);
  printf("matrix %ld\n", matrix(60, c));
  hooked_expect("matrix", 60);
  printf("endless %u\n", endless());
  int most = 0;
  for (std::uint64_t n = 1; n < 3000; ++n) most = std::max(most, collatz(n));
  printf("collatz %d\n", most);
  hooked_expect("collatz", 2000);
  std::sort(v.begin(), v.end());
  printf("sort %d %d %d\n", v[0], v[30000], v[59999]);
  hooked_expect("sort", 1000);
  std::stable_sort(v.begin(), v.end(), [](int a, int b) { return (a ^ 0x55) < (b ^ 0x55); });
  printf("stable_sort %d %d %d\n", v[0], v[30000], v[59999]);
  hooked_expect("stable_sort", 1000);
}
