// SPDX-License-Identifier: BSL-1.0

// Checkpoints, critical sections and annotated budgets.

#include <support/scenario.hpp>
//
#include <asio_pulse/spawn.hpp>
#include <asio_pulse/task_group.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <set>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;

/// A quantum that one burn() exceeds.
asio_pulse::options short_quantum() {
  auto o = steady();
  o.quantum = 100us;
  o.min_slice = 20us;
  return o;
}

TEST(checkpoint, nothing_is_wanted_outside_handlers) {
  for (int i = 0; i < 5000; ++i) EXPECT_FALSE(asio_pulse::should_yield());
}

TEST(checkpoint, nothing_is_wanted_at_the_start_of_a_poll) {
  if (always_preempt()) GTEST_SKIP() << "every checkpoint yields";
  auto o = steady();
  o.quantum = 1h;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("t")};
  int yields = 0;
  for (int n = 0; n < 100; ++n) {
    asio_pulse::post(t, [&] {
      for (int i = 0; i < 100; ++i) yields += asio_pulse::should_yield();
    });
  }
  io.run();
  EXPECT_EQ(yields, 0);
}

TEST(checkpoint, wanted_when_the_quantum_is_over_and_asked_again_at_once) {
  asio_pulse::io_context io{short_quantum()};
  bool wanted = false;
  bool again = false;
  asio::post(io, [&] {
    burn(200us);
    // Fuel lets a few checkpoints pass before the clock is read.
    for (int i = 0; i < 64 && !wanted; ++i) wanted = asio_pulse::should_yield();
    again = asio_pulse::should_yield();
  });
  io.run();
  EXPECT_TRUE(wanted);
  EXPECT_TRUE(again);
  EXPECT_EQ(io.stats().checkpoint_yields, 2U);
}

TEST(checkpoint, wanted_when_the_budget_is_spent_within_one_poll) {
  auto o = steady();
  o.quantum = 1h;
  o.min_slice = 50us;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, stingy("t")};
  int steps = 0;
  asio_pulse::post(t, [&] {
    do {
      burn(20us);
      ++steps;
    } while (!asio_pulse::should_yield() && steps < 10'000);
  });
  io.run();
  EXPECT_LT(steps, 1000) << "a budget of 200 us, steps of 20 us";
}

TEST(checkpoint, a_new_poll_starts_afresh) {
  if (always_preempt()) GTEST_SKIP() << "every checkpoint yields";
  constexpr auto quantum = 30ms;
  auto o = steady();
  o.quantum = quantum;
  o.min_slice = 20us;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("t")};
  using clock = std::chrono::steady_clock;
  const clock::time_point begin = clock::now();
  clock::time_point last = begin;  // before the poll began
  int polls = 0;
  int proving = 0;
  // The proof is a poll that was itself shorter than the quantum, by the wall clock, when all polls
  // together were longer. On a busy machine some are too long.
  while (proving < 10 && polls < 10'000) {
    asio_pulse::post(t, [&] {
      ++polls;
      burn(2ms);
      const bool wanted = asio_pulse::should_yield();
      const auto now = clock::now();
      if (now - last < quantum) {
        EXPECT_FALSE(wanted) << "in poll " << polls;
        proving += now - begin > quantum ? 1 : 0;
      }
      last = now;
    });
    io.restart();
    io.run_one();
  }
  EXPECT_EQ(proving, 10);
}

TEST(checkpoint, in_a_coroutine_picks_somebody_else) {
  EXPECT_TRUE(holds_in_one_of(10, []() -> testing::AssertionResult {
    asio_pulse::io_context io{short_quantum()};
    const offender a(io);
    const offender b(io);
    std::string order;
    const auto hog = [&order](char name) -> asio::awaitable<void> {
      for (int i = 0; i < 30; ++i) {
        order += name;
        burn(150us);
        while (!asio_pulse::should_yield()) {  // fuel
        }
        co_await asio_pulse::checkpoint();
      }
    };
    asio_pulse::co_spawn(a, hog('a'), asio::detached);
    asio_pulse::co_spawn(b, hog('b'), asio::detached);
    io.run();
    EXPECT_EQ(order.size(), 60U);
    // The task that has had less of the CPU continues, which is the same one again if its turns were
    // shorter. The first turns may be long, and when one has ended, the other one is alone.
    const std::size_t both_end = std::min(order.rfind('a'), order.rfind('b')) + 1;
    if (both_end <= 30) return testing::AssertionFailure() << "one ends early: " << order;
    const std::string both = order.substr(10, both_end - 10);
    if (both.find("aaa") == std::string::npos && both.find("bbb") == std::string::npos) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "one goes on: " << order;
  }));
}

