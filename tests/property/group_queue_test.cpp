// SPDX-License-Identifier: BSL-1.0
#include "group_queue.hpp"

#include "fair_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace {

bool out_of_memory = false;

}  // namespace

// The only allocations of this kind here are the arrays of a group_queue.
void* operator new[](std::size_t bytes, std::align_val_t at, const std::nothrow_t&) noexcept {
  if (out_of_memory) return nullptr;
  try {
    return ::operator new[](bytes, at);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

namespace {

using asio_pulse::detail::fair_group;
using asio_pulse::detail::fair_policy;
using asio_pulse::detail::turn;
using asio_pulse::detail::turn_policy;

struct waiter {
  std::uint32_t queue_place = asio_pulse::detail::group_queue<waiter>::nowhere;
  double key = 0;
};
using queue = asio_pulse::detail::group_queue<waiter>;
using expected_order = std::set<std::pair<double, waiter*>>;

void add(queue& q, expected_order& expected, waiter& w, double key) {
  ASSERT_TRUE(q.make_room());
  w.key = key;
  q.push(w, key);
  expected.emplace(key, &w);
}

// Against a set, on random sequences, with few and with many that wait, and with keys that are equal.
TEST(group_queue, has_the_least_key_at_the_front) {
  for (const std::size_t count : {3U, 8U, 9U, 20U, 100U, 5'000U}) {
    for (const unsigned keys : {3U, 1'000'000U}) {
      std::mt19937_64 random(count + keys);
      std::vector<waiter> all(count);
      queue q;
      expected_order expected;
      for (int step = 0; step != 20'000; ++step) {
        waiter& w = all[random() % count];
        const auto key = static_cast<double>(random() % keys);
        if (w.queue_place == queue::nowhere) {
          ASSERT_NO_FATAL_FAILURE(add(q, expected, w, key));
        } else if (random() % 3 == 0) {
          expected.erase({w.key, &w});
          w.key = key;
          q.change(w, key);
          expected.emplace(key, &w);
        } else {
          waiter& gone = random() % 2 == 0 ? q.front() : w;
          expected.erase({gone.key, &gone});
          q.erase(gone);
          ASSERT_EQ(gone.queue_place, queue::nowhere);
        }
        ASSERT_EQ(q.empty(), expected.empty());
        if (expected.empty()) continue;
        ASSERT_EQ(q.front().key, expected.begin()->first) << count << " at " << step;
        double least = q.front().key;
        for (std::size_t at = 1; at != 9; ++at) {
          const waiter* const next = q.next(at);
          // All of them, up to eight.
          ASSERT_EQ(next != nullptr, at < 8 && at < expected.size());
          if (next == nullptr) break;
          ASSERT_GE(next->key, least);
          least = next->key;
        }
      }
    }
  }
}

// The next few are exactly those with the least keys.
TEST(group_queue, knows_the_next_few) {
  std::vector<waiter> all(3'000);
  queue q;
  expected_order expected;
  std::mt19937_64 random(3);
  for (waiter& w : all) {
    ASSERT_NO_FATAL_FAILURE(add(q, expected, w, static_cast<double>(random())));
  }
  while (expected.size() > 8) {
    std::size_t at = 0;
    for (auto each = expected.begin(); at != 5; ++each, ++at) ASSERT_EQ(q.next(at), each->second);
    waiter& first = q.front();
    q.erase(first);
    expected.erase(expected.begin());
    if (random() % 4 == 0) continue;
    ASSERT_NO_FATAL_FAILURE(
        add(q, expected, first, first.key + static_cast<double>(random() >> 2)));
    if (random() % 8 == 0) {
      waiter& any = *expected.rbegin()->second;
      expected.erase({any.key, &any});
      q.erase(any);
    }
  }
}

// What waits already still does, and the next few find room without memory.
TEST(group_queue, keeps_what_waits_if_there_is_no_memory) {
  std::vector<waiter> all(20);
  queue q;
  out_of_memory = true;
  std::size_t room = 0;
  while (room != all.size() && q.make_room()) {
    q.push(all[room], static_cast<double>(100 - room));
    ++room;
  }
  out_of_memory = false;
  ASSERT_EQ(room, 8U);
  ASSERT_TRUE(q.make_room());
  q.push(all[8], 0);
  for (std::size_t at = 9; at-- != 0;) {
    ASSERT_EQ(&q.front(), &all[at]);
    q.erase(all[at]);
  }
  EXPECT_TRUE(q.empty());
}

struct member {
  member() { task.group = group.get(); }

  std::unique_ptr<fair_group> group = std::make_unique<fair_group>(nullptr, 100);
  turn task;
  int served = 0;
};

// Serves one task, which does not wait afterwards.
member& serve(fair_policy& policy, std::vector<member>& all, std::uint64_t cost) {
  const turn_policy::choice c = policy.next(1);
  member& m = *std::ranges::find_if(all, [&c](const member& each) { return &each.task == c.next; });
  policy.remove(m.task, 1);
  m.task.cost += cost;
  if (m.task.group != nullptr) m.group->cost.add(cost);
  policy.served(c.what, cost);
  ++m.served;
  return m;
}

TEST(fair_policy, tasks_of_a_group_without_memory_for_its_place_wait_as_tasks_in_no_group) {
  std::vector<member> all(12);
  fair_policy policy{1'000'000};
  out_of_memory = true;
  for (member& m : all) policy.add(m.task, 1);
  out_of_memory = false;
  for (std::size_t n = 0; n != all.size(); ++n) {
    EXPECT_EQ(all[n].task.group, n < 8 ? all[n].group.get() : nullptr) << n;
    EXPECT_EQ(all[n].group->waits(), n < 8) << n;
  }
  // Each runs once, and waits in its group again as soon as there is memory.
  for (int i = 0; i != 12; ++i) (void)serve(policy, all, 1'000);
  for (member& m : all) {
    EXPECT_EQ(m.served, 1);
    m.task.group = m.group.get();
    policy.add(m.task, 1);
    EXPECT_TRUE(m.group->waits());
  }
  for (int i = 0; i != 1'200; ++i) {
    member& m = serve(policy, all, 1'000);
    policy.add(m.task, 1);
  }
  for (member& m : all) {
    EXPECT_NEAR(m.served, 101, 1);
    policy.remove(m.task, 1);
  }
}

// Polls that are shorter than the clock shows leave the tags equal. Nobody is passed over for that.
TEST(fair_policy, groups_with_equal_tags_take_turns) {
  for (const std::size_t count : {2U, 8U, 9U, 30U, 100U}) {
    std::vector<member> all(count);
    fair_policy policy{1'000'000};
    for (member& m : all) policy.add(m.task, 1);
    for (int round = 1; round != 20; ++round) {
      for (std::size_t i = 0; i != count; ++i) policy.add(serve(policy, all, 0).task, 1);
      for (const member& m : all) ASSERT_EQ(m.served, round) << count;
    }
    for (member& m : all) policy.remove(m.task, 1);
  }
}

}  // namespace
