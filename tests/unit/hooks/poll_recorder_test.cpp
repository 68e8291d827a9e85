// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/poll_recorder.hpp>
//
#include "poll_path_fakes.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

using namespace asio_pulse;
using hooks::duration_scale;
using recorder = hooks::poll_recorder;
using event = recorder::event;

constexpr hooks::site first_site{"first"};
constexpr hooks::site second_site{"second"};
/// Two tasks.
class poll_recorder : public testing::Test {
 protected:
  poll_recorder() { task.number = 1, other.number = 2; }

  asio_pulse::timing::manual_clock clock;
  hooks_test::fake_arbiter arbiter{clock};
  hooks::task_record task{arbiter};
  hooks::task_record other{arbiter};
  hooks::task_record* const a = &task;
  hooks::task_record* const b = &other;
  recorder r;
};

std::uint64_t key(const hooks::site& s, std::uint64_t location = 0) {
  return recorder::key_of(s, location << 48);
}

const recorder::entry& entry_of(const recorder& r, std::uint64_t wanted) {
  for (std::size_t i = 0; i < recorder::sites; ++i) {
    if (r.at(i).key.load() == wanted) return r.at(i);
  }
  return r.at(recorder::other_sites);
}

TEST(duration_scale, every_duration_is_in_a_bucket_at_most_an_eighth_wide) {
  std::size_t before = 0;
  for (timing::ticks t = 0; t < 100'000; ++t) {
    const std::size_t b = duration_scale::bucket_of(t);
    ASSERT_GE(b, before);
    ASSERT_LE(b, before + 1);
    ASSERT_LE(t, duration_scale::upper(b));
    if (b != 0) {
      ASSERT_GT(t, duration_scale::upper(b - 1));
      ASSERT_LE(duration_scale::upper(b) - duration_scale::upper(b - 1), 1 + t / 8);
    }
    before = b;
  }
}

TEST(duration_scale, the_longest_counts_in_the_last_bucket) {
  EXPECT_EQ(duration_scale::bucket_of(~timing::ticks{0}), duration_scale::buckets - 1);
  EXPECT_EQ(duration_scale::bucket_of((timing::ticks{1} << 43) - 1), duration_scale::buckets - 1);
  EXPECT_LT(duration_scale::bucket_of(timing::ticks{1} << 42), duration_scale::buckets - 1);
}

TEST_F(poll_recorder, counts_by_site_and_location) {
  r.note(100, 10, key(first_site), a);
  r.note(200, 30, key(second_site), a);
  r.note(300, 20, key(first_site), a);
  r.note(400, 5, key(first_site, 7), a);
  const auto& one = entry_of(r, key(first_site));
  EXPECT_EQ(one.polls.load(), 2U);
  EXPECT_EQ(one.cost.load(), 30U);
  EXPECT_EQ(one.longest.load(), 20U);
  EXPECT_EQ(one.again.load(), 0U);
  EXPECT_EQ(entry_of(r, key(second_site)).cost.load(), 30U);
  const auto& elsewhere = entry_of(r, key(first_site, 7));
  EXPECT_EQ(elsewhere.polls.load(), 1U);
  EXPECT_EQ(recorder::entry::site_in(elsewhere.key.load()), &first_site);
  EXPECT_EQ(recorder::entry::location_in(elsewhere.key.load()), 7U);
}

TEST_F(poll_recorder, again_is_directly_after_one_of_the_same_site_and_task) {
  r.note(100, 10, key(first_site), a);
  r.note(110, 10, key(first_site), a);  // again
  r.note(120, 10, key(first_site), b);  // another task
  r.note(140, 10, key(first_site), b);  // not directly
  r.note(150, 10, key(first_site), b);  // again
  r.note(160, 10, key(second_site), b);
  EXPECT_EQ(entry_of(r, key(first_site)).again.load(), 2U);
  EXPECT_EQ(entry_of(r, key(second_site)).again.load(), 0U);
}

TEST_F(poll_recorder, more_sites_than_it_has_room_for_count_as_one) {
  static std::array<hooks::site, 2000> many;
  for (const hooks::site& s : many) r.note(1, 2, key(s), a);
  std::uint64_t polls = 0;
  for (std::size_t i = 0; i <= recorder::sites; ++i) polls += r.at(i).polls.load();
  EXPECT_EQ(polls, many.size());
  EXPECT_GE(r.at(recorder::other_sites).polls.load(), many.size() - recorder::sites);
  EXPECT_EQ(r.at(recorder::other_sites).key.load(), 0U);
}