TEST(checkpoint, lets_innocent_work_go_first) {
  asio_pulse::io_context io{short_quantum()};
  const offender a(io);
  int others = 0;
  std::vector<int> others_at_checkpoint;
  asio_pulse::co_spawn(
      a,
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 10; ++i) {
          asio::post(io, [&] { ++others; });
          burn(150us);
          while (!asio_pulse::should_yield()) {
          }
          ASIO_PULSE_CHECKPOINT();
          others_at_checkpoint.push_back(others);
        }
      },
      asio::detached);
  io.run();
  EXPECT_THAT(others_at_checkpoint, testing::ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
}

TEST(checkpoint, suspends_only_when_wanted) {
  if (always_preempt()) GTEST_SKIP() << "every checkpoint yields";
  auto o = steady();
  o.quantum = 1h;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("t")};
  asio_pulse::co_spawn(
      t,
      []() -> asio::awaitable<void> {
        for (int i = 0; i < 10'000; ++i) co_await asio_pulse::checkpoint();
        for (int i = 0; i < 10'000; ++i) ASIO_PULSE_CHECKPOINT();
      },
      asio::detached);
  io.run();
  EXPECT_LT(t.stats().polls, 5U);
}

TEST(checkpoint, deep_in_synchronous_code_of_a_stackful_coroutine) {
  asio_pulse::io_context io{short_quantum()};
  const asio_pulse::task t{io, unlimited("t")};
  int yielded = 0;
  int others = 0;
  asio_pulse::spawn(
      t,
      [&](asio::yield_context yield) {
        for (int i = 0; i < 10; ++i) {
          asio::post(io, [&] { ++others; });
          burn(150us);
          while (!asio_pulse::should_yield()) {
          }
          asio::post(io, yield);
          yielded += others == i + 1;
        }
      },
      asio::detached);
  io.run();
  EXPECT_EQ(yielded, 10);
}

// ---- critical sections

class critical : public testing::Test {
 protected:
  asio_pulse::options with_reports() {
    auto o = short_quantum();
    o.max_critical = 1ms;
    o.on_report = [this](const report& r) {
      if (r.kind == report_kind::critical_overstay) {
        overstays.emplace_back(r.task);
        stayed.push_back(r.poll);
      }
    };
    return o;
  }
  static int ask(int times) {
    int yields = 0;
    for (int i = 0; i < times; ++i) yields += asio_pulse::should_yield();
    return yields;
  }
  std::vector<std::string> overstays;
  std::vector<std::chrono::nanoseconds> stayed;
};

TEST_F(critical, suppresses_yields_and_gives_them_back_at_once) {
  asio_pulse::io_context io{with_reports()};
  int inside = 0;
  int nested = 0;
  int after_nested = 0;
  bool after = false;
  asio::post(io, [&] {
    {
      const asio_pulse::critical_section guard;
      burn(300us);
      inside = ask(200);
      {
        const asio_pulse::critical_section inner;
        nested = ask(200);
      }
      after_nested = ask(200);
    }
    after = asio_pulse::should_yield();
  });
  io.run();
  EXPECT_EQ(inside, 0);
  EXPECT_EQ(nested, 0);
  EXPECT_EQ(after_nested, 0);
  EXPECT_TRUE(after);
}

TEST_F(critical, an_overstay_is_reported_with_its_task_and_length) {
  asio_pulse::io_context io{with_reports()};
  const asio_pulse::task t{io, unlimited("careless")};
  asio_pulse::post(t, [] {
    const asio_pulse::critical_section guard;
    burn(2ms);
  });
  io.run();
  ASSERT_EQ(overstays.size(), 1U);
  EXPECT_EQ(overstays.front(), "careless");
  EXPECT_GE(stayed.front(), 2ms - 50us);
}

TEST_F(critical, zero_switches_the_report_off) {
  auto o = with_reports();
  o.max_critical = 0ns;
  asio_pulse::io_context io{o};
  asio::post(io, [] {
    const asio_pulse::critical_section guard;
    burn(2ms);
  });
  io.run();
  EXPECT_TRUE(overstays.empty());
}

TEST_F(critical, outside_handlers_it_does_nothing) {
  { const asio_pulse::critical_section guard; }
  asio_pulse::io_context io{short_quantum()};
  bool wanted = false;
  asio::post(io, [&] {
    burn(200us);
    wanted = ask(100) > 0;
  });
  io.run();
  EXPECT_TRUE(wanted);
}

TEST_F(critical, ends_with_the_handler_that_throws_out_of_it) {
  asio_pulse::io_context io{with_reports()};
  bool wanted = false;
  asio::post(io, [] {
    const asio_pulse::critical_section guard;
    throw 1;
  });
  asio::post(io, [&] {
    burn(200us);
    wanted = ask(100) > 0;
  });
  EXPECT_THROW(io.run(), int);
  io.run();
  EXPECT_TRUE(wanted);
}

// The documentation forbids this, but it must not prevent later yields on this thread.
TEST_F(critical, one_that_outlives_its_poll_does_not_last_for_ever) {
  asio_pulse::io_context io{with_reports()};
  bool inside = false;
  bool wanted = false;
  asio::steady_timer timer(io, 1h);
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        const asio_pulse::critical_section guard;
        inside = true;
        boost::system::error_code ec;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ec));
        EXPECT_EQ(ec, asio::error::operation_aborted);
        inside = false;
      },
      asio::detached);
  std::function<void()> other = [&] {
    if (!inside) return asio::post(io, other);
    burn(200us);
    wanted = ask(100) > 0;
    timer.cancel();
  };
  asio::post(io, other);
  io.run();
  EXPECT_TRUE(wanted);
  EXPECT_FALSE(inside);
  bool later = false;
  asio::post(io, [&] {
    burn(200us);
    later = ask(100) > 0;
  });
  io.restart();
  io.run();
  EXPECT_TRUE(later);
}

