// SPDX-License-Identifier: BSL-1.0
//
// The lists of a context's tasks.
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <support/cpu_work.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::context_core;
using asio_pulse::detail::core_ref;
using asio_pulse::detail::place_tasks;
using asio_pulse::detail::task_ref;
using asio_pulse::detail::task_state;

class task_lists : public testing::Test {
 protected:
  [[nodiscard]] task_ref make() { return task_ref(core_->make_task({.name = "t"})); }

  core_ref core_{new context_core({.enabled = false}, true)};
};

TEST_F(task_lists, a_walk_sees_each_task_once_and_the_unnamed_one) {
  // More tasks than one piece has, so that the list is unlocked in between.
  std::vector<task_ref> tasks;
  for (int i = 0; i < 300; ++i) tasks.push_back(make());
  std::set<const task_state*> seen;
  core_->tasks().walk([&](task_state& t) { EXPECT_TRUE(seen.insert(&t).second); });
  EXPECT_EQ(seen.size(), tasks.size() + 1);
  for (const task_ref& t : tasks) EXPECT_TRUE(seen.contains(t.get()));
  EXPECT_EQ(core_->tasks().totals().alive, tasks.size());
}

// Otherwise a worker that accepts a connection would wait until all tasks have been read.
TEST_F(task_lists, a_walk_lets_others_in_between_its_pieces) {
  constexpr int pieces = 40;
  std::vector<task_ref> tasks;
  for (int i = 0; i < pieces * 128; ++i) tasks.push_back(make());
  std::atomic<bool> begun{false};
  std::atomic<bool> ended{false};
  int added = 0;
  std::thread other([&] {
    while (!begun) std::this_thread::yield();
    for (; !ended; ++added) static_cast<void>(make());
  });
  core_->tasks().walk([&](task_state&) {
    begun = true;
    pulse_test::burn(std::chrono::microseconds{5});
  });
  ended = true;
  other.join();
  EXPECT_GE(added, pieces / 4);
}

// A reader that held the last reference would end the task, and call the program's hook, with its
// own locks held.
TEST_F(task_lists, a_walk_goes_on_past_tasks_that_are_removed_and_ends_none) {
  constexpr int pieces = 20;
  const std::thread::id reader = std::this_thread::get_id();
  std::atomic<int> ends{0};
  std::atomic<int> ends_by_reader{0};
  const auto c = core_->hooks().install({.completed = [&](const auto&) {
    ++ends;
    if (std::this_thread::get_id() == reader) ++ends_by_reader;
  }});
  const task_ref first = make();  // read last: tasks are added at the front
  std::vector<task_ref> tasks;
  for (int i = 0; i < pieces * 128; ++i) tasks.push_back(make());
  std::atomic<bool> begun{false};
  std::thread other([&] {
    while (!begun) std::this_thread::yield();
    while (!tasks.empty()) tasks.pop_back();  // in the order of the walk
  });
  const task_state* last = nullptr;
  std::set<const task_state*> seen;
  core_->tasks().walk([&](task_state& t) {
    begun = true;
    EXPECT_TRUE(seen.insert(&t).second);
    last = &t;
    pulse_test::burn(std::chrono::microseconds{2});
  });
  other.join();
  EXPECT_EQ(last, first.get());
  EXPECT_EQ(ends, pieces * 128);
  EXPECT_EQ(ends_by_reader, 0);
}

TEST_F(task_lists, a_task_that_is_no_more_leaves_its_figures_behind) {
  const task_state* address = nullptr;
  {
    const task_ref t = make();
    address = t.get();
    t->count_alone(3, 70);
    const task_ref found(core_->tasks().find(address));
    EXPECT_EQ(found.get(), address);
  }
  EXPECT_EQ(core_->tasks().find(address), nullptr);
  EXPECT_EQ(core_->tasks().find(nullptr), nullptr);
  EXPECT_EQ(core_->tasks().totals().alive, 0U);
  EXPECT_EQ(core_->tasks().totals().ended_polls, 3U);
  EXPECT_EQ(core_->tasks().totals().ended_cost, 70U);
}

TEST_F(task_lists, a_place_has_one_task_whoever_made_one) {
  place_tasks places;
  static const char place = 0;
  EXPECT_EQ(places.find(&place), nullptr);
  task_state* const first = places.add(&place, make());
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(places.add(&place, make()), first);
  EXPECT_EQ(places.find(&place), first);
  EXPECT_EQ(core_->tasks().totals().alive, 1U);
  places.close();
  EXPECT_EQ(core_->tasks().totals().alive, 0U);
}

// A thread adds a task after the end of the context. If it were kept, the task and the context
// would hold references to each other for ever.
TEST_F(task_lists, a_place_keeps_nothing_once_the_context_has_ended) {
  place_tasks places;
  places.close();
  static const char place = 0;
  EXPECT_EQ(places.add(&place, make()), nullptr);
  EXPECT_EQ(core_->tasks().totals().alive, 0U);
}

}  // namespace
