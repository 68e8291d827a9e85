// SPDX-License-Identifier: BSL-1.0

// The state that moves with a suspended handler from thread to thread (its exceptions and errno),
// and Asio's own stackful coroutines on our stacks.

#include <support/fibers.hpp>
#include <support/sanitizers.hpp>
//
#include <asio_pulse/spawn.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>

#include <gmock/gmock.h>

#include <cerrno>
#include <exception>
#include <latch>
#include <memory>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;

// ---- exceptions

TEST(preemptible, exceptions_leave_through_run_before_and_after_a_suspension) {
  asio_pulse::io_context io{eager()};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([] { throw std::runtime_error("before"); }));
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               yield_deep_down(3, others);
               throw std::runtime_error("after");
             }));
  std::vector<std::string> seen;
  for (;;) {
    try {
      io.run();
      break;
    } catch (const std::runtime_error& e) {
      seen.emplace_back(e.what());
    }
  }
  EXPECT_THAT(seen, testing::ElementsAre("before", "after"));
}

TEST(preemptible, exceptions_in_flight_go_with_the_fiber) {
  asio_pulse::io_context io{eager()};
  std::atomic<int> right{0};
  const int count = sanitized ? 20 : 200;
  for (int n = 0; n < count; ++n) {
    asio::post(io, asio_pulse::preemptible([&, n] {
                 const std::string outer = "outer " + std::to_string(n);
                 const std::string inner = "inner " + std::to_string(n);
                 try {
                   try {
                     throw std::runtime_error(outer);
                   } catch (const std::runtime_error&) {
                     for (int i = 0; i < 5; ++i) yield_once();
                     try {
                       throw std::logic_error(inner);
                     } catch (const std::logic_error&) {
                       for (int i = 0; i < 5; ++i) yield_once();
                       try {
                         throw;
                       } catch (const std::logic_error& e) {
                         right += e.what() == inner;
                       }
                     }
                     yield_once();
                     EXPECT_EQ(std::uncaught_exceptions(), 0);
                     throw;
                   }
                 } catch (const std::runtime_error& e) {
                   right += e.what() == outer;
                 }
                 EXPECT_EQ(std::current_exception(), nullptr);
               }));
    asio::post(io, [&] {
      EXPECT_EQ(std::current_exception(), nullptr);
      EXPECT_EQ(std::uncaught_exceptions(), 0);
    });
  }
  run_on(io, 3);
  EXPECT_EQ(right.load(), 2 * count);
}

TEST(preemptible, is_not_suspended_while_the_stack_unwinds) {
  asio_pulse::io_context io{eager()};
  std::string order;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { order += 'x'; });
               struct guard {
                 std::string& order;
                 ~guard() {
                   for (int i = 0; i < 5; ++i) yield_once();
                   order += 'd';
                 }
               };
               try {
                 const guard g{order};
                 throw 1;
               } catch (int) {
                 order += 'c';
               }
             }));
  io.run();
  EXPECT_EQ(order, "dcx");
}

// ---- from thread to thread

[[gnu::noinline]] std::thread::id id_here() {
  asm volatile("");
  return std::this_thread::get_id();
}
[[gnu::noinline]] int& errno_now() {
  asm volatile("");
  return errno;
}
[[gnu::noinline]] int& tls_here() {
  static thread_local int n = 0;
  asm volatile("");
  return n;
}

/// An executor that sends each part to the other of two contexts.
struct ping_pong {
  asio_pulse::io_context* contexts[2];
  int* turn;
  asio::execution_context& query(asio::execution::context_t) const noexcept { return *contexts[0]; }
  static constexpr asio::execution::blocking_t query(asio::execution::blocking_t) noexcept {
    return asio::execution::blocking.never;
  }
  template <class F>
  void execute(F f) const {
    *turn ^= 1;
    asio::require(contexts[*turn]->get_executor(), asio::execution::blocking.never)
        .execute(std::move(f));
  }
  bool operator==(const ping_pong&) const noexcept = default;
};

