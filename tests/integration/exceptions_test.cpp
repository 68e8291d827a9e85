// SPDX-License-Identifier: BSL-1.0

// Exceptions leave run() as in plain Asio, and handlers behind the one that threw are still run.
// Callbacks that throw, or that destroy what they are called from, do no harm.

#include <support/scenario.hpp>
//
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gmock/gmock.h>

#include <optional>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;
using testing::ElementsAreArray;

struct numbered_fault : std::runtime_error {
  explicit numbered_fault(int n) : std::runtime_error("thrown"), number(n) {}
  int number;
};

/// Runs until nothing is left; the numbers that were thrown, in order.
template <class Run>
std::vector<int> caught_from(asio_pulse::io_context& io, Run run) {
  std::vector<int> numbers;
  for (;;) {
    io.restart();
    try {
      if (run() == 0) return numbers;
    } catch (const numbered_fault& e) {
      numbers.push_back(e.number);
    }
  }
}

class exceptions : public testing::Test {
 protected:
  std::function<void()> step(int i) {
    return [this, i] {
      order.push_back(i);
      if (i % 7 == 3) throw numbered_fault(i);
    };
  }
  void expect_all(int count, const std::vector<int>& numbers) {
    EXPECT_THAT(order, ElementsAreArray(counting_to(count)));
    std::vector<int> expected;
    for (int i = 3; i < count; i += 7) expected.push_back(i);
    EXPECT_EQ(numbers, expected);
    EXPECT_EQ(io.stats().parked, 0U);
    EXPECT_EQ(asio_pulse::this_task::id(), 0U) << "a thread-local was not restored";
  }

  asio_pulse::io_context io{steady()};
  std::vector<int> order;
};

TEST_F(exceptions, from_parked_operations_through_run) {
  const offender hog(io);
  for (int i = 0; i < 50; ++i) asio_pulse::post(hog, step(i));
  expect_all(50, caught_from(io, [&] { return io.run(); }));
}

TEST_F(exceptions, from_parked_operations_through_the_other_run_functions) {
  const offender hog(io);
  for (int i = 0; i < 50; ++i) asio_pulse::post(hog, step(i));
  int turn = 0;
  expect_all(50, caught_from(io, [&]() -> std::size_t {
               switch (turn++ % 5) {
                 case 0:
                   return io.run_one();
                 case 1:
                   return io.poll_one();
                 case 2:
                   return io.poll();
                 case 3:
                   return io.run_one_for(1h);
                 default:
                   return io.run_for(1h);
               }
             }));
}

TEST_F(exceptions, from_parked_operations_through_a_base_reference) {
  const offender hog(io);
  for (int i = 0; i < 50; ++i) asio_pulse::post(hog, step(i));
  asio::io_context& base = io;
  expect_all(50, caught_from(io, [&] { return base.run(); }));
}

TEST_F(exceptions, from_a_strand_of_a_task_under_measures) {
  const offender hog(io);
  const auto strand = asio::make_strand(io);
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 50; ++i) {
      asio::post(strand, [next = step(i)]() mutable {
        burn(60us);  // longer than a slice: the reactor has waited for one
        next();
      });
    }
  }
  asio::steady_timer reactor(io);
  expect_all(50, caught_from(io, [&] { return io.run_one(); }));
  EXPECT_GT(io.stats().strand_breaks, 0U);
}

TEST_F(exceptions, from_a_strand_of_a_quiet_task) {
  const asio_pulse::task t{io, unlimited("quiet")};
  const auto strand = asio::make_strand(io);
  {
    const asio_pulse::task_scope scope(t);
    for (int i = 0; i < 50; ++i) asio::post(strand, step(i));
  }
  expect_all(50, caught_from(io, [&] { return io.run_one(); }));
  EXPECT_EQ(t.stats().polls, 50U);
}