TEST_F(critical, a_nested_poll_inside_one_is_free_to_yield) {
  asio_pulse::io_context io{with_reports()};
  bool inner = false;
  int outer = 0;
  asio::post(io, [&] {
    const asio_pulse::critical_section guard;
    asio::post(io, [&] {
      burn(200us);
      inner = ask(100) > 0;
    });
    io.poll();
    outer = ask(100);
  });
  io.run();
  EXPECT_TRUE(inner);
  EXPECT_EQ(outer, 0);
}

// ---- ASIO_PULSE_PREEMPTION_BUDGET

std::uint64_t annotated() {
  ASIO_PULSE_PREEMPTION_BUDGET(1ms);
  return asio_pulse::this_task::id();
}

TEST(preemption_budget, is_in_force_in_its_block_and_the_old_task_after) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  std::uint64_t after = 0;
  std::uint64_t posted_inside = 0;
  std::uint64_t posted_after = 0;
  asio_pulse::post(t, [&] {
    first = annotated();
    after = asio_pulse::this_task::id();
    {
      ASIO_PULSE_PREEMPTION_BUDGET(1ms);
      asio::post(io, [&] { posted_inside = asio_pulse::this_task::id(); });
    }
    asio::post(io, [&] { posted_after = asio_pulse::this_task::id(); });
  });
  asio::post(io, [&] {
    second = annotated();
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
  });
  EXPECT_EQ(io.run(), 4U);
  EXPECT_NE(first, 0U);
  EXPECT_NE(first, t.id());
  EXPECT_EQ(first, second) << "all its runs share one budget";
  EXPECT_EQ(after, t.id());
  EXPECT_NE(posted_inside, t.id());
  EXPECT_NE(posted_inside, first) << "another place is another task";
  EXPECT_EQ(posted_after, t.id());
}

TEST(preemption_budget, nests) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  std::vector<std::uint64_t> ids;
  asio_pulse::post(t, [&] {
    const auto note = [&] { ids.push_back(asio_pulse::this_task::id()); };
    note();
    {
      ASIO_PULSE_PREEMPTION_BUDGET(1ms);
      note();
      {
        ASIO_PULSE_PREEMPTION_BUDGET(2ms);
        note();
        {
          ASIO_PULSE_PREEMPTION_BUDGET(3ms);
          note();
        }
        note();
      }
      note();
    }
    note();
  });
  io.run();
  ASSERT_EQ(ids.size(), 7U);
  EXPECT_EQ(ids[0], t.id());
  EXPECT_EQ(ids[1], ids[5]);
  EXPECT_EQ(ids[2], ids[4]);
  EXPECT_EQ(ids[0], ids[6]);
  EXPECT_EQ((std::set<std::uint64_t>(ids.begin(), ids.end()).size()), 4U);
}

