// SPDX-License-Identifier: BSL-1.0

// Groups of tasks: what they are charged with, how they end, and whose requests are refused.

#include <support/scenario.hpp>
//
#include <asio_pulse/task_group.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gmock/gmock.h>

#include <optional>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::admission;
using asio_pulse::group_options;
using asio_pulse::refusal;
using asio_pulse::task;
using asio_pulse::task_group;
using asio_pulse::task_options;
using testing::HasSubstr;

// ---- accounting

class group_accounting : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(threads, group_accounting, testing::Values(1, 2));

TEST_P(group_accounting, a_group_is_charged_what_its_tasks_are) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io, {.name = "tenant"});
  const task_group other(io, {.name = "other"});
  std::vector<task> tasks;
  for (int i = 0; i != 8; ++i) tasks.emplace_back(io, in_group(i % 2 == 0 ? tenant : other));
  for (int i = 0; i != 400; ++i) {
    asio_pulse::post(tasks[static_cast<std::size_t>(i) % tasks.size()], [] { burn(20us); });
    asio::post(io, [] { burn(5us); });  // in no group
  }
  run_on(io, GetParam());
  std::chrono::nanoseconds sums[2]{};
  for (std::size_t i = 0; i != tasks.size(); ++i) sums[i % 2] += tasks[i].stats().cpu;
  EXPECT_GE(sums[0], 200 * 20us);
  // Each charge is rounded when it becomes a duration, and never before.
  EXPECT_NEAR(static_cast<double>(tenant.stats().cpu.count()), static_cast<double>(sums[0].count()),
              10);
  EXPECT_NEAR(static_cast<double>(other.stats().cpu.count()), static_cast<double>(sums[1].count()),
              10);
  EXPECT_EQ(tenant.stats().tasks, 4U);
  tasks.clear();
  EXPECT_EQ(tenant.stats().tasks, 0U);
  EXPECT_NEAR(static_cast<double>(tenant.stats().cpu.count()), static_cast<double>(sums[0].count()),
              10)
      << "what ended tasks have used remains";
}

TEST_P(group_accounting, a_group_is_charged_what_the_groups_below_it_are) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io, {.name = "tenant"});
  const task_group user(io, {.name = "user", .parent = tenant});
  const task of_user(io, in_group(user));
  const task of_tenant(io, in_group(tenant));
  for (int i = 0; i != 100; ++i) {
    asio_pulse::post(of_user, [] { burn(20us); });
    asio_pulse::post(of_tenant, [] { burn(20us); });
  }
  run_on(io, GetParam());
  EXPECT_EQ(user.stats().cpu, of_user.stats().cpu);
  EXPECT_NEAR(static_cast<double>(tenant.stats().cpu.count()),
              static_cast<double>((of_user.stats().cpu + of_tenant.stats().cpu).count()), 10);
  EXPECT_EQ(tenant.stats().tasks, 1U) << "its own";
}

TEST(groups, are_named_and_weighted) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io, {.name = "a tenant", .weight = 3});
  const task_group same = tenant;
  EXPECT_EQ(same, tenant);
  EXPECT_NE(task_group(io), tenant);
  EXPECT_EQ(same.name(), "a tenant");
  EXPECT_EQ(same.weight(), 3U);
  tenant.set_weight(7);
  EXPECT_EQ(same.weight(), 7U);
}

