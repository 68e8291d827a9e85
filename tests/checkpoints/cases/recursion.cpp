// Cycles of calls have checks: direct, mutual, virtual, through pointers, through std::function. What is in no cycle has none.
#include "hooked.h"

#include <functional>
#include <memory>

namespace {
HOOKED_NOINLINE unsigned fib(unsigned n) {
  HOOKED_IMPURE;
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
HOOKED_NOINLINE unsigned odd(unsigned n);
HOOKED_NOINLINE unsigned even(unsigned n) {
  HOOKED_IMPURE;
  return n == 0 ? 1 : odd(n - 1) + even(n / 2) % 2;
}
HOOKED_NOINLINE unsigned odd(unsigned n) {
  HOOKED_IMPURE;
  return n == 0 ? 0 : even(n - 1) ^ odd(n / 3);
}

struct expression {
  virtual ~expression() = default;
  virtual long value() const = 0;
};
struct number : expression {
  long n;
  explicit number(long i) : n(i) {}
  long value() const override { return n; }
};
struct sum : expression {
  std::unique_ptr<expression> a, b;
  sum(std::unique_ptr<expression> x, std::unique_ptr<expression> y)
      : a(std::move(x)), b(std::move(y)) {}
  long value() const override { return a->value() + b->value() * 3 % 1009; }
};
HOOKED_NOINLINE std::unique_ptr<expression> tree(int depth) {
  HOOKED_IMPURE;
  if (depth == 0) return std::make_unique<number>(depth + 7);
  return std::make_unique<sum>(tree(depth - 1), tree(depth - 1));
}

using step = unsigned (*)(unsigned, void*);
HOOKED_NOINLINE unsigned by_pointer(unsigned n, void* self) {
  HOOKED_IMPURE;
  const step next = *static_cast<step*>(self);
  return n < 2 ? n : next(n - 1, self) + next(n - 2, self);
}
HOOKED_NOINLINE int straight(int a) { return a * 3 + 1; }
}  // namespace

int main() {
  hooked_start();
  printf("fib %u\n", fib(20));
  hooked_expect("fib", 500);
  printf("even %u\n", even(60));
  hooked_expect("even", 50);
  const auto t = tree(10);
  hooked_expect("tree", 500);
  printf("value %ld\n", t->value());
  hooked_expect("virtual", 500);
  step s = by_pointer;
  printf("pointer %u\n", by_pointer(18, &s));
  hooked_expect("pointer", 500);
  printf("straight %d\n", straight(5));
#if defined(CHECKED)
  if (hooked_calls != 0) return printf("a check where none is needed\n"), 1;
#endif
}