TEST_F(exceptions, from_a_tasks_executor) {
  const asio_pulse::task t{io, unlimited("quiet")};
  for (int i = 0; i < 50; ++i) asio::post(t.get_executor(), step(i));
  expect_all(50, caught_from(io, [&] { return io.run_one(); }));
  EXPECT_EQ(t.stats().polls, 50U);
  EXPECT_FALSE(t.get_executor().running_in_this_thread());
}

TEST_F(exceptions, from_a_tasks_executor_while_it_is_parked) {
  const offender hog(io);
  for (int i = 0; i < 50; ++i) asio::post(hog.task.get_executor(), step(i));
  expect_all(50, caught_from(io, [&] { return io.run_one(); }));
}

TEST_F(exceptions, from_a_nested_poll) {
  const offender hog(io);
  const asio_pulse::task outer{io, unlimited("outer")};
  std::uint64_t inside = 0;
  asio_pulse::post(outer, [&] {
    for (int i = 0; i < 10; ++i) asio_pulse::post(hog, step(i));
    try {
      io.poll();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const numbered_fault& e) {
      EXPECT_EQ(e.number, 3);
    }
    inside = asio_pulse::this_task::id();
    io.poll();
  });
  EXPECT_EQ(io.run(), 1U);
  EXPECT_EQ(inside, outer.id());
  EXPECT_THAT(order, ElementsAreArray(counting_to(10)));
  EXPECT_EQ(outer.stats().polls, 1U);
}

TEST_F(exceptions, from_a_nested_poll_through_the_outer_run) {
  const offender hog(io);
  const asio_pulse::task outer{io, unlimited("outer")};
  asio_pulse::post(outer, [&] {
    for (int i = 0; i < 10; ++i) asio_pulse::post(hog, step(i));
    io.poll();
  });
  expect_all(10, caught_from(io, [&] { return io.run(); }));
  EXPECT_EQ(outer.stats().polls, 1U);
}

TEST_F(exceptions, from_a_nested_strand_inside_a_handler) {
  const asio_pulse::task outer{io, unlimited("outer")};
  const asio_pulse::task inner{io, unlimited("inner")};
  const auto strand = asio::make_strand(io);
  asio_pulse::post(outer, [&] {
    {
      const asio_pulse::task_scope scope(inner);
      for (int i = 0; i < 5; ++i) asio::post(strand, step(i));
    }
    EXPECT_THROW(io.poll(), numbered_fault);
    EXPECT_EQ(asio_pulse::this_task::id(), outer.id());
  });
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(5)));
  EXPECT_EQ(outer.stats().polls, 1U);
  EXPECT_EQ(inner.stats().polls, 5U);
}

TEST_F(exceptions, out_of_a_coroutine) {
  const offender hog(io);
  std::exception_ptr got;
  asio_pulse::co_spawn(
      hog,
      [this]() -> asio::awaitable<void> {
        co_await asio::post(io, asio::use_awaitable);
        throw numbered_fault(1);
      },
      [&](std::exception_ptr e) { got = e; });
  io.run();
  ASSERT_TRUE(got);
  EXPECT_THROW(std::rethrow_exception(got), numbered_fault);
}

TEST_F(exceptions, from_the_completion_handler_of_a_coroutine) {
  const offender hog(io);
  asio_pulse::co_spawn(
      hog, [this]() -> asio::awaitable<void> { co_await asio::post(io, asio::use_awaitable); },
      [&](std::exception_ptr) { throw numbered_fault(5); });
  EXPECT_EQ(caught_from(io, [&] { return io.run(); }), std::vector<int>{5});
}

TEST_F(exceptions, with_a_budget_annotation_in_force) {
  const asio_pulse::task t{io, unlimited("t")};
  asio_pulse::post(t, [] {
    ASIO_PULSE_PREEMPTION_BUDGET(1ms);
    throw numbered_fault(1);
  });
  bool same = false;
  asio_pulse::post(t, [&] { same = asio_pulse::this_task::id() == t.id(); });
  EXPECT_EQ(caught_from(io, [&] { return io.run(); }), std::vector<int>{1});
  EXPECT_TRUE(same);
}

