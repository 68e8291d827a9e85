// SPDX-License-Identifier: BSL-1.0

// Tasks that move from group to group: what was charged before stays, and nothing is lost.

#include <support/scenario.hpp>
//
#include <asio_pulse/task_group.hpp>

#include <boost/asio/strand.hpp>

#include <gmock/gmock.h>

#include <random>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::group_ref;
using asio_pulse::task;
using asio_pulse::task_group;
using asio_pulse::task_options;
namespace this_task = asio_pulse::this_task;

TEST(join, what_was_used_before_stays_with_the_group_before) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  const task_group other(io);
  const task member(io, in_group(tenant));
  asio_pulse::post(member, [&] {
    burn(2ms);
    EXPECT_TRUE(this_task::join(other));
    EXPECT_EQ(this_task::id(), member.id());
    burn(1ms);
  });
  asio_pulse::post(member, [] { burn(1ms); });
  io.run();
  EXPECT_GE(tenant.stats().cpu, 2ms);
  EXPECT_GE(other.stats().cpu, 2ms);
  EXPECT_EQ(tenant.stats().tasks, 0U);
  EXPECT_EQ(other.stats().tasks, 1U);
  const auto both = tenant.stats().cpu + other.stats().cpu;
  EXPECT_NEAR(static_cast<double>(both.count()), static_cast<double>(member.stats().cpu.count()),
              10.);
}

TEST(join, a_task_that_was_in_no_group_and_one_that_leaves) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  const task member(io, unlimited("member"));
  asio_pulse::post(member, [&] {
    burn(1ms);
    EXPECT_TRUE(this_task::join(tenant));
    burn(1ms);
    EXPECT_TRUE(this_task::join({}));
    burn(2ms);
  });
  asio_pulse::post(member, [] { burn(1ms); });
  io.run();
  EXPECT_GE(member.stats().cpu, 5ms);
  EXPECT_GE(tenant.stats().cpu, 1ms);
  EXPECT_LE(tenant.stats().cpu, member.stats().cpu - 4ms);
  EXPECT_EQ(tenant.stats().tasks, 0U);
}

TEST(join, the_groups_above_are_charged_as_well) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  const task_group user(io, {.parent = tenant});
  const task member(io, unlimited("member"));
  asio_pulse::post(member, [&] {
    this_task::join(user);
    burn(1ms);
  });
  io.run();
  EXPECT_GE(user.stats().cpu, 1ms);
  EXPECT_EQ(tenant.stats().cpu, user.stats().cpu);
}

TEST(join, a_long_poll_is_still_reported) {
  std::vector<std::string> slow;
  asio_pulse::options o = steady();
  o.stall_threshold = 2ms;
  o.watchdog = false;
  o.on_report = [&](const asio_pulse::report& r) {
    if (r.kind == asio_pulse::report_kind::slow_poll) slow.emplace_back(r.task);
  };
  asio_pulse::io_context io{o};
  const task_group tenant(io);
  const task member(io, unlimited("member"));
  // The clock may not vouch for a poll on a busy machine.
  for (int i = 0; i != 50 && slow.empty(); ++i) {
    asio_pulse::post(member, [&] {
      burn(5ms);
      this_task::join(tenant);
    });
    io.restart();
    io.run();
  }
  EXPECT_THAT(slow, testing::ElementsAre("member"));
}

TEST(join, has_no_effect_where_no_task_is_in_force) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  EXPECT_FALSE(this_task::join(tenant));
  asio::post(io, [&] { EXPECT_FALSE(this_task::join(tenant)); });
  io.run();
  EXPECT_EQ(tenant.stats().tasks, 0U);

  asio_pulse::io_context off{asio_pulse::options{.enabled = false}};
  const task_group there(off);
  const task member(off);
  asio_pulse::post(member, [&] { EXPECT_FALSE(this_task::join(there)); });
  off.run();
}

TEST(join, a_group_of_another_context_is_refused_and_nothing_changes) {
  asio_pulse::io_context io{steady()};
  asio_pulse::io_context elsewhere{steady()};
  const task_group tenant(io);
  const task_group foreign(elsewhere);
  const task member(io, in_group(tenant));
  asio_pulse::post(member, [&] {
    EXPECT_THROW(this_task::join(foreign), std::invalid_argument);
    burn(1ms);
  });
  io.run();
  EXPECT_GE(tenant.stats().cpu, 1ms);
  EXPECT_EQ(tenant.stats().tasks, 1U);
  EXPECT_EQ(foreign.stats().tasks, 0U);
}

TEST(join, the_task_of_the_scope_moves_and_not_that_of_the_handler) {
  EXPECT_TRUE(holds_in_one_of(5, []() -> testing::AssertionResult {
    asio_pulse::io_context io{steady()};
    const task_group tenant(io);
    const task outer(io, unlimited("outer"));
    const task inner(io, unlimited("inner"));
    asio_pulse::post(outer, [&] {
      const asio_pulse::task_scope scope(inner);
      EXPECT_TRUE(this_task::join(tenant));
      burn(20ms);
    });
    asio_pulse::post(inner, [] { burn(100us); });
    io.run();
    const auto used = tenant.stats().cpu;
    EXPECT_GE(used, 100us);
    if (used < 10ms) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << used.count() << " ns, but the poll is work of the other task";
  }));
}