TEST(preemption_budget_timing, charges_its_block_to_its_own_task) {
  // Repeated if a busy machine has disturbed it: a lap that the clock cannot vouch for is charged
  // with its wall time.
  EXPECT_TRUE(holds_in_one_of(20, []() -> testing::AssertionResult {
    asio_pulse::io_context io{steady()};
    const asio_pulse::task t{io, unlimited("t")};
    for (int i = 0; i < 10; ++i) {
      asio_pulse::post(t, [] {
        burn(100us);
        {
          ASIO_PULSE_PREEMPTION_BUDGET(60ms);
          burn(1ms);
        }
        burn(100us);
      });
    }
    io.run();
    const auto cpu = t.stats().cpu;
    EXPECT_GE(cpu, 10 * 195us);
    if (cpu < 10 * 1ms) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << "the block was not charged to the task: " << cpu.count() << " ns";
  }));
}

TEST(preemption_budget, an_annotated_hog_climbs_and_the_task_around_it_does_not) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  std::vector<asio_pulse::hooks::tier_event> changes;
  std::vector<std::string> names;
  const auto c = io.hooks().install({.tier_changed = [&](const auto& e) {
    changes.push_back(e);
    names.emplace_back(e.task_name);
  }});
  for (int i = 0; i < 20; ++i) {
    asio_pulse::post(t, [] {
      ASIO_PULSE_PREEMPTION_BUDGET(100us);
      burn(300us);
    });
  }
  io.run();
  EXPECT_EQ(t.current_tier(), asio_pulse::tier::monitor);
  ASSERT_FALSE(changes.empty());
  for (const auto& e : changes) EXPECT_NE(e.task_id, t.id());
  EXPECT_THAT(names.front(), testing::HasSubstr("TestBody"));
}

TEST(preemption_budget, lasts_across_the_suspensions_of_a_coroutine) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  std::vector<std::uint64_t> inside;
  std::vector<std::uint64_t> outside;
  asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<void> {
        outside.push_back(asio_pulse::this_task::id());
        {
          ASIO_PULSE_PREEMPTION_BUDGET(1ms);
          for (int i = 0; i < 3; ++i) {
            inside.push_back(asio_pulse::this_task::id());
            co_await asio::post(io, asio::use_awaitable);
            inside.push_back(asio_pulse::this_task::id());
            asio::steady_timer timer(io, 100us);
            co_await timer.async_wait(asio::use_awaitable);
          }
          inside.push_back(asio_pulse::this_task::id());
        }
        outside.push_back(asio_pulse::this_task::id());
        co_await asio::post(io, asio::use_awaitable);
        outside.push_back(asio_pulse::this_task::id());
      },
      asio::detached);
  // Work of others in between must not be charged.
  std::vector<std::uint64_t> others;
  std::function<void(int)> other = [&](int left) {
    others.push_back(asio_pulse::this_task::id());
    if (left > 0) asio::post(io, [&, left] { other(left - 1); });
  };
  asio::post(io, [&] { other(20); });
  io.run();
  EXPECT_THAT(outside, testing::AllOf(testing::SizeIs(3), testing::Each(t.id())));
  ASSERT_EQ(inside.size(), 7U);
  EXPECT_THAT(inside, testing::Each(inside.front()));
  EXPECT_NE(inside.front(), t.id());
  EXPECT_NE(inside.front(), 0U);
  EXPECT_THAT(others, testing::Each(0U));
}

TEST(preemption_budget, in_a_coroutine_that_moves_between_threads) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  std::atomic<int> wrong{0};
  for (int n = 0; n < 10; ++n) {
    asio_pulse::co_spawn(
        t,
        [&]() -> asio::awaitable<void> {
          std::uint64_t mine = 0;
          {
            ASIO_PULSE_PREEMPTION_BUDGET(10ms);
            mine = asio_pulse::this_task::id();
            for (int i = 0; i < 50; ++i) {
              co_await asio::post(io, asio::use_awaitable);
              wrong += asio_pulse::this_task::id() != mine;
            }
          }
          wrong += mine == t.id();
          co_await asio::post(io, asio::use_awaitable);
          wrong += asio_pulse::this_task::id() != t.id();
        },
        asio::detached);
  }
  run_on(io, 2);
  EXPECT_EQ(wrong, 0);
}

