// SPDX-License-Identifier: BSL-1.0
#include "ledger.hpp"
// The header comes first: it has to stand alone.

#include <gtest/gtest.h>

namespace {

using namespace asio_pulse::scx;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

const ledger::time_point noon = ledger::time_point{} + std::chrono::hours{12};

thread_identity thread(pid_t tid, std::uint64_t start = 1) {
  return {.tid = tid, .own_tid = tid, .start_ticks = start};
}

struct attached {
  refusal refused;
  worker_entry made;
  std::optional<worker_entry> displaced;
};

attached attach(ledger& book, pid_t tgid, const thread_identity& who) {
  attached result;
  result.refused = book.attach(tgid, who, result.made, result.displaced);
  return result;
}

TEST(ledger, gives_the_lowest_free_slot_never_0) {
  ledger book{limits{}};
  ASSERT_FALSE(book.connect(1000, noon));
  ASSERT_FALSE(book.open(10, 1000));
  EXPECT_EQ(attach(book, 10, thread(10)).made.slot, 1U);
  EXPECT_EQ(attach(book, 10, thread(11)).made.slot, 2U);
  EXPECT_EQ(attach(book, 10, thread(12)).made.slot, 3U);
  EXPECT_TRUE(book.detach(10, 11, 2));
  EXPECT_FALSE(book.detach(10, 11, 2)) << "once";
  EXPECT_EQ(attach(book, 10, thread(13)).made.slot, 2U);
  EXPECT_EQ(book.worker_count(), 3U);
}

TEST(ledger, a_number_with_another_start_is_another_thread) {
  ledger book{limits{}};
  book.connect(1000, noon);
  book.open(10, 1000);
  attach(book, 10, thread(11, 5));
  EXPECT_EQ(attach(book, 10, thread(11, 5)).refused.code, ASIO_PULSE_REFUSED_THREAD);
  const attached again = attach(book, 10, thread(11, 6));
  EXPECT_FALSE(again.refused);
  EXPECT_EQ(again.made.slot, 1U);
  ASSERT_TRUE(again.displaced);
  EXPECT_EQ(again.displaced->thread.start_ticks, 5U);
  EXPECT_EQ(book.worker_count(), 1U);
}

TEST(ledger, close_forgets_everything_of_the_process) {
  ledger book{limits{.workers_per_user = 2}};
  book.connect(1000, noon);
  book.open(10, 1000);
  attach(book, 10, thread(10));
  attach(book, 10, thread(11));
  EXPECT_EQ(book.close(10).size(), 2U);
  EXPECT_EQ(book.close(10).size(), 0U);
  EXPECT_EQ(book.worker_count(), 0U);
  EXPECT_EQ(book.process_count(), 0U);
  EXPECT_EQ(attach(book, 10, thread(10)).refused.code, ASIO_PULSE_REFUSED_ORDER);
  book.open(12, 1000);
  EXPECT_FALSE(attach(book, 12, thread(12)).refused) << "its user has his two again";
  EXPECT_FALSE(attach(book, 12, thread(13)).refused);
}

TEST(ledger, bounds_are_of_one_user_and_not_of_the_exempt_one) {
  ledger book{limits{.workers_per_process = 3,
                     .processes_per_user = 1,
                     .workers_per_user = 2,
                     .connections_per_user = 1,
                     .exempt = 0}};
  for (const uid_t uid : {1000U, 1001U}) {
    EXPECT_FALSE(book.connect(uid, noon));
    EXPECT_EQ(book.connect(uid, noon).code, ASIO_PULSE_REFUSED_USER_LIMIT);
    const auto tgid = static_cast<pid_t>(uid * 10);
    EXPECT_FALSE(book.open(tgid, uid));
    EXPECT_EQ(book.open(tgid + 1, uid).code, ASIO_PULSE_REFUSED_USER_LIMIT);
    EXPECT_FALSE(attach(book, tgid, thread(tgid)).refused);
    EXPECT_FALSE(attach(book, tgid, thread(tgid + 1)).refused);
    EXPECT_EQ(attach(book, tgid, thread(tgid + 2)).refused.code, ASIO_PULSE_REFUSED_USER_LIMIT);
  }
  EXPECT_FALSE(book.connect(0, noon));
  EXPECT_FALSE(book.connect(0, noon));
  EXPECT_FALSE(book.open(1, 0));
  EXPECT_FALSE(book.open(2, 0));
  for (pid_t tid = 1; tid <= 3; ++tid) EXPECT_FALSE(attach(book, 1, thread(tid)).refused);
  EXPECT_EQ(attach(book, 1, thread(4)).refused.code, ASIO_PULSE_REFUSED_PROCESS_LIMIT);
}

TEST(ledger, a_process_is_opened_once) {
  ledger book{limits{}};
  book.connect(1000, noon);
  EXPECT_FALSE(book.open(10, 1000));
  EXPECT_EQ(book.open(10, 1000).code, ASIO_PULSE_REFUSED_ORDER);
  EXPECT_EQ(book.process_count(), 1U);
}

TEST(ledger, a_refused_connection_counts_for_nothing) {
  ledger book{limits{.connections_per_user = 1}};
  book.connect(1000, noon);
  book.connect(1000, noon);
  EXPECT_EQ(book.connection_count(), 1U);
  book.disconnect(1000);
  EXPECT_EQ(book.connection_count(), 0U);
  EXPECT_FALSE(book.connect(1000, noon));
}

TEST(ledger_charge, rests_who_is_ahead_by_more_than_the_credit) {
  ledger book{limits{}};
  book.connect(1000, noon);
  EXPECT_EQ(book.charge(1000, milliseconds{4}, noon), nanoseconds{0});
  EXPECT_EQ(book.charge(1000, milliseconds{6}, noon), nanoseconds{0});
  EXPECT_EQ(book.charge(1000, milliseconds{2}, noon), milliseconds{20}) << "a tenth of the time";
  EXPECT_EQ(book.charge(1000, nanoseconds{0}, noon + milliseconds{20}), nanoseconds{0});
  EXPECT_EQ(book.charge(1000, milliseconds{1}, noon + milliseconds{20}), milliseconds{10});
  EXPECT_EQ(book.charge(1000, milliseconds{10}, noon + seconds{10}), nanoseconds{0}) << "all paid";
  EXPECT_EQ(book.charge(1000, milliseconds{1}, noon + seconds{10}), milliseconds{10})
      << "but nothing is saved up";
}

TEST(ledger_charge, is_not_shaken_off_by_coming_again) {
  ledger book{limits{}};
  book.connect(1000, noon);
  book.charge(1000, milliseconds{50}, noon);
  book.disconnect(1000);
  book.connect(1000, noon + milliseconds{1});
  EXPECT_GT(book.charge(1000, nanoseconds{0}, noon + milliseconds{1}), milliseconds{350});
  book.disconnect(1000);
  book.connect(1000, noon + seconds{1});
  EXPECT_EQ(book.charge(1000, nanoseconds{0}, noon + seconds{1}), nanoseconds{0});
}

TEST(ledger_charge, is_everybodys_own_and_not_the_exempt_users) {
  ledger book{limits{.exempt = 0}};
  book.connect(0, noon);
  book.connect(1000, noon);
  book.connect(1001, noon);
  EXPECT_GT(book.charge(1000, seconds{1}, noon), nanoseconds{0});
  EXPECT_EQ(book.charge(1001, milliseconds{1}, noon), nanoseconds{0});
  EXPECT_EQ(book.charge(0, seconds{1}, noon), nanoseconds{0});
}

}  // namespace
