// SPDX-License-Identifier: BSL-1.0

// The stacks of fibers and the switch between them, without a context: pool, guard, high-water
// mark.

#include <asio_pulse/detail/fiber.hpp>
#include <asio_pulse/fiber_stacks.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace asio_pulse::detail;

constexpr std::size_t default_size = 65536;

asio_pulse::fiber_stacks usage_of(std::size_t size) {
  for (const asio_pulse::fiber_stacks& stacks : asio_pulse::fiber_stack_usage()) {
    if (stacks.size == size) return stacks;
  }
  return {};
}

/// A fiber from the pool that is told what to do by a function.
class pooled {
 public:
  explicit pooled(std::size_t size = default_size) : b_(take_fiber(fiber_size_class(size))) {
    if (b_ == nullptr) throw std::runtime_error("no fiber");
    if (b_->discard == nullptr) make_fiber(*b_);
  }
  ~pooled() { give_fiber(*b_); }
  pooled(const pooled&) = delete;
  pooled& operator=(const pooled&) = delete;

  template <class Function>
  void start(Function& f) {
    fiber_machine& m = machine_of(*b_);
    m.argument = &f;
    m.job = [](fiber_block& b, void* argument) { (*static_cast<Function*>(argument))(b); };
    enter_fiber(*b_);
  }
  void resume() { enter_fiber(*b_); }
  fiber_block& block() noexcept { return *b_; }

 private:
  fiber_block* b_;
};