TEST(preemptible, goes_on_on_another_thread) {
  // Two threads, each running a context of its own: the rest is posted from one to the other.
  asio_pulse::io_context a{eager()};
  asio_pulse::io_context b{eager()};
  const int hops = 200;
  int turn = 1;
  std::thread::id ids[2];
  std::latch both{2};
  auto work_a = asio::make_work_guard(a);
  auto work_b = asio::make_work_guard(b);
  asio::post(a, [&] {
    ids[0] = id_here();
    tls_here() = 1000;
    both.arrive_and_wait();
  });
  asio::post(b, [&] {
    ids[1] = id_here();
    tls_here() = 2000;
    both.arrive_and_wait();
  });
  int right = 0;
  int moves = 0;
  const ping_pong executor{{&a, &b}, &turn};
  executor.execute(asio_pulse::preemptible(asio::bind_executor(executor, [&] {
    std::thread::id before = id_here();
    for (int hop = 0; moves < hops && hop < 1'000'000; ++hop) {
      errno_now() = hop;
      try {
        throw hop;
      } catch (int thrown) {
        burn(2us);
        asio_pulse::this_fiber::checkpoint();
        try {
          throw;
        } catch (int again) {
          right += again == thrown ? 0 : -1;
        }
      }
      right += errno_now() == hop ? 0 : -1;
      right += std::uncaught_exceptions() == 0 && std::current_exception() == nullptr ? 0 : -1;
      const std::thread::id now = id_here();
      if (now != before) {
        ++moves;
        before = now;
      }
      const int expected = now == ids[0] ? 1000 : now == ids[1] ? 2000 : -1;
      right += tls_here() == expected ? 0 : -1;
    }
    work_a.reset();
    work_b.reset();
  })));
  std::thread other([&] { b.run(); });
  a.run();
  other.join();
  EXPECT_EQ(moves, hops);
  EXPECT_EQ(right, 0);
}

TEST(preemptible, many_on_several_threads) {
  asio_pulse::io_context io{eager()};
  std::atomic<int> ended{0};
  std::atomic<int> wrong{0};
  const int count = sanitized ? 50 : 500;
  for (int n = 0; n < count; ++n) {
    asio::post(io, asio_pulse::preemptible([&, n] {
                 for (int i = 0; i < 20; ++i) {
                   errno_now() = n;
                   yield_once();
                   if (errno_now() != n) ++wrong;
                 }
                 ++ended;
               }));
  }
  run_on(io, 4);
  EXPECT_EQ(ended.load(), count);
  EXPECT_EQ(wrong.load(), 0);
}

// ---- coroutines of Asio's on our stacks

#if defined(ASIO_PULSE_DETAIL_POOLED_SPAWN)

// Asio does not notify the sanitizers of its switches (unless Boost.Context is built with its own
// support). An exception on such a stack confuses AddressSanitizer, and the switch itself confuses
// ThreadSanitizer.

TEST(pooled_spawn, checkpoints_suspend_it_and_asio_awaits) {
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "Asio's own switches are unknown to ThreadSanitizer";
#endif
  asio_pulse::io_context io{eager()};
  const asio_pulse::task t{io, unlimited("t")};
  int others = 0;
  std::string order;
  asio_pulse::spawn(
      t,
      [&](auto yield) {
        EXPECT_NE(asio_pulse::detail::fiber_here(), nullptr);
        asio::steady_timer timer(io, 1ms);
        timer.async_wait(yield);
        order += 'a';
        asio::post(io, [&] {
          ++others;
          order += 'b';
        });
        if (sanitized) {
          yield_deep_down(10, others);
        } else {
          try {
            throw std::runtime_error("x");
          } catch (const std::runtime_error&) {
            yield_deep_down(10, others);
            EXPECT_NE(std::current_exception(), nullptr);
          }
          EXPECT_EQ(std::current_exception(), nullptr);
        }
        order += 'c';
        EXPECT_EQ(asio_pulse::this_task::id(), t.id());
        // A preemptible handler called here is part of the coroutine.
        asio_pulse::preemptible([&] {
          asio::post(io, [&] { ++others; });
          yield_deep_down(0, others);
        })();
      },
      asio::detached);
  io.run();
  EXPECT_EQ(order, "abc");
  EXPECT_EQ(others, 2);
}

TEST(pooled_spawn, suspended_at_a_checkpoint_is_unwound_with_its_context) {
  if (sanitized) GTEST_SKIP() << "Asio's own switches are unknown to the sanitizers";
  const auto alive = std::make_shared<int>(0);
  {
    asio_pulse::io_context io{eager()};
    const asio_pulse::task t{io, unlimited("t")};
    asio_pulse::spawn(
        t,
        [inside = alive](auto) {
          for (;;) yield_once();
        },
        asio::detached);
    for (int i = 0; i < 20; ++i) io.run_one();
    EXPECT_GT(alive.use_count(), 1);
  }
  EXPECT_EQ(alive.use_count(), 1);
  for (const auto& stacks : asio_pulse::fiber_stack_usage()) EXPECT_EQ(stacks.in_use, 0U);
}

#endif

}  // namespace
