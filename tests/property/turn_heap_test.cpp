// SPDX-License-Identifier: BSL-1.0
#include "turn_heap.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace {

using asio_pulse::detail::turn;
using asio_pulse::detail::turn_heap;
using asio_pulse::timing::ticks;

// Against a set, on random sequences.
TEST(turn_heap, is_a_queue_by_key_and_then_by_age) {
  std::mt19937_64 random(7);
  std::vector<turn> turns(500);
  turn_heap<&turn::tag> heap;
  const auto order = [](const turn* a, const turn* b) {
    return a->tag != b->tag ? a->tag < b->tag : a->since < b->since;
  };
  std::set<turn*, decltype(order)> expected(order);
  for (ticks step = 1; step != 50'000; ++step) {
    turn& t = turns[random() % turns.size()];
    if (expected.contains(&t)) {
      expected.erase(&t);
      heap.erase(t);
    } else {
      t.tag = static_cast<double>(random() % 50);
      t.since = step;
      expected.insert(&t);
      heap.push(t);
    }
    ASSERT_EQ(heap.empty(), expected.empty());
    if (expected.empty()) continue;
    ASSERT_EQ(&heap.front(), *expected.begin()) << step;
  }
}

}  // namespace
