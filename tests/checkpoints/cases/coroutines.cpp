// C++20 coroutines: loops around and between their suspensions.
#include "hooked.h"

#include <coroutine>
#include <exception>
#include <vector>

namespace {
template <class T>
struct generator {
  struct promise_type {
    T value{};
    generator get_return_object() {
      return generator{std::coroutine_handle<promise_type>::from_promise(*this)};
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(T v) noexcept { return value = v, std::suspend_always{}; }
    void return_void() {}
    void unhandled_exception() { throw; }
  };
  explicit generator(std::coroutine_handle<promise_type> h) : handle(h) {}
  generator(const generator&) = delete;
  ~generator() { handle.destroy(); }
  bool next() { return handle.resume(), !handle.done(); }
  T value() const { return handle.promise().value; }
  std::coroutine_handle<promise_type> handle;
};
generator<unsigned> primes(unsigned below) {
  for (unsigned n = 2; n < below; ++n) {
    bool prime = true;
    for (unsigned d = 2; d * d <= n && prime; ++d) prime = n % d != 0;
    if (prime) co_yield n;
  }
}
generator<unsigned> sums(generator<unsigned>& of) {
  unsigned sum = 0;
  std::vector<unsigned> seen;
  while (of.next()) {
    seen.push_back(of.value());
    for (const unsigned s : seen) sum = sum * 3 + s;
    co_yield sum;
  }
}
}  // namespace

int main() {
  hooked_start();
  auto p = primes(3000);
  auto s = sums(p);
  unsigned last = 0, n = 0;
  while (s.next()) last = last * 7 + s.value(), ++n;
  printf("%u sums, %u\n", n, last);
  hooked_expect("coroutines", 200);
}
