// SPDX-License-Identifier: BSL-1.0

// Isolation: a declared task runs on other threads, in order and without overlap, and comes back.
// If that would be unsafe, it is refused and reported.

#include <support/scenario.hpp>
//
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gmock/gmock.h>

#include <mutex>
#include <set>

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::isolation_priority;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::tier;
using testing::ElementsAreArray;

asio_pulse::task_options movable(std::string name = "movable") {
  auto o = stingy(std::move(name));
  o.isolatable = true;
  return o;
}

class isolation : public testing::TestWithParam<std::size_t> {
 protected:
  asio_pulse::io_context io{steady_isolating()};
};
INSTANTIATE_TEST_SUITE_P(threads, isolation, testing::Values(1, 2),
                         testing::PrintToStringParamName());

TEST_P(isolation, runs_elsewhere_in_order_without_overlap) {
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  std::mutex m;
  std::set<std::thread::id> workers;
  std::set<std::thread::id> isolated;
  std::vector<int> order;  // unguarded on purpose: one handler at a time
  std::atomic<int> inside{0};
  for (int i = 0; i < 1000; ++i) {
    asio_pulse::post(t, [&, i] {
      const alone here(inside);
      EXPECT_EQ(asio_pulse::this_task::id(), t.id());
      EXPECT_TRUE(t.get_executor().running_in_this_thread());
      isolated.insert(std::this_thread::get_id());
      order.push_back(i);
    });
    asio::post(io, [&] {
      const std::lock_guard lock(m);
      workers.insert(std::this_thread::get_id());
    });
  }
  run_on(io, GetParam());
  EXPECT_THAT(order, ElementsAreArray(counting_to(1000)));
  for (const auto id : isolated) EXPECT_FALSE(workers.contains(id));
  EXPECT_EQ(io.stats().isolated, 1000U);
  EXPECT_EQ(io.stats().isolations_refused, 0U);
}

TEST_P(isolation, order_holds_on_the_way_there_and_back) {
  auto o = steady_isolating();
  o.tiers.clean_window = 1ms;
  o.tiers.isolate_clean_window = 1ms;
  asio_pulse::io_context moving{o};
  const asio_pulse::task t{moving,
                           {.name = "to and fro", .budget = 200us, .per = 1ms, .isolatable = true}};
  std::vector<int> order;
  std::atomic<int> inside{0};
  std::mutex m;
  std::set<std::thread::id> home;
  for (int i = 0; i < 600; ++i) {
    asio_pulse::post(t, [&, i] {
      const alone here(inside);
      order.push_back(i);
      if (i % 100 == 0) burn(isolating + 1ms);
      if (i % 100 > 50) std::this_thread::sleep_for(200us);  // is clean on the pool meanwhile
    });
  }
  on_threads(GetParam(), [&](std::size_t) {
    {
      const std::lock_guard lock(m);
      home.insert(std::this_thread::get_id());
    }
    moving.run();
  });
  EXPECT_THAT(order, ElementsAreArray(counting_to(600)));
  const auto s = moving.stats();
  EXPECT_GT(s.isolated, 0U);
  EXPECT_LT(s.isolated, 600U) << "it never came back";
}

TEST(isolation_one_thread, comes_back_after_a_clean_window) {
  auto o = steady_isolating();
  o.tiers.clean_window = 1ms;
  o.tiers.isolate_clean_window = 1ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, {.name = "mends", .budget = 500us, .per = 2ms, .isolatable = true}};
  // Not climb_to_isolate(): the task may already have been demoted when its tier is read.
  for (int n = 0; n < 100 && io.stats().isolated == 0; ++n) {
    asio_pulse::post(t, [] { burn(isolating + 1ms); });
    asio_pulse::post(t, [] {});
    io.restart();
    io.run();
  }
  ASSERT_GT(io.stats().isolated, 0U);
  const auto home = std::this_thread::get_id();
  bool came_back = false;
  // The task has to be clean for a while by the wall clock, however slow the machine is.
  const auto give_up = std::chrono::steady_clock::now() + 60s;
  while (!came_back && std::chrono::steady_clock::now() < give_up) {
    asio_pulse::post(t, [&] { came_back = std::this_thread::get_id() == home; });
    io.restart();
    io.run();
    std::this_thread::yield();
  }
  EXPECT_TRUE(came_back);
  EXPECT_LT(t.current_tier(), tier::isolate);
  EXPECT_GT(io.stats().demotions, 0U);
}

TEST(isolation_one_thread, coroutines_of_an_isolatable_task_move_too) {
  asio_pulse::io_context io{steady_isolating()};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  const auto home = std::this_thread::get_id();
  int away = 0;
  bool done = false;
  asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<void> {
        asio::steady_timer timer(co_await asio::this_coro::executor);
        for (int i = 0; i < 10; ++i) {
          away += std::this_thread::get_id() != home;
          timer.expires_after(100us);
          co_await timer.async_wait(asio::use_awaitable);
          co_await asio_pulse::checkpoint();
        }
        done = true;
      },
      [](std::exception_ptr e) { EXPECT_FALSE(e); });
  io.run();
  EXPECT_TRUE(done);
  EXPECT_EQ(away, 10);
}