TEST(groups, bad_options_are_refused_by_name) {
  asio_pulse::io_context io{steady()};
  asio_pulse::io_context elsewhere{steady()};
  asio::io_context plain;
  const task_group foreign(elsewhere);
  const task_group tenant(io);
  EXPECT_EQ(refused_by_name([&] { task_group(io, {.weight = 0}); }),
            "asio_pulse::group_options.weight must be between 1 and 10000 (got 0)");
  EXPECT_THAT(refused_by_name([&] { task_group(io, {.weight = 10001}); }), HasSubstr("weight"));
  EXPECT_THAT(refused_by_name([&] { tenant.set_weight(0); }), HasSubstr("weight"));
  EXPECT_EQ(tenant.weight(), 100U);
  EXPECT_THAT(refused_by_name([&] { task_group(io, {.parent = foreign}); }),
              HasSubstr("group_options.parent must be a group of the same context"));
  EXPECT_THAT(refused_by_name([&] { task(io, in_group(foreign)); }),
              HasSubstr("task_options.group must be a group of the task's context"));
  EXPECT_THAT(refused_by_name([&] { task_group group(plain); }),
              HasSubstr("asio_pulse::io_context"));
  EXPECT_THAT(refused_by_name([&] {
                asio_pulse::options o = steady();
                o.accepted.group = tenant;
                asio_pulse::io_context third{o};
              }),
              HasSubstr("options.accepted.group must be empty"));
  for (const auto& [target, interval] : {std::pair{9us, 100us}, std::pair{100us, 99us}}) {
    asio_pulse::options o = steady();
    o.admission = {.target = target, .interval = interval};
    EXPECT_THAT(refused_by_name([&] { asio_pulse::io_context third{o}; }),
                HasSubstr("options.admission."));
  }
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST(groups, are_nested_sixteen_levels_deep) {
  asio_pulse::io_context io{steady()};
  std::vector<task_group> levels{task_group(io)};
  while (levels.size() != 16) levels.emplace_back(io, group_options{.parent = levels.back()});
  EXPECT_THAT(refused_by_name([&] { task_group(io, {.parent = levels.back()}); }),
              HasSubstr("16th level"));
  const task deepest(io, in_group(levels.back()));
  asio_pulse::post(deepest, [] { burn(100us); });
  io.run();
  EXPECT_EQ(levels.front().stats().cpu, deepest.stats().cpu);
}

TEST(groups, live_as_long_as_something_refers_to_them) {
  std::optional<task> survivor;
  std::optional<task_group> late;
  {
    asio_pulse::io_context io{steady()};
    std::optional<task_group> tenant(std::in_place, io, group_options{.name = "tenant"});
    const task_group user(io, {.parent = *tenant});
    survivor.emplace(io, in_group(user));
    asio_pulse::post(*survivor, [] { burn(50us); });
    tenant.reset();
    io.run();
    EXPECT_GT(user.stats().cpu, 50us);
    asio_pulse::post(*survivor, [] { FAIL() << "the context is gone"; });
    late.emplace(user);
  }
  EXPECT_TRUE(asio_pulse::admit(*late)) << "of a context that is gone";
  EXPECT_EQ(late->stats().tasks, 1U);
  survivor.reset();
  EXPECT_EQ(late->stats().tasks, 0U);
}

TEST(groups, thousands_come_and_go_while_workers_charge_others) {
  asio_pulse::io_context io{steady()};
  auto work = asio::make_work_guard(io);
  const task_group parent(io);
  std::atomic<int> left{2000};
  on_threads(3, [&](std::size_t thread) {
    if (thread != 0) {
      io.run();
      return;
    }
    for (int i = 0; i != 2000; ++i) {
      const task_group brief(io, {.parent = parent});
      const task one(io, in_group(brief));
      asio_pulse::post(one, [&, brief] {
        brief.set_weight(1 + static_cast<unsigned>(left % 100));
        (void)asio_pulse::admit(brief);
        --left;
      });
    }
    work.reset();
  });
  EXPECT_EQ(left, 0);
  EXPECT_EQ(parent.stats().tasks, 0U);
  EXPECT_GT(parent.stats().cpu, 0ns);
  EXPECT_EQ(io.stats().tasks, 0U);
}

// ---- a task for the rest of a poll

TEST(this_task_begin, the_rest_of_the_poll_and_what_it_creates_belong_to_the_new_task) {
  EXPECT_TRUE(holds_in_one_of(5, []() -> testing::AssertionResult {
    asio_pulse::io_context io{steady()};
    const task_group tenant(io);
    const task connection(io, unlimited("connection"));
    std::uint64_t of_request = 0;
    std::uint64_t of_next = 0;
    asio_pulse::post(connection, [&] {
      burn(300us);
      asio_pulse::this_task::begin(in_group(tenant));
      of_request = asio_pulse::this_task::id();
      burn(20ms);
      asio::post(io, [&] {
        of_next = asio_pulse::this_task::id();
        burn(200us);
      });
    });
    asio_pulse::post(connection, [&] { EXPECT_EQ(asio_pulse::this_task::id(), connection.id()); });
    io.run();
    EXPECT_NE(of_request, connection.id());
    EXPECT_EQ(of_next, of_request);
    EXPECT_GE(tenant.stats().cpu, 20ms + 200us);
    EXPECT_GE(connection.stats().cpu, 300us);
    EXPECT_EQ(tenant.stats().tasks, 0U) << "it ends with its last operation";
    const auto before = connection.stats().cpu;
    if (before < 10ms) return testing::AssertionSuccess();
    return testing::AssertionFailure() << before.count() << " ns are the connection's";
  }));
}

TEST(this_task_begin, a_coroutine_goes_on_as_the_new_task) {
  asio_pulse::io_context io{steady()};
  const task_group first(io);
  const task_group second(io);
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        asio::steady_timer timer(io);
        for (const task_group& group : {first, second}) {
          asio_pulse::this_task::begin(in_group(group));
          const std::uint64_t id = asio_pulse::this_task::id();
          for (int i = 0; i != 3; ++i) {
            timer.expires_after(1ms);
            co_await timer.async_wait(asio::use_awaitable);
            EXPECT_EQ(asio_pulse::this_task::id(), id);
            burn(100us);
          }
        }
      },
      asio::detached);
  io.run();
  EXPECT_GE(first.stats().cpu, 300us);
  EXPECT_GE(second.stats().cpu, 300us);
}