TEST(fiber_size_class, rounds_up_to_a_power_of_two) {
  EXPECT_EQ(fiber_stack_size(fiber_size_class(1)), 16384U);
  EXPECT_EQ(fiber_stack_size(fiber_size_class(16384)), 16384U);
  EXPECT_EQ(fiber_stack_size(fiber_size_class(16385)), 32768U);
  EXPECT_EQ(fiber_stack_size(fiber_size_class(100'000)), 131072U);
  EXPECT_EQ(fiber_stack_size(fiber_size_class(std::size_t{8} << 20)), std::size_t{8} << 20);
  EXPECT_EQ(fiber_stack_size(fiber_size_class(std::size_t{1} << 40)), std::size_t{8} << 20);
}

TEST(fiber_stack, the_stack_pointer_tells_the_fiber) {
  EXPECT_EQ(fiber_here(), nullptr);
  for (const std::size_t size : {std::size_t{16384}, default_size, std::size_t{8} << 20}) {
    pooled fiber(size);
    const fiber_block* seen = nullptr;
    bool inside = false;
    bool outside = true;
    int local_of_the_thread = 0;
    auto look = [&](fiber_block& b) {
      int local = 0;
      seen = fiber_here();
      inside = b.holds(&local);
      outside = b.holds(&local_of_the_thread);
    };
    fiber.start(look);
    EXPECT_EQ(seen, &fiber.block());
    EXPECT_TRUE(inside);
    EXPECT_FALSE(outside);
    EXPECT_FALSE(fiber.block().holds(nullptr));
  }
  EXPECT_EQ(fiber_here(), nullptr);
}

TEST(fiber_stack, goes_back_and_comes_again) {
  {
    const pooled fiber;
    EXPECT_EQ(usage_of(default_size).in_use, 1U);
  }
  EXPECT_EQ(usage_of(default_size).in_use, 0U);
  const std::size_t made = usage_of(default_size).made;
  {
    const pooled again;
    const pooled another;
  }
  EXPECT_LE(usage_of(default_size).made, made + 1);
}

TEST(fiber_stack, keeps_a_bounded_number_idle) {
  constexpr std::size_t size = 32768;
  {
    std::vector<std::unique_ptr<pooled>> many;
    for (int n = 0; n < 200; ++n) many.push_back(std::make_unique<pooled>(size));
    EXPECT_EQ(usage_of(size).in_use, 200U);
  }
  const auto left = usage_of(size);
  EXPECT_EQ(left.in_use, 0U);
  EXPECT_LE(left.idle, 66U);
  EXPECT_EQ(left.made, 200U);
  // Fibers that were returned can be taken again.
  std::vector<std::unique_ptr<pooled>> many;
  int ran = 0;
  auto count = [&](fiber_block&) { ++ran; };
  for (int n = 0; n < 200; ++n) {
    many.push_back(std::make_unique<pooled>(size));
    many.back()->start(count);
  }
  EXPECT_EQ(ran, 200);
  EXPECT_EQ(usage_of(size).made, 200U);
}

[[gnu::noinline]] std::size_t use_stack(std::size_t bytes) {
  volatile unsigned char page[4096];
  for (std::size_t n = 0; n < sizeof page; n += 64) page[n] = 1;
  if (bytes <= sizeof page) return sizeof page;
  return use_stack(bytes - sizeof page) + page[0];
}

TEST(fiber_stack, the_high_water_mark_shows_the_deepest_use) {
  constexpr std::size_t size = std::size_t{1} << 20;
  pooled fiber(size);
  auto a_little = [](fiber_block&) { use_stack(8192); };
  fiber.start(a_little);
  const auto shallow = usage_of(size).high_water;
  EXPECT_GT(shallow, 8192U);
  EXPECT_LT(shallow, 300'000U);
  auto much = [](fiber_block&) { use_stack(500'000); };
  fiber.start(much);
  const auto deep = usage_of(size).high_water;
  EXPECT_GT(deep, 500'000U);
  EXPECT_LE(deep, size);
}

TEST(fiber_stack, is_given_back_when_its_thread_ends) {
  constexpr std::size_t size = 131072;
  std::thread([] {
    pooled fiber(size);
    auto nothing = [](fiber_block&) {};
    fiber.start(nothing);
  }).join();
  const auto left = usage_of(size);
  EXPECT_EQ(left.in_use, 0U);
  EXPECT_EQ(left.idle, 1U);
  std::thread([] { const pooled fiber(size); }).join();
  EXPECT_EQ(usage_of(size).made, 1U);
}

TEST(fiber_switch, there_and_back) {
  pooled fiber;
  int steps = 0;
  auto job = [&](fiber_block& b) {
    for (int i = 0; i < 3; ++i) {
      ++steps;
      EXPECT_FALSE(asio_pulse::hooks::this_thread().switching);
      suspend_fiber(b, [](fiber_block&) { return true; });
    }
  };
  fiber.start(job);
  EXPECT_EQ(steps, 1);
  EXPECT_FALSE(asio_pulse::hooks::this_thread().switching);
  while (machine_of(fiber.block()).park != nullptr) fiber.resume();
  EXPECT_EQ(steps, 3);
}

TEST(fiber_switch, errno_and_exceptions_are_each_sides_own) {
  pooled fiber;
  bool right = true;
  auto job = [&](fiber_block& b) {
    right = right && std::current_exception() == nullptr;
    errno_here() = EDOM;
    try {
      throw std::string("inside");
    } catch (const std::string&) {
      suspend_fiber(b, [](fiber_block&) { return true; });
      right = right && errno_here() == EDOM;
      try {
        throw;
      } catch (const std::string& again) {
        right = right && again == "inside";
      }
    }
    right = right && std::current_exception() == nullptr;
  };
  errno = ERANGE;
  try {
    throw 1;
  } catch (int) {
    fiber.start(job);
    EXPECT_EQ(errno, ERANGE);
    try {
      throw;
    } catch (int n) {
      EXPECT_EQ(n, 1);
    }
  }
  EXPECT_EQ(std::current_exception(), nullptr);
  errno = 0;
  std::thread([&] {
    ready_fiber_thread();
    fiber.resume();
  }).join();
  EXPECT_EQ(errno, 0);
  EXPECT_TRUE(right);
}

TEST(fiber_switch, from_thread_to_thread_while_an_exception_is_handled) {
  pooled fiber;
  std::vector<const asio_pulse::hooks::thread_state*> seen;
  bool right = true;
  auto job = [&](fiber_block& b) {
    for (int i = 0; i < 100; ++i) {
      try {
        throw i;
      } catch (int) {
        seen.push_back(b.thread);
        suspend_fiber(b, [](fiber_block&) { return true; });
        try {
          throw;
        } catch (int n) {
          right = right && n == i;
        }
      }
      right = right && std::uncaught_exceptions() == 0;
    }
  };
  fiber.start(job);
  while (machine_of(fiber.block()).park != nullptr) {
    std::thread([&] {
      ready_fiber_thread();
      fiber.resume();
      right = right && std::current_exception() == nullptr;
    }).join();
  }
  EXPECT_TRUE(right);
  EXPECT_EQ(seen.size(), 100U);
}

TEST(fiber_switch, unwinds_what_is_suspended) {
  fiber_block* const b = take_fiber(fiber_size_class(default_size));
  ASSERT_NE(b, nullptr);
  if (b->discard == nullptr) make_fiber(*b);
  static int destroyed;
  destroyed = 0;
  fiber_machine& m = machine_of(*b);
  m.argument = nullptr;
  m.job = [](fiber_block& self, void*) {
    struct object {
      ~object() { ++destroyed; }
    } const o;
    try {
      suspend_fiber(self, [](fiber_block&) { return true; });
      ADD_FAILURE();
    } catch (const fiber_unwind&) {
      ++destroyed;
    }
  };
  enter_fiber(*b);
  EXPECT_EQ(destroyed, 0);
  unwind_fiber(*b);
  EXPECT_EQ(destroyed, 2);
  EXPECT_EQ(usage_of(default_size).in_use, 0U);
}

[[gnu::noinline]] int endless(volatile int* outer) {
  volatile int here[64] = {};
  here[0] = *outer + 1;
  return here[0] == 0 ? 0 : endless(here) + here[1];
}

TEST(fiber_overflow_death, says_what_it_is) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        pooled fiber(16384);
        auto job = [](fiber_block&) {
          volatile int n = 0;
          endless(&n);
        };
        fiber.start(job);
      },
      "asio_pulse: stack overflow on a fiber in .*[a-z_]+.*: its stack has 16384 bytes; raise "
      "asio_pulse::options.fiber_stack");
}

TEST(fiber_overflow_death, other_faults_are_left_alone) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        signal(SIGSEGV, [](int) {
          constexpr char text[] = "the handler before ours\n";
          (void)!write(2, text, sizeof text - 1);
          _exit(1);
        });
        const pooled fiber;
        raise(SIGSEGV);
      },
      "^the handler before ours\n$");
}

// Makes a fault, with an earlier handler that asks for these flags and mask.
void fault_after(int flags, void (*handler)(int), int masked = 0) {
  struct sigaction before {};
  before.sa_handler = handler;
  before.sa_flags = flags;
  sigemptyset(&before.sa_mask);
  if (masked != 0) sigaddset(&before.sa_mask, masked);
  sigaction(SIGSEGV, &before, nullptr);
  signal(SIGUSR1, [](int) { _exit(3); });
  const pooled fiber;
  raise(SIGSEGV);
}

// As crash handlers do: the signal that it raises has to end the process, with its core dump.
void raise_again(int signal) {
  raise(signal);
  _exit(1);
}
bool got(int signal) {
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, signal) == 1;
}

