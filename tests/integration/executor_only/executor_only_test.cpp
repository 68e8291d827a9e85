// SPDX-License-Identifier: BSL-1.0

// The executor-only mode: a program without the tracking definition, linked with a library that was
// built on plain Boost.Asio. What goes through a task's executor is accounted for, held back and
// isolated; everything else is plain Asio.

#include "plain_library.hpp"
//
#include <support/scenario.hpp>
//
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <gmock/gmock.h>

#include <algorithm>
#include <optional>
#include <set>

#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING)
#error "the executor-only mode has no tracking definition"
#endif

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::tier;
using testing::ElementsAreArray;

class executor_only_one_thread : public testing::Test {
 protected:
  /// The same as in scenario.hpp, but through the executor, since nothing else counts here.
  static void climb(asio_pulse::io_context& io, const asio_pulse::task& t, tier to,
                    std::chrono::nanoseconds each) {
    for (int n = 0; n < 1000 && t.current_tier() < to; ++n) {
      asio::post(t.get_executor(), [each] { burn(each); });
      io.restart();
      io.run();
    }
    asio::post(t.get_executor(), [] { burn(1ms); });
    io.restart();
    io.run();
    io.restart();
    ASSERT_GE(t.current_tier(), to);
  }

  asio_pulse::io_context io{steady()};
};
class executor_only : public executor_only_one_thread,
                      public testing::WithParamInterface<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(threads, executor_only, testing::Values(1, 2),
                         testing::PrintToStringParamName());

TEST_P(executor_only, operations_have_asios_own_layout) {
  EXPECT_EQ(sizeof(asio::detail::scheduler_operation), plain_library::operation_size());
}

TEST_P(executor_only, the_librarys_work_on_a_tasks_executor_is_the_tasks) {
  const asio_pulse::task t{io, unlimited("library")};
  const auto ex = t.get_executor();
  std::vector<int> posted;
  std::vector<int> in_strand;
  bool right = true;
  const auto check = [&] { right = right && asio_pulse::this_task::id() == t.id(); };
  bool ticked = false;
  std::string came_out;
  int counted = 0;
  plain_library::post_many(ex, 100, [&](int i) {
    check();
    posted.push_back(i);
  });
  plain_library::in_a_strand(ex, 100, [&](int i) {
    check();
    in_strand.push_back(i);
  });
  plain_library::tick(ex, 5, [&] {
    check();
    ticked = true;
  });
  plain_library::through_sockets(ex, "hello, world", [&](std::string s) {
    check();
    came_out = std::move(s);
  });
  plain_library::chain(ex, 20, [&](int n) {
    check();
    counted = n;
  });
  run_on(io, GetParam());
  EXPECT_THAT(posted, ElementsAreArray(counting_to(100)));
  EXPECT_THAT(in_strand, ElementsAreArray(counting_to(100)));
  EXPECT_TRUE(ticked);
  EXPECT_EQ(came_out, "hello, world");
  EXPECT_EQ(counted, 20);
  EXPECT_TRUE(right);
  EXPECT_GE(t.stats().polls, 100U + 5 + 12 + 20);
}

TEST_P(executor_only, the_librarys_work_elsewhere_is_plain_asio) {
  const asio_pulse::task t{io, unlimited("nobody's")};
  std::vector<int> posted;
  std::string came_out;
  std::mutex m;
  plain_library::post_many(io.get_executor(), 100, [&](int i) {
    const std::lock_guard lock(m);
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
    posted.push_back(i);
  });
  plain_library::through_sockets(io.get_executor(), "hello", [&](std::string s) { came_out = s; });
  run_on(io, GetParam());
  EXPECT_EQ(posted.size(), 100U);
  EXPECT_EQ(came_out, "hello");
  EXPECT_EQ(t.stats().polls, 0U);
}