TEST(this_task_begin, inside_an_annotated_function_and_a_nested_run) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  int ran = 0;
  asio::post(io, [&] {
    {
      ASIO_PULSE_PREEMPTION_BUDGET(2ms);
      asio_pulse::this_task::begin(in_group(tenant));
      asio::post(io, [&] { ++ran; });
      io.poll();
    }
    burn(100us);
    ++ran;
  });
  io.run();
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(io.stats().tasks, 1U) << "the task of the annotated place";
}

TEST(this_task_begin, has_no_effect_outside_of_handlers) {
  asio_pulse::this_task::begin(unlimited("nobody"));
  EXPECT_EQ(asio_pulse::this_task::id(), 0U);
  asio::io_context plain;
  asio::post(plain, [] {
    asio_pulse::this_task::begin(unlimited("nobody"));
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
  });
  plain.run();
}

TEST(this_task_begin, a_bad_task_is_refused_and_nothing_changes) {
  asio_pulse::io_context io{steady()};
  asio_pulse::io_context elsewhere{steady()};
  const task_group foreign(elsewhere);
  const task connection(io, unlimited("connection"));
  asio_pulse::post(connection, [&] {
    EXPECT_THAT(refused_by_name([&] { asio_pulse::this_task::begin(in_group(foreign)); }),
                HasSubstr("must be a group of the task's context"));
    EXPECT_THAT(refused_by_name([&] { asio_pulse::this_task::begin({.budget = -1ns}); }),
                HasSubstr("task_options.budget"));
    EXPECT_EQ(asio_pulse::this_task::id(), connection.id());
  });
  io.run();
}

// ---- admission

/// Tenants whose requests come at a fixed rate, whatever the answer. They are posted by a thread of
/// their own.
class tenants {
 public:
  explicit tenants(const asio_pulse::options& o) : io(o), work_(asio::make_work_guard(io)) {}