TEST_F(exceptions, on_two_threads) {
  const offender hog(io);
  std::atomic<int> ran{0};
  std::atomic<int> caught{0};
  const auto strand = asio::make_strand(io);
  for (int i = 0; i < 500; ++i) {
    const auto f = [&, i] {
      ++ran;
      if (i % 10 == 0) throw numbered_fault(i);
    };
    asio_pulse::post(hog, f);
    asio::post(hog.task.get_executor(), f);
    const asio_pulse::task_scope scope(hog);
    asio::post(strand, f);
  }
  on_threads(2, [&](std::size_t) {
    for (;;) {
      try {
        io.run();
        return;
      } catch (const numbered_fault&) {
        ++caught;
      }
    }
  });
  EXPECT_EQ(ran, 1500);
  EXPECT_EQ(caught, 150);
}

// An exception of an isolated handler comes out of the home context's run(), not the pool's.
TEST(exceptions_of_isolated_handlers, come_out_of_the_home_contexts_run) {
  asio_pulse::io_context io{steady_isolating()};
  auto o = stingy("movable");
  o.isolatable = true;
  const asio_pulse::task t{io, o};
  climb_to_isolate(io, t);
  const auto home = std::this_thread::get_id();
  std::vector<int> order;
  bool away = false;
  for (int i = 0; i < 30; ++i) {
    asio_pulse::post(t, [&, i] {
      away = away || std::this_thread::get_id() != home;
      order.push_back(i);
      if (i % 7 == 3) throw numbered_fault(i);
    });
  }
  const auto numbers = caught_from(io, [&] { return io.run(); });
  EXPECT_TRUE(away);
  EXPECT_THAT(order, ElementsAreArray(counting_to(30)));
  EXPECT_THAT(numbers, testing::UnorderedElementsAre(3, 10, 17, 24));
}

// ---- callbacks

TEST(callbacks, on_report_that_throws_is_counted_and_goes_no_further) {
  auto o = steady();
  o.stall_threshold = 200us;
  o.watchdog = false;
  o.on_report = [](const report&) { throw numbered_fault(1); };
  asio_pulse::io_context io{o};
  const offender hog(io);
  EXPECT_GT(io.stats().callback_errors, 0U);
  EXPECT_EQ(io.stats().callback_errors, io.stats().reports);
}

TEST(callbacks, hooks_that_throw_are_counted_and_go_no_further) {
  asio_pulse::io_context io{steady()};
  const auto c = io.hooks().install(
      {.task_spawned = [](const asio_pulse::hooks::task_event&) { throw numbered_fault(1); },
       .before_poll = [](const asio_pulse::hooks::poll_event&) { throw numbered_fault(2); },
       .after_poll = [](const asio_pulse::hooks::poll_event&) { throw numbered_fault(3); },
       .tier_changed = [](const asio_pulse::hooks::tier_event&) { throw numbered_fault(4); }});
  const asio_pulse::task t{io, unlimited("t")};
  EXPECT_EQ(io.stats().callback_errors, 1U);
  asio_pulse::post(t, [] {});
  EXPECT_EQ(io.run(), 1U);
  EXPECT_EQ(io.stats().callback_errors, 3U);
  const offender hog(io);  // spawned, polled, changed its tier
  EXPECT_GT(io.stats().callback_errors, 6U);
}

TEST(callbacks, hooks_that_throw_while_a_handlers_exception_is_on_its_way) {
  asio_pulse::io_context io{steady()};
  const auto c = io.hooks().install(
      {.after_poll = [](const asio_pulse::hooks::poll_event&) { throw numbered_fault(3); }});
  const asio_pulse::task t{io, unlimited("t")};
  asio_pulse::post(t, [] { throw numbered_fault(7); });
  try {
    io.run();
    FAIL();
  } catch (const numbered_fault& e) {
    EXPECT_EQ(e.number, 7);
  }
  EXPECT_EQ(io.stats().callback_errors, 1U);
}