TEST_P(executor_only, the_library_may_run_the_context) {
  const asio_pulse::task t{io, unlimited("t")};
  std::vector<int> posted;
  plain_library::post_many(t.get_executor(), 200, [&](int i) { posted.push_back(i); });
  on_threads(GetParam(), [&](std::size_t) { EXPECT_GE(plain_library::run(io), 0U); });
  EXPECT_THAT(posted, ElementsAreArray(counting_to(200)));
}

TEST_F(executor_only_one_thread, an_over_budget_task_gives_way) {
  const asio_pulse::task hog{io, stingy("hog")};
  climb(io, hog, tier::yield, 300us);
  std::string order;
  plain_library::post_many(hog.get_executor(), 50, [&](int) { order += 'h'; });
  int left = 50;
  std::function<void()> again = [&] {
    order += 'i';
    if (--left > 0) asio::post(io, again);
  };
  asio::post(io, again);
  io.run();
  ASSERT_EQ(order.size(), 100U);
  EXPECT_EQ(order.substr(0, order.rfind('i')).find("hh"), std::string::npos) << order;
}

TEST_F(executor_only_one_thread, offenders_take_turns) {
  const asio_pulse::task a{io, stingy("a")};
  const asio_pulse::task b{io, stingy("b")};
  climb(io, a, tier::yield, 300us);
  climb(io, b, tier::yield, 300us);
  std::string order;
  plain_library::post_many(a.get_executor(), 50, [&](int) {
    order += 'a';
    burn(100us);
  });
  plain_library::post_many(b.get_executor(), 50, [&](int) {
    order += 'b';
    burn(100us);
  });
  io.run();
  ASSERT_EQ(order.size(), 100U);
  // The task that has had less of the CPU continues, which is the same one again if its turn was
  // shorter.
  const std::string both = order.substr(0, std::min(order.rfind('a'), order.rfind('b')));
  EXPECT_EQ(both.find("aaaa"), std::string::npos) << order;
  EXPECT_EQ(both.find("bbbb"), std::string::npos) << order;
}

TEST_F(executor_only_one_thread, a_timer_beside_a_storm_fires_in_between) {
  const asio_pulse::task t{io, stingy("storm")};
  int steps = 0;
  int fired_at = -1;
  plain_library::post_many(t.get_executor(), 200, [&](int) {
    ++steps;
    burn(50us);
  });
  asio::steady_timer timer(io, 0ns);
  timer.async_wait([&](boost::system::error_code) { fired_at = steps; });
  io.run();
  EXPECT_EQ(steps, 200);
  ASSERT_GE(fired_at, 0);
  EXPECT_LT(fired_at, 100);
}

TEST_P(executor_only, checkpoints_and_should_yield_work_in_a_tasks_handlers) {
  auto o = steady();
  o.quantum = 100us;
  o.min_slice = 20us;
  asio_pulse::io_context quick{o};
  const asio_pulse::task t{quick, unlimited("t")};
  bool wanted = false;
  int others = 0;
  std::vector<int> seen;
  asio::post(t.get_executor(), [&] {
    burn(200us);
    for (int i = 0; i < 64 && !wanted; ++i) wanted = asio_pulse::should_yield();
  });
  asio::co_spawn(
      t.get_executor(),
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 5; ++i) {
          asio::post(quick, [&] { ++others; });
          burn(150us);
          while (!asio_pulse::should_yield()) {
          }
          co_await asio_pulse::checkpoint();
          seen.push_back(others);
        }
      },
      asio::detached);
  quick.run();
  EXPECT_TRUE(wanted);
  EXPECT_THAT(seen, testing::ElementsAre(1, 2, 3, 4, 5));
}

