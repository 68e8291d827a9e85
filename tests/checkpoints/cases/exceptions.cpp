// Exceptions through checked code, destructors, and a hook that itself throws and catches.
#include "hooked.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {
int alive = 0;
struct counted {
  counted() { ++alive; }
  counted(const counted&) = delete;
  ~counted() { --alive; }
};
HOOKED_NOINLINE int thrower(int depth, const std::vector<int>& v) {
  HOOKED_IMPURE;
  const counted c;
  int sum = 0;
  for (std::size_t i = 0; i < v.size(); ++i) {
    sum += v[i] % 7;
    if (depth == 0 && sum > 900) throw std::runtime_error("at " + std::to_string(i));
  }
  return depth > 0 ? thrower(depth - 1, v) + sum : sum;
}
HOOKED_NOINLINE int catcher(const std::vector<int>& v) {
  HOOKED_IMPURE;
  int sum = 0;
  for (int round = 0; round < 300; ++round) {
    try {
      sum += thrower(round % 6, v);
    } catch (const std::runtime_error& e) {
      for (const char* p = e.what(); *p != 0; ++p) sum = sum * 3 + *p;
    }
  }
  return sum;
}
HOOKED_NOINLINE int in_handlers(
    const std::vector<int>& v) {  // checks while an exception is handled, and while one unwinds
  int sum = 0;
  struct loops {
    const std::vector<int>& v;
    int& sum;
    ~loops() {
      for (const int i : v) sum = sum * 3 + i;
    }
  };
  for (int round = 0; round < 20; ++round) try {
      const loops l{v, sum};
      throw round;
    } catch (const int r) {
      for (const int i : v) sum = sum * 5 + i + r;
    }
  return sum;
}
#if defined(CHECKED)
ASIO_PULSE_NO_AUTO_CHECKPOINTS void throws_itself(void*) {
  try {
    throw std::logic_error("inside");
  } catch (const std::logic_error&) {
  }
}
#endif
}  // namespace

int main() {
  hooked_start();
#if defined(CHECKED)
  hooked_extra = [](void* p) {
    if (hooked_calls % 64 == 0) throws_itself(p);
  };
#endif
  std::vector<int> v;
  for (int i = 0; i < 600; ++i) v.push_back(i * 31 % 101);
  printf("catcher %d alive %d\n", catcher(v), alive);
  hooked_expect("catcher", 300);
  v.insert(v.end(), 10000, 7);
  hooked_calls = 0;
  printf("handlers %d\n", in_handlers(v));
  hooked_expect("handlers", 40);
}