TEST_F(poll_recorder, the_longest_batch_keeps_its_last_site) {
  r.note(1, 10, key(first_site), a);
  r.note_batch(true, 10);
  r.note(11, 15, key(second_site), a);
  r.note_batch(false, 15);
  r.note(30, 20, key(first_site), a);
  r.note_batch(true, 20);
  EXPECT_EQ(r.longest_batch(), 25U);
  EXPECT_EQ(r.batch_key(), key(second_site));
}

TEST_F(poll_recorder, a_delay_longer_than_the_interval_stands_for_those_that_it_kept_away) {
  r.note_delay(1000, 350, 100);  // 350, and what would have come 100, 200 and 300 later
  std::uint64_t count = 0;
  for (const auto& c : r.delays()) count += c.load();
  EXPECT_EQ(count, 4U);
  EXPECT_EQ(r.delays_sum(), 350U + 250 + 150 + 50);
  r.note_delay(2000, 7, 0);
  EXPECT_EQ(r.delays()[7].load(), 1U);
}

TEST_F(poll_recorder, the_ring_keeps_the_last_events_and_says_what_is_lost) {
  r.make_ring(8);
  for (std::uint64_t i = 0; i < 20; ++i) r.note(100 + i * 10, 3, key(first_site), a);
  std::vector<event> events;
  std::uint64_t lost = 0;
  timing::ticks last = 0;
  EXPECT_EQ(r.copy(0, events, lost, last), 20U);
  EXPECT_EQ(events.size() + lost, 20U);
  EXPECT_GE(events.size(), 7U);  // one may be partly overwritten, as far as the reader knows
  EXPECT_EQ(last, 290U);
  EXPECT_EQ(events.back().first >> 16, 290U);
  EXPECT_EQ(events.back().second, std::uint64_t{3} << 32 | 1);
  events.clear();
  EXPECT_EQ(r.copy(20, events, lost, last), 20U);
  EXPECT_TRUE(events.empty());
}

TEST_F(poll_recorder, a_long_poll_is_kept_coarsely_in_the_ring) {
  r.make_ring(8);
  const timing::ticks cost = timing::ticks{1} << 35;
  r.note(0, cost, key(first_site), a);
  std::vector<event> events;
  std::uint64_t lost = 0;
  timing::ticks last = 0;
  r.copy(0, events, lost, last);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_NE(events[0].first & 16, 0U);
  EXPECT_EQ(events[0].second >> 32 << 10, cost);
}

TEST_F(poll_recorder, without_a_ring_marks_go_nowhere) {
  r.mark(recorder::kind::parked, 5, 1, 1);
  EXPECT_EQ(r.pushed(), 0U);
  r.make_ring(256);
  r.mark(recorder::kind::parked, 5, 1, 9);
  std::vector<event> events;
  std::uint64_t lost = 0;
  timing::ticks last = 0;
  r.copy(0, events, lost, last);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].first & 15, static_cast<std::uint64_t>(recorder::kind::parked));
  EXPECT_EQ(events[0].first >> 5 & 0x7ff, recorder::no_site);
  EXPECT_EQ(events[0].second, std::uint64_t{9} << 32 | 1);
}

// A copy that is made while the worker continues has whole events, in order, with no gaps except
// for lost events.
TEST_F(poll_recorder, copies_are_whole_while_the_worker_writes) {
  r.make_ring(64);
  std::atomic<bool> done{false};
  constexpr std::uint64_t rounds = 200'000;
  std::jthread worker([&] {
    for (std::uint64_t i = 1; i <= rounds; ++i) {
      r.mark(recorder::kind::hint, i, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i));
    }
    done.store(true, std::memory_order_release);
  });
  std::uint64_t next = 0;
  std::uint64_t lost = 0;
  std::uint64_t seen = 0;
  std::uint64_t before = 0;
  std::vector<event> events;
  for (bool last_look = false;; last_look = done.load(std::memory_order_acquire)) {
    events.clear();
    timing::ticks last = 0;
    next = r.copy(next, events, lost, last);
    for (const event& e : events) {
      const std::uint64_t i = e.first >> 16;
      ASSERT_GT(i, before);
      ASSERT_EQ(e.second, i << 32 | i);
      before = i;
    }
    seen += events.size();
    if (last_look) break;
  }
  EXPECT_EQ(before, rounds);
  EXPECT_EQ(seen + lost, rounds);
}

}  // namespace
