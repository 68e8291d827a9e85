// SPDX-License-Identifier: BSL-1.0

// Handlers that are suspended in random places, with everything that a suspension could spoil: locks,
// exceptions, recursion, alloca(), vector registers, statics. ASIO_PULSE_LONG_TESTS=1 in the
// environment makes it a million suspensions.

#include "automatic.hpp"
//
#include <boost/asio/strand.hpp>

#include <alloca.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace automatic;

using numbers [[gnu::vector_size(32)]] = double;

/// The state that all handlers share, each part with a lock.
struct shared_parts {
  std::mutex mutex;
  std::map<int, std::string> map;
  std::shared_mutex rw;
  long pairs[2] = {0, 0};
};

struct torture {
  shared_parts& shared;
  std::minstd_rand random;
  std::atomic<long>& faults;

  [[nodiscard]] unsigned pick(unsigned n) { return static_cast<unsigned>(random()) % n; }
  void expect(bool right) {
    if (!right) ++faults;
  }

  void locked() {
    const std::lock_guard lock(shared.mutex);
    std::string& s = shared.map[static_cast<int>(pick(64))];
    s.assign(pick(100), 'x');
    check();
    expect(s.find_first_not_of('x') == std::string::npos);
  }
  void shared_lock() {
    if (pick(2) == 0) {
      const std::unique_lock lock(shared.rw);
      ++shared.pairs[0];
      check();
      --shared.pairs[1];
    } else {
      const std::shared_lock lock(shared.rw);
      check();
      expect(shared.pairs[0] + shared.pairs[1] == 0);
    }
  }
  void thrown() {
    const auto mine = static_cast<long>(random());
    struct loops {
      ~loops() { check(); }
    };
    try {
      const loops l;
      check();
      throw mine;
    } catch (const long& caught) {
      check();
      expect(caught == mine);
      try {
        check();
        throw;
      } catch (long again) {
        expect(again == mine);
      }
    }
    expect(std::uncaught_exceptions() == 0 && std::current_exception() == nullptr);
  }
  [[gnu::noinline]] long recursion(unsigned depth) {
    long local[4];
    for (long& l : local) l = static_cast<long>(random());
    const long sum = local[0] + local[1] + local[2] + local[3];
    if (pick(3) == 0) check();
    const long below = depth == 0 ? 0 : recursion(depth - 1);
    expect(local[0] + local[1] + local[2] + local[3] == sum);
    return below + 1;
  }
  [[gnu::noinline]] void stack_memory() {
    const std::size_t n = pick(4000) + 1;
    auto* const p = static_cast<char*>(alloca(n));
    const int c = static_cast<int>(pick(200));
    std::memset(p, c, n);
    check();
    std::size_t right = 0;
    for (std::size_t i = 0; i < n; ++i) right += p[i] == static_cast<char>(c) ? 1U : 0U;
    expect(right == n);
  }
#if defined(__x86_64__)
  [[gnu::noinline, gnu::target("avx")]] void registers() {
    const double a = pick(1000), b = pick(1000);
    numbers v{a, b, a + b, a - b};
    numbers sum{};
    for (int i = 0; i < 4; ++i) {
      asm volatile("" : "+x"(v), "+x"(sum));
      check();
      asm volatile("" : "+x"(v), "+x"(sum));
      sum += v;
    }
    expect(sum[0] == 4 * a && sum[1] == 4 * b && sum[2] == 4 * (a + b) && sum[3] == 4 * (a - b));
  }
#endif
  void local_static() {
    switch (pick(3)) {
      case 0: {
        static const int a = (check(), 1);
        return expect(a == 1);
      }
      case 1: {
        static const int b = (check(), 2);
        return expect(b == 2);
      }
      default: {
        static const int c = (check(), 3);
        return expect(c == 3);
      }
    }
  }
  void sorted() {
    std::array<int, 24> v{};
    for (int& i : v) i = static_cast<int>(pick(1000));
    std::qsort(v.data(), v.size(), sizeof(int), [](const void* a, const void* b) {
      check();
      return *static_cast<const int*>(a) - *static_cast<const int*>(b);
    });
    expect(std::is_sorted(v.begin(), v.end()));
  }
  void memory() {
    std::vector<std::string> v;
    for (unsigned i = 0; i < 20; ++i) {
      v.emplace_back(pick(300), 'y');
      check();
    }
    for (const std::string& s : v) expect(s.find_first_not_of('y') == std::string::npos);
  }

  void operator()() {
    errno = 0;
    switch (pick(9)) {
      case 0:
        return locked();
      case 1:
        return shared_lock();
      case 2:
        return thrown();
      case 3:
        return expect(recursion(pick(40)) > 0);
      case 4:
        return stack_memory();
#if defined(__x86_64__)
      case 5:
        if (__builtin_cpu_supports("avx")) registers();
        return;
#endif
      case 6:
        return local_static();
      case 7:
        return sorted();
      default:
        return memory();
    }
  }
};

class automatic_torture : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(threads, automatic_torture, testing::Values(1, 2));

TEST_P(automatic_torture, nothing_is_spoilt) {
  const bool long_one = std::getenv("ASIO_PULSE_LONG_TESTS") != nullptr;
  // A handler continues on its own thread, so two threads wait for each other: long, on a busy machine.
  const std::uint64_t short_one = GetParam() == 1 ? 20'000 : 5'000;
  const std::uint64_t wanted = long_one ? 1'000'000 : sanitized ? 2'000 : short_one;
  auto o = eager();
  o.quantum = o.min_slice = 1ns;
  asio_pulse::io_context io{o};
  shared_parts shared;
  std::atomic<long> faults{0};
  std::atomic<bool> enough{false};
  auto strand = asio::make_strand(io);
  std::function<void(unsigned)> start = [&](unsigned seed) {
    auto job = asio_pulse::preemptible([&, seed] {
      torture t{shared, std::minstd_rand(seed), faults};
      for (int i = 0; i < 20; ++i) {
        t();
        check();
      }
      if (!enough) start(seed * 16807 + 1);
    });
    seed % 4 == 0 ? asio::post(strand, std::move(job)) : asio::post(io, std::move(job));
  };
  for (unsigned i = 1; i <= 8; ++i) start(i);
  std::function<void()> watch = [&] {
    enough = io.stats().automatic_suspensions >= wanted;
    if (!enough) asio::post(io, watch);
  };
  asio::post(io, watch);
  std::vector<std::thread> others;
  for (int i = 1; i < GetParam(); ++i) others.emplace_back([&] { io.run(); });
  io.run();
  for (std::thread& t : others) t.join();
  EXPECT_EQ(faults, 0);
  EXPECT_EQ(shared.pairs[0] + shared.pairs[1], 0);
  const asio_pulse::statistics s = io.stats();
  EXPECT_GE(s.automatic_suspensions, wanted);
  EXPECT_GT(s.automatic_refused_lock, 0U);
  EXPECT_GT(s.automatic_refused_exception, 0U);
}

}  // namespace