TEST(callbacks, on_report_that_destroys_the_task_it_is_about) {
  std::optional<asio_pulse::task> t;
  int reports = 0;
  auto o = steady();
  o.stall_threshold = 200us;
  o.watchdog = false;
  o.on_report = [&](const report& r) {
    ++reports;
    EXPECT_EQ(r.task, "short-lived");
    t.reset();
    EXPECT_EQ(r.task, "short-lived");
  };
  asio_pulse::io_context io{o};
  t.emplace(io, stingy("short-lived"));
  for (int i = 0; i < 5; ++i) asio_pulse::post(*t, [] { burn(1ms); });
  EXPECT_EQ(io.run(), 5U);
  EXPECT_GT(reports, 0);
  EXPECT_FALSE(t);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST(callbacks, tier_hook_that_destroys_the_task_it_is_about) {
  std::optional<asio_pulse::task> t;
  asio_pulse::io_context io{steady()};
  int changes = 0;
  const auto c = io.hooks().install({.tier_changed = [&](const asio_pulse::hooks::tier_event& e) {
    ++changes;
    t.reset();
    EXPECT_EQ(e.task_name, "short-lived");
  }});
  t.emplace(io, stingy("short-lived"));
  for (int i = 0; i < 5; ++i) asio_pulse::post(*t, [] { burn(1ms); });
  EXPECT_EQ(io.run(), 5U);
  EXPECT_GT(changes, 0);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST(callbacks, tier_hook_that_destroys_a_task_whose_last_operation_this_is) {
  std::optional<asio_pulse::task> t;
  auto o = steady();
  o.yield_threshold = 1ms;
  asio_pulse::io_context io{o};
  int changes = 0;
  const auto c = io.hooks().install({.tier_changed = [&](const asio_pulse::hooks::tier_event&) {
    ++changes;
    t.reset();
  }});
  // Repeated in case the clock cannot vouch for the poll.
  for (int n = 0; n < 100 && changes == 0; ++n) {
    t.emplace(io, stingy("short-lived"));
    asio::post(t->get_executor(), [] { burn(3ms); });
    io.run();
    io.restart();
    t.reset();
    EXPECT_EQ(io.stats().tasks, 0U);
  }
  EXPECT_GT(changes, 0);
}

TEST(callbacks, on_report_that_posts_and_polls) {
  std::optional<asio_pulse::io_context> io;
  int reports = 0;
  int ran = 0;
  std::optional<asio_pulse::task> other;
  auto o = steady();
  o.stall_threshold = 200us;
  o.watchdog = false;
  o.on_report = [&](const report&) {
    if (++reports > 3) return;
    asio_pulse::post(*other, [&] { ++ran; });
    io->poll_one();
  };
  io.emplace(o);
  other.emplace(*io, unlimited("other"));
  const asio_pulse::task t{*io, stingy("hog")};
  for (int i = 0; i < 10; ++i) asio_pulse::post(t, [&] { burn(1ms); });
  asio_pulse::post(t, [&] { ++ran; });
  io->run();
  EXPECT_GE(reports, 2);
  EXPECT_EQ(ran, 1 + std::min(reports, 3));
  EXPECT_EQ(t.stats().polls, 11U);
  EXPECT_EQ(other->stats().polls, static_cast<std::uint64_t>(std::min(reports, 3)));
  other.reset();
}

TEST(callbacks, on_report_that_stops_the_context) {
  std::optional<asio_pulse::io_context> io;
  auto o = steady();
  o.stall_threshold = 200us;
  o.watchdog = false;
  o.on_report = [&](const report&) { io->stop(); };
  io.emplace(o);
  const asio_pulse::task t{*io, stingy("hog")};
  int ran = 0;
  for (int i = 0; i < 20; ++i) {
    asio_pulse::post(t, [&] {
      ++ran;
      burn(300us);
    });
  }
  int rounds = 0;
  while (ran < 20 && ++rounds < 1000) {
    io->restart();
    io->run();
  }
  EXPECT_EQ(ran, 20);
  EXPECT_GT(rounds, 1);
}

}  // namespace
