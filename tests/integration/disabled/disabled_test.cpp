// SPDX-License-Identifier: BSL-1.0

// ASIO_PULSE_DISABLE: a program that uses asio-pulse compiles and works without it, and its
// operations are those of Asio.

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/spawn.hpp>
//
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <type_traits>
#include <vector>

#if !defined(ASIO_PULSE_DISABLE)
#error "link asio_pulse::disabled"
#endif
#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING) || defined(ASIO_PULSE_TRACKING)
#error "there is nothing to track"
#endif

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

// ---- Asio's own layout

// The members of scheduler_operation without our base class.
struct stock_operation {
  void* next;
  void (*func)();
  unsigned task_result;
};
static_assert(sizeof(asio::detail::scheduler_operation) == sizeof(stock_operation));
static_assert(sizeof(asio_pulse::io_context) == sizeof(asio::io_context));
static_assert(
    std::is_same_v<asio_pulse::io_context::executor_type, asio::io_context::executor_type>);
static_assert(std::is_same_v<asio_pulse::task::executor_type, asio::io_context::executor_type>,
              "a task's executor is the context's: no detour");
static_assert(!asio_pulse::should_yield());
static_assert(asio_pulse::this_task::id() == 0);
static_assert(std::is_empty_v<asio_pulse::task_scope>);
static_assert(std::is_empty_v<asio_pulse::critical_section>);

// A posted handler's operation: Asio's three words, the handler, the allocator, and no word more.
TEST(disabled, operations_have_stocks_size) {
  struct stock_post : stock_operation {
    void (*handler)();
    std::allocator<void> allocator;
  };
  using op = asio::detail::executor_op<void (*)(), std::allocator<void>>;
  EXPECT_EQ(sizeof(asio::detail::scheduler_operation), sizeof(stock_operation));
  EXPECT_EQ(sizeof(op), sizeof(stock_post));
}

// ---- the same program

std::uint64_t annotated() {
  ASIO_PULSE_PREEMPTION_BUDGET(2ms);
  const asio_pulse::critical_section guard;
  return asio_pulse::this_task::id();
}

TEST(disabled, options_change_without_an_effect) {
  asio_pulse::io_context io;
  const asio_pulse::task t{io, {.name = "t"}};
  boost::system::error_code ec = asio_pulse::error::invalid_option;
  io.update({.accepted = {.budget = 1ms}, .shadow = true});
  io.update({.quantum = 1ms}, ec);
  EXPECT_FALSE(ec);
  io.update_to(io.get_options());
  io.classify([](const asio_pulse::accepted_connection&) { return asio_pulse::group_ref(); });
  EXPECT_FALSE(asio_pulse::this_task::join(asio_pulse::task_group(io)));
  io.update_to(asio_pulse::options{.quantum = 1ms}, ec);
  EXPECT_FALSE(ec);
  t.update({.budget = 1ms, .per = 10ms});
  t.update({.budget = 1ms, .per = 10ms}, ec);
  EXPECT_FALSE(ec);
}

TEST(disabled, every_constructor_of_a_context) {
  asio_pulse::io_context a;
  asio_pulse::io_context b{1};
  asio_pulse::io_context c{asio_pulse::options{.quantum = 1ms}};
  asio_pulse::io_context d{asio_pulse::options{}, 2};
  for (auto* io : {&a, &b, &c, &d}) {
    asio::post(*io, [] {});
    EXPECT_EQ(io->run(), 1U);
    EXPECT_EQ(io->stats().yields, 0U);
  }
}

TEST(disabled, every_run_function) {
  asio_pulse::io_context io;
  const auto refill = [&] {
    io.restart();
    for (int i = 0; i < 3; ++i) asio::post(io, [] {});
  };
  refill();
  EXPECT_EQ(io.run_one(), 1U);
  EXPECT_EQ(io.poll_one(), 1U);
  EXPECT_EQ(io.run_one_for(1h), 1U);
  refill();
  EXPECT_EQ(io.run_for(1h), 3U);
  refill();
  EXPECT_EQ(io.run_until(std::chrono::steady_clock::now() + 1h), 3U);
  refill();
  EXPECT_EQ(io.poll(), 3U);
}

TEST(disabled, tasks_scopes_and_handlers) {
  asio_pulse::io_context io;
  const asio_pulse::task t{io, asio_pulse::task_options{.name = "t", .budget = 1ms, .per = 10ms}};
  std::vector<int> order;
  {
    const asio_pulse::task_scope scope(t);
    asio_pulse::post(t, [&] { order.push_back(1); });
    asio_pulse::defer(t, [&] { order.push_back(2); });
    asio_pulse::dispatch(t, [&] {
      order.push_back(3);
      EXPECT_EQ(annotated(), 0U);
      EXPECT_FALSE(asio_pulse::should_yield());
    });
    asio::post(t.get_executor(), [&] { order.push_back(4); });
    asio::post(t.start_executor(), [&] { order.push_back(5); });
  }
  std::future<void> done = asio_pulse::post(t, asio::use_future);
  EXPECT_EQ(io.run(), 6U);
  done.get();
  EXPECT_THAT(order, testing::ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(t.current_tier(), asio_pulse::tier::monitor);
  EXPECT_EQ(t.stats().polls, 0U);
  EXPECT_EQ(&t.context(), &io);
  EXPECT_FALSE(t.isolatable());
  EXPECT_EQ(t, t);
}

TEST(disabled, coroutines_and_checkpoints) {
  asio_pulse::io_context io;
  const asio_pulse::task t{io, {}};
  int steps = 0;
  const auto body = [&]() -> asio::awaitable<int> {
    ASIO_PULSE_PREEMPTION_BUDGET(2ms);
    for (int i = 0; i < 10; ++i) {
      ++steps;
      co_await asio_pulse::checkpoint();
      ASIO_PULSE_CHECKPOINT();
    }
    asio::steady_timer timer(io, 1ms);
    co_await timer.async_wait(asio::use_awaitable);
    co_await asio_pulse::post(t, asio::use_awaitable);
    co_return steps;
  };
  std::future<int> by_function = asio_pulse::co_spawn(t, body, asio::use_future);
  std::future<int> by_awaitable = asio_pulse::co_spawn(t, body(), asio::use_future);
  asio_pulse::co_spawn(t, body, asio::detached);
  int called = 0;
  asio_pulse::co_spawn(t, body(), [&](std::exception_ptr, int n) { called = n; });
  io.run();
  EXPECT_EQ(by_function.get(), 40);
  EXPECT_EQ(by_awaitable.get(), 40);
  EXPECT_EQ(called, 40);
}

TEST(disabled, stackful_coroutines) {
  asio_pulse::io_context io;
  const asio_pulse::task t{io, {}};
  bool done = false;
  asio_pulse::spawn(
      t,
      [&](asio::yield_context yield) {
        asio::post(io, yield);
        done = true;
      },
      asio::detached);
  io.run();
  EXPECT_TRUE(done);
}

}  // namespace