TEST_P(executor_only, isolation) {
  asio_pulse::io_context isolating_io{steady_isolating()};
  auto o = stingy("movable");
  o.isolatable = true;
  const asio_pulse::task t{isolating_io, o};
  climb(isolating_io, t, tier::isolate, isolating + 1ms);
  std::mutex m;
  std::set<std::thread::id> home;
  std::vector<int> order;
  std::set<std::thread::id> away;
  plain_library::post_many(t.get_executor(), 200, [&](int i) {
    order.push_back(i);
    away.insert(std::this_thread::get_id());
  });
  plain_library::post_many(isolating_io.get_executor(), 50, [&](int) {
    const std::lock_guard lock(m);
    home.insert(std::this_thread::get_id());
  });
  run_on(isolating_io, GetParam());
  EXPECT_THAT(order, ElementsAreArray(counting_to(200)));
  for (const auto id : away) EXPECT_FALSE(home.contains(id));
  EXPECT_GE(isolating_io.stats().isolated, 200U);
}

TEST_P(executor_only, tokens_of_post_and_co_spawn) {
  auto o = unlimited("movable");
  o.isolatable = true;  // spawns on the executor
  const asio_pulse::task t{io, o};
  std::future<int> value = asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<int> {
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        co_return asio_pulse::this_task::id() == t.id() ? 7 : 0;
      },
      asio::use_future);
  std::future<void> posted = asio_pulse::post(t, asio::use_future);
  run_on(io, GetParam());
  EXPECT_EQ(value.get(), 7);
  posted.get();
}

TEST_P(executor_only, exceptions_leave_through_run_and_nothing_is_lost) {
  const asio_pulse::task t{io, unlimited("t")};
  std::vector<int> order;
  plain_library::post_many(t.get_executor(), 30, [&](int i) {
    order.push_back(i);
    if (i % 10 == 5) throw i;
  });
  int caught = 0;
  for (bool done = false; !done;) {
    try {
      io.run();
      done = true;
    } catch (int) {
      ++caught;
    }
  }
  EXPECT_EQ(caught, 3);
  EXPECT_THAT(order, ElementsAreArray(counting_to(30)));
  EXPECT_EQ(t.stats().polls, 30U);
}

TEST_P(executor_only, destroyed_with_work) {
  const auto alive = std::make_shared<int>();
  {
    asio_pulse::io_context doomed{steady()};
    const asio_pulse::task t{doomed, stingy("t")};
    plain_library::post_many(t.get_executor(), 100, [alive](int) { burn(100us); });
    plain_library::tick(t.get_executor(), 1000, [alive] {});
    for (int i = 0; i < 3; ++i) doomed.poll_one();
  }
  EXPECT_EQ(alive.use_count(), 1);
}

TEST_P(executor_only, a_scope_names_only_what_goes_through_an_executor) {
  const asio_pulse::task t{io, unlimited("t")};
  const asio_pulse::task other{io, unlimited("other")};
  std::atomic<std::uint64_t> plain{1};
  std::atomic<std::uint64_t> named{0};
  {
    const asio_pulse::task_scope scope(other);
    EXPECT_EQ(asio_pulse::this_task::id(), other.id());
    asio::post(io, [&] { plain = asio_pulse::this_task::id(); });
    asio::post(t.get_executor(), [&] { named = asio_pulse::this_task::id(); });
  }
  run_on(io, GetParam());
  EXPECT_EQ(plain, 0U) << "plain Asio carries no task";
  EXPECT_EQ(named, t.id());
}

TEST_P(executor_only, hooks_see_the_polls_of_executors) {
  const asio_pulse::task t{io, unlimited("t")};
  std::atomic<int> before{0};
  std::atomic<int> after{0};
  const auto c = io.hooks().install(
      {.before_poll = [&](const auto&) { ++before; }, .after_poll = [&](const auto&) { ++after; }});
  plain_library::post_many(t.get_executor(), 100, [](int) {});
  plain_library::post_many(io.get_executor(), 100, [](int) {});
  run_on(io, GetParam());
  EXPECT_EQ(before, 100);
  EXPECT_EQ(after, 100);
}

}  // namespace