TEST(isolation_one_thread, the_worker_is_free_while_an_isolated_handler_runs) {
  asio_pulse::io_context io{steady_isolating()};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  std::atomic<bool> others_done{false};
  asio_pulse::post(t, [&] {
    // Deadlocks unless the home thread continues to run handlers.
    while (!others_done) std::this_thread::yield();
  });
  int left = 100;
  std::function<void()> again = [&] {
    if (--left > 0) {
      asio::post(io, again);
    } else {
      others_done = true;
    }
  };
  asio::post(io, again);
  io.run();
  EXPECT_EQ(left, 0);
}

TEST(isolation_one_thread, two_isolated_tasks_on_two_threads_run_side_by_side) {
  auto o = steady_isolating();
  o.isolation_threads = 2;
  asio_pulse::io_context io{o};
  const asio_pulse::task a{io, movable("a")};
  const asio_pulse::task b{io, movable("b")};
  climb_to_isolate(io, a);
  climb_to_isolate(io, b);
  std::atomic<int> met{0};
  const auto meet = [&] {
    ++met;
    while (met < 2) std::this_thread::yield();
  };
  asio_pulse::post(a, meet);
  asio_pulse::post(b, meet);
  io.run();
  EXPECT_EQ(met, 2);
}

// ---- the pool gives way

#if defined(__linux__)
struct priority_seen {
  int policy = -1;
  int nice = -100;
};

priority_seen priority_under(isolation_priority how, int nice) {
  auto o = steady_isolating();
  o.isolation_priority = how;
  o.isolation_nice = nice;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  priority_seen seen;
  asio_pulse::post(t, [&] {
    seen.policy = sched_getscheduler(0);
    seen.nice = getpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()));
  });
  io.run();
  return seen;
}

TEST(isolation_priority_test, batch_is_the_default_and_real) {
  EXPECT_EQ(asio_pulse::options{}.isolation_priority, isolation_priority::batch);
  EXPECT_EQ(priority_under(isolation_priority::batch, 10).policy, SCHED_BATCH);
}
TEST(isolation_priority_test, idle) {
  EXPECT_EQ(priority_under(isolation_priority::idle, 10).policy, SCHED_IDLE);
}
TEST(isolation_priority_test, nice) {
  const auto seen = priority_under(isolation_priority::nice, 7);
  EXPECT_EQ(seen.policy, SCHED_OTHER);
  EXPECT_EQ(seen.nice, 7);
}
TEST(isolation_priority_test, normal_is_left_alone) {
  const auto seen = priority_under(isolation_priority::normal, 7);
  EXPECT_EQ(seen.policy, sched_getscheduler(0));
  EXPECT_EQ(seen.nice, getpriority(PRIO_PROCESS, 0));
}
#endif

// ---- refused

struct refusal {
  std::string detail;
  std::uint64_t refused = 0;
  std::uint64_t isolated = 0;
  bool stayed = true;
};

template <class... Hint>
refusal provoke(asio_pulse::options o, asio_pulse::task_options t_options, Hint... hint) {
  refusal r;
  o.on_report = [&](const report& what) {
    if (what.kind == report_kind::isolation_refused) r.detail = what.detail;
  };
  asio_pulse::io_context io{o, hint...};
  const asio_pulse::task t{io, t_options};
  climb_to_isolate(io, t);
  const auto home = std::this_thread::get_id();
  for (int i = 0; i < 20; ++i) {
    asio_pulse::post(t, [&] { r.stayed = r.stayed && std::this_thread::get_id() == home; });
  }
  io.run();
  r.refused = io.stats().isolations_refused;
  r.isolated = io.stats().isolated;
  return r;
}

void expect_refused(const refusal& r, const char* why) {
  EXPECT_GE(r.refused, 1U);
  EXPECT_EQ(r.isolated, 0U);
  EXPECT_TRUE(r.stayed);
  EXPECT_THAT(r.detail, testing::HasSubstr(why));
}

TEST(isolation_refused, for_a_task_that_was_not_declared) {
  expect_refused(provoke(steady_isolating(), stingy("undeclared")), "isolatable");
}
TEST(isolation_refused, for_a_single_threaded_context) {
  expect_refused(provoke(steady_isolating(), movable(), 1), "for one thread");
}
TEST(isolation_refused, for_a_context_without_locks) {
  expect_refused(provoke(steady_isolating(), movable(), BOOST_ASIO_CONCURRENCY_HINT_UNSAFE),
                 "for one thread");
}
TEST(isolation_refused, for_a_context_whose_reactor_has_no_lock) {
  expect_refused(provoke(steady_isolating(), movable(), BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO),
                 "for one thread");
}
TEST(isolation_refused, without_isolation_threads) {
  auto o = steady_isolating();
  o.isolation_threads = 0;
  expect_refused(provoke(o, movable()), "isolation_threads");
}

TEST(isolation_refused, not_for_a_movable_task) {
  asio_pulse::io_context io{steady_isolating()};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  EXPECT_EQ(io.stats().isolations_refused, 0U);
}

}  // namespace