/// Runs `inside` in a scope of `other`, in a poll of a task that nothing but the poll holds.
/// Returns the task that is in force after the scope, and that of an operation which is created
/// there; and the number of that task.
struct after_a_scope {
  std::uint64_t current = 0;
  std::uint64_t created = 0;
  std::uint64_t polled = 0;

  explicit after_a_scope(const std::function<void()>& inside) {
    asio_pulse::io_context io{steady()};
    const asio_pulse::task other{io, unlimited("other")};
    {
      const asio_pulse::task short_lived{io, unlimited("short-lived")};
      polled = short_lived.id();
      asio_pulse::post(short_lived, [&] {
        {
          const asio_pulse::task_scope scope(other);
          inside();
        }
        current = asio_pulse::this_task::id();
        asio::post(io, [this] { created = asio_pulse::this_task::id(); });
      });
    }
    io.run();
  }
};

TEST(preemption_budget, in_a_scope_the_poll_keeps_its_task) {
  const after_a_scope seen([] { ASIO_PULSE_PREEMPTION_BUDGET(10ms); });
  EXPECT_EQ(seen.current, seen.polled);
  EXPECT_EQ(seen.created, seen.polled);
}

TEST(task_scope, gives_way_to_the_task_that_the_poll_got_inside) {
  std::uint64_t made = 0;
  const after_a_scope seen([&] {
    asio_pulse::this_task::begin(unlimited("made"));
    made = asio_pulse::this_task::id();
  });
  EXPECT_NE(made, seen.polled);
  EXPECT_EQ(seen.current, made);
  EXPECT_EQ(seen.created, made);
}

TEST(preemption_budget, does_not_restart_the_quantum) {
  auto o = short_quantum();
  o.quantum = 2ms;
  o.min_slice = 1ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("t")};
  int steps = 0;
  asio_pulse::post(t, [&] {
    for (; steps < 1000 && !asio_pulse::should_yield(); ++steps) {
      ASIO_PULSE_PREEMPTION_BUDGET(10ms);
      burn(50us);
    }
  });
  io.run();
  EXPECT_LT(steps, 1000);
}

TEST(preemption_budget, in_strands_and_task_executors_and_nested_polls) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  const auto strand = asio::make_strand(io);
  std::vector<std::uint64_t> inside;
  std::vector<std::uint64_t> after;
  const auto f = [&] {
    {
      ASIO_PULSE_PREEMPTION_BUDGET(50ms);
      inside.push_back(asio_pulse::this_task::id());
      asio::post(t.get_executor(), [] {});
      io.poll_one();
      inside.push_back(asio_pulse::this_task::id());
    }
    after.push_back(asio_pulse::this_task::id());
  };
  {
    const asio_pulse::task_scope scope(t);
    for (int i = 0; i < 5; ++i) {
      asio::post(strand, f);
      asio::post(t.get_executor(), f);
      asio::post(io, f);
    }
  }
  io.run();
  EXPECT_EQ(inside.size(), 30U);
  EXPECT_THAT(inside, testing::Each(inside.front()));
  EXPECT_THAT(after, testing::AllOf(testing::SizeIs(15), testing::Each(t.id())));
}

TEST(preemption_budget, outside_any_handler_it_does_nothing) {
  EXPECT_EQ(annotated(), 0U);
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  const asio_pulse::task_scope scope(t);
  EXPECT_EQ(annotated(), t.id());
}

TEST(preemption_budget, a_context_destroyed_with_annotated_coroutines_suspended) {
  asio_pulse::io_context io{steady()};
  asio::steady_timer timer(io, 1h);
  for (int i = 0; i < 3; ++i) {
    asio::co_spawn(
        io,
        [&]() -> asio::awaitable<void> {
          ASIO_PULSE_PREEMPTION_BUDGET(1ms);
          co_await timer.async_wait(asio::use_awaitable);
        },
        asio::detached);
  }
  io.poll();
  EXPECT_EQ(io.stats().tasks, 1U);
}

}  // namespace