// The drain of a strand starts each handler without looking at its task again.
TEST(join, in_a_strands_batch) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  const task member(io, unlimited("member"));
  auto strand = asio::make_strand(io);
  {
    const asio_pulse::task_scope scope(member);
    asio::post(strand, [&] { this_task::join(tenant); });
    for (int i = 0; i != 5; ++i) asio::post(strand, [] { burn(1ms); });
  }
  io.run();
  EXPECT_GE(tenant.stats().cpu, 5ms);
}

TEST(group_accounting, a_strands_batch_is_charged_to_the_group) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io);
  const task member(io, in_group(tenant));
  auto strand = asio::make_strand(io);
  {
    const asio_pulse::task_scope scope(member);
    for (int i = 0; i != 5; ++i) asio::post(strand, [] { burn(1ms); });
  }
  io.run();
  EXPECT_GE(tenant.stats().cpu, 5ms);
  EXPECT_NEAR(static_cast<double>(tenant.stats().cpu.count()),
              static_cast<double>(member.stats().cpu.count()), 10.);
}

// Invariant 38, with handlers of the same task on several threads.
class joining : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(threads, joining, testing::Values(1, 2, 4));

TEST_P(joining, nothing_is_lost_and_nothing_is_charged_twice) {
  asio_pulse::io_context io{steady()};
  const task_group parent(io);
  std::vector<task_group> groups;
  for (int i = 0; i != 5; ++i) groups.emplace_back(io, asio_pulse::group_options{.parent = parent});
  std::vector<task> tasks;
  for (std::size_t i = 0; i != 8; ++i) tasks.emplace_back(io, in_group(groups[i % 5]));
  std::atomic<unsigned> seed{1};
  for (int i = 0; i != 2000; ++i) {
    asio_pulse::post(tasks[static_cast<std::size_t>(i) % tasks.size()], [&] {
      std::minstd_rand random(seed.fetch_add(1));
      burn(std::chrono::microseconds{random() % 20});
      if (random() % 2 == 0) return;
      // Groups that nothing else refers to, too.
      if (random() % 4 == 0) {
        this_task::join(task_group(io, {.parent = parent}));
      } else {
        this_task::join(groups[random() % 5]);
      }
      burn(std::chrono::microseconds{random() % 20});
    });
  }
  run_on(io, GetParam());
  auto used = 0ns;
  for (const task& t : tasks) used += t.stats().cpu;
  EXPECT_GT(used, 0ns);
  // Rounded to nanoseconds at eight places.
  EXPECT_NEAR(static_cast<double>(parent.stats().cpu.count()), static_cast<double>(used.count()),
              20.);
  tasks.clear();
  for (const task_group& g : groups) EXPECT_EQ(g.stats().tasks, 0U);
}

// Invariants 103 and 104: by turns one thread is alone with a task, or several charge and move it. Each
// group but the parent ends as soon as the task has left it.
TEST(joining, workers_come_and_go_while_tasks_move) {
  struct chain {
    asio_pulse::io_context& io;
    const task_group& parent;
    std::atomic<int>& left;
    void post(const task& t) const {
      asio_pulse::post(t, [this, &t] {
        if (left.fetch_sub(1) <= 0) return;
        this_task::join(task_group(io, {.parent = parent}));
        burn(2us);
        asio::post(io, [] { burn(1us); });  // of the same task
        post(t);
      });
    }
  };
  EXPECT_TRUE(holds_in_one_of(5, []() -> testing::AssertionResult {
    asio_pulse::io_context io{steady()};
    const task_group parent(io);
    std::vector<task> tasks;
    for (int i = 0; i != 4; ++i) tasks.emplace_back(io, in_group(parent));
    std::atomic<int> left{3000};
    const chain work{io, parent, left};
    for (const task& t : tasks) work.post(t);
    // Each call comes in as a worker and leaves.
    on_threads(2, [&](std::size_t) {
      while (left.load() > 0) io.poll_one();
    });
    io.run();
    auto used = 0ns;
    for (const task& t : tasks) used += t.stats().cpu;
    EXPECT_GE(used, 3000 * 1us);
    EXPECT_EQ(parent.stats().tasks, 0U);
    // A task may lose the charge of a poll when another worker comes in, a group does not.
    const auto charged = parent.stats().cpu;
    EXPECT_GE(charged, used - 20ns);
    if (charged <= used + used / 2) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << charged.count() << " ns are the group's, " << used.count() << " ns the tasks'";
  }));
}

TEST(join, a_group_ends_when_the_last_task_has_left_it) {
  asio_pulse::io_context io{steady()};
  const task member(io, unlimited("member"));
  const task_group parent(io);
  for (int i = 0; i != 1000; ++i) {
    asio_pulse::post(member, [&] { this_task::join(task_group(io, {.parent = parent})); });
  }
  io.run();
  EXPECT_EQ(io.stats().tasks, 1U);
  EXPECT_EQ(parent.stats().tasks, 0U);
}

}  // namespace