  struct tenant {
    task_group group;
    std::chrono::microseconds cost;
    std::chrono::microseconds gap;  ///< between two requests
    std::uint64_t asked = 0;
    std::atomic<std::uint64_t> served{0};
    std::atomic<std::uint64_t> refused[3]{};
  };

  void serve(std::size_t workers, std::initializer_list<tenant*> all,
             std::chrono::milliseconds length) {
    on_threads(workers + 1, [&](std::size_t thread) {
      if (thread != 0) {
        io.run();
        return;
      }
      const auto begin = std::chrono::steady_clock::now();
      for (auto now = begin; now < begin + length; now = std::chrono::steady_clock::now()) {
        for (tenant* const t : all) {
          for (; begin + t->asked * t->gap < now; ++t->asked) asio::post(io, [t] { request(*t); });
        }
        std::this_thread::sleep_for(200us);
      }
      work_.reset();
    });
  }

  asio_pulse::io_context io;

 private:
  static void request(tenant& t) {
    const admission a = asio_pulse::admit(t.group);
    if (!a) {
      ++t.refused[static_cast<std::size_t>(a.why())];
      return;
    }
    asio_pulse::this_task::begin(in_group(t.group));
    burn(t.cost);
    ++t.served;
  }

  asio::executor_work_guard<asio::io_context::executor_type> work_;
};

asio_pulse::options short_queue() {
  asio_pulse::options o = steady();
  o.admission = {.target = 5ms, .interval = 20ms};
  return o;
}

class admitting_timing : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(threads, admitting_timing, testing::Values(1, 2));

TEST_P(admitting_timing, who_floods_is_refused_and_others_are_served) {
  if (always_preempt()) GTEST_SKIP() << "every operation goes behind the others once";
  const auto scenario = [&]() -> testing::AssertionResult {
    tenants t{short_queue()};
    tenants::tenant modest{task_group(t.io, {.name = "modest"}), 200us, 4000us};
    tenants::tenant flood{task_group(t.io, {.name = "flood"}), 200us, 40us};
    t.serve(GetParam(), {&modest, &flood}, 600ms);
    EXPECT_EQ(modest.served + modest.refused[1] + modest.refused[2], modest.asked);
    EXPECT_EQ(flood.served + flood.refused[1] + flood.refused[2], flood.asked);
    EXPECT_EQ(modest.group.stats().admitted, modest.served);
    EXPECT_EQ(flood.group.stats().refused_share, flood.refused[1]);
    const asio_pulse::statistics s = t.io.stats();
    EXPECT_EQ(s.requests_admitted, modest.served + flood.served);
    EXPECT_EQ(s.requests_refused_share + s.requests_refused_overload,
              modest.asked + flood.asked - s.requests_admitted);
    return testing::AssertionResult(flood.refused[1] > flood.asked / 4 &&
                                    modest.served * 10 >= modest.asked * 9)
           << modest.served << " of " << modest.asked << " served, of the flood "
           << flood.refused[1] << " of " << flood.asked << " refused";
  };
  EXPECT_TRUE(holds_in_one_of(3, scenario));
}

TEST(admission_timing, nothing_is_refused_while_there_is_time_for_all) {
  const auto scenario = [&]() -> testing::AssertionResult {
    tenants t{steady()};
    tenants::tenant a{task_group(t.io), 50us, 500us};
    tenants::tenant b{task_group(t.io), 50us, 1000us};
    t.serve(1, {&a, &b}, 300ms);
    return testing::AssertionResult(a.served == a.asked && b.served == b.asked)
           << a.asked - a.served << " and " << b.asked - b.served << " were refused";
  };
  EXPECT_TRUE(holds_in_one_of(3, scenario));
}