TEST(fiber_overflow_death, the_handler_before_ours_gets_the_flags_that_it_asked_for) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const testing::KilledBySignal by_segv(SIGSEGV);
  EXPECT_EXIT(
      fault_after(static_cast<int>(static_cast<unsigned>(SA_RESETHAND) | SA_NODEFER), raise_again),
      by_segv, "");
  // It returns, and the next fault has the default action.
  EXPECT_EXIT(
      {
        fault_after(static_cast<int>(static_cast<unsigned>(SA_RESETHAND)), [](int) {});
        raise(SIGSEGV);
        _exit(4);
      },
      by_segv, "");
  // Blocked unless it asked for the opposite.
  EXPECT_EXIT(fault_after(0,
                          [](int s) {
                            raise(s);
                            _exit(got(s) ? 5 : 6);
                          }),
              testing::ExitedWithCode(5), "");
}

TEST(fiber_overflow_death, the_handler_before_ours_gets_the_mask_that_it_asked_for) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(fault_after(
                  0,
                  [](int) {
                    raise(SIGUSR1);
                    _exit(got(SIGUSR1) ? 5 : 6);
                  },
                  SIGUSR1),
              testing::ExitedWithCode(5), "");
}

TEST(fiber_overflow_death, what_was_ignored_stays_ignored) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        fault_after(SA_SIGINFO, SIG_IGN);
        _exit(7);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