TEST(admission, one_group_alone_is_refused_as_an_overload) {
  const auto scenario = [&]() -> testing::AssertionResult {
    tenants t{short_queue()};
    tenants::tenant all{task_group(t.io), 200us, 40us};
    t.serve(1, {&all}, 300ms);
    EXPECT_EQ(all.refused[1], 0U) << "there is no other group";
    return testing::AssertionResult(all.refused[2] > 0U) << "none was refused";
  };
  EXPECT_TRUE(holds_in_one_of(3, scenario));
}

TEST(admission, shadow_mode_only_counts) {
  const auto scenario = [&]() -> testing::AssertionResult {
    asio_pulse::options o = short_queue();
    o.shadow = true;
    tenants t{o};
    tenants::tenant all{task_group(t.io), 200us, 100us};
    t.serve(1, {&all}, 200ms);
    EXPECT_EQ(all.served, all.asked);
    return testing::AssertionResult(t.io.stats().requests_refused_overload > 0) << "none counted";
  };
  EXPECT_TRUE(holds_in_one_of(3, scenario));
}

TEST(admission, a_context_that_is_switched_off_admits_all) {
  asio_pulse::options o = short_queue();
  o.enabled = false;
  tenants t{o};
  tenants::tenant all{task_group(t.io), 200us, 100us};
  t.serve(1, {&all}, 100ms);
  EXPECT_EQ(all.served, all.asked);
}

TEST(admission, the_policy_can_change_while_the_context_runs) {
  asio_pulse::options o = steady();
  o.admission = {.target = 1min, .interval = 1min};
  asio_pulse::io_context io{o};
  const task_group tenant(io);
  int refused = 0;
  int left = 600;
  std::function<void()> request = [&] {
    refused += asio_pulse::admit(tenant) ? 0 : 1;
    burn(200us);
    if (--left == 300) {
      EXPECT_EQ(refused, 0);
      io.update({.admission = asio_pulse::admission_policy{.target = 1ms, .interval = 5ms}});
    }
    if (left > 0) asio::post(io, request);
  };
  for (int i = 0; i != 60; ++i) asio::post(io, request);  // 12 ms of work
  io.run();
  EXPECT_GT(refused, 0);
}

TEST(groups, a_task_keeps_its_group) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  const task_group other(io);
  task member(io, in_group(tenant));
  member.update({.budget = 1ms, .per = 10ms});
  member.update({.budget = 1ms, .per = 10ms, .group = tenant});
  EXPECT_THAT(refused_by_name([&] { member.update({.group = other}); }),
              HasSubstr("task_options.group cannot change here"));
}

TEST(admission, does_not_change_what_the_run_functions_return) {
  asio_pulse::io_context io{short_queue()};
  const task_group tenant(io);
  for (int i = 0; i != 10; ++i) asio::post(io, [&] { EXPECT_TRUE(asio_pulse::admit(tenant)); });
  EXPECT_EQ(io.run_one(), 1U);
  EXPECT_EQ(io.poll_one(), 1U);
  EXPECT_EQ(io.poll(), 8U);
  io.restart();
  EXPECT_EQ(io.run(), 0U);
}

TEST(admission, works_where_the_scheduler_has_no_locks) {
  asio_pulse::io_context io{short_queue(), BOOST_ASIO_CONCURRENCY_HINT_UNSAFE};
  const task_group tenant(io);
  int refused = 0;
  int left = 400;
  std::function<void()> request = [&] {
    refused += asio_pulse::admit(tenant) ? 0 : 1;
    burn(200us);
    if (--left > 0) asio::post(io, request);
  };
  // A queue of 60 requests of 200 us is 12 ms long.
  for (int i = 0; i != 60; ++i) asio::post(io, request);
  io.run();
  EXPECT_GT(refused, 0);
  std::this_thread::sleep_for(50ms);  // so that the measured delays are too old
  EXPECT_TRUE(asio_pulse::admit(tenant)) << "outside of the context's threads";
}

}  // namespace
