// SPDX-License-Identifier: BSL-1.0
#include "quota.hpp"
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

namespace {

using namespace asio_pulse::scx;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

const user_quotas::time_point noon = user_quotas::time_point{} + std::chrono::hours{12};

thread_identity thread(pid_t tid, std::uint64_t start = 1) {
  return {.tid = tid, .own_tid = tid, .start_ticks = start};
}

struct attached {
  refusal refused;
  worker_entry made;
  std::optional<worker_entry> displaced;
};

attached attach(user_quotas& quotas, pid_t tgid, const thread_identity& who) {
  attached result;
  result.refused = quotas.attach(tgid, who, result.made, result.displaced);
  return result;
}

TEST(user_quotas, gives_the_lowest_free_slot_never_0) {
  user_quotas quotas{limits{}};
  ASSERT_FALSE(quotas.connect(1000, noon));
  ASSERT_FALSE(quotas.open(10, 1000));
  EXPECT_EQ(attach(quotas, 10, thread(10)).made.slot, 1U);
  EXPECT_EQ(attach(quotas, 10, thread(11)).made.slot, 2U);
  EXPECT_EQ(attach(quotas, 10, thread(12)).made.slot, 3U);
  EXPECT_TRUE(quotas.detach(10, 11, 2));
  EXPECT_FALSE(quotas.detach(10, 11, 2)) << "once";
  EXPECT_EQ(attach(quotas, 10, thread(13)).made.slot, 2U);
  EXPECT_EQ(quotas.worker_count(), 3U);
}

TEST(user_quotas, a_number_with_another_start_is_another_thread) {
  user_quotas quotas{limits{}};
  quotas.connect(1000, noon);
  quotas.open(10, 1000);
  attach(quotas, 10, thread(11, 5));
  EXPECT_EQ(attach(quotas, 10, thread(11, 5)).refused.code, ASIO_PULSE_REFUSED_THREAD);
  const attached again = attach(quotas, 10, thread(11, 6));
  EXPECT_FALSE(again.refused);
  EXPECT_EQ(again.made.slot, 1U);
  ASSERT_TRUE(again.displaced);
  EXPECT_EQ(again.displaced->thread.start_ticks, 5U);
  EXPECT_EQ(quotas.worker_count(), 1U);
}

TEST(user_quotas, close_forgets_everything_of_the_process) {
  user_quotas quotas{limits{.workers_per_user = 2}};
  quotas.connect(1000, noon);
  quotas.open(10, 1000);
  attach(quotas, 10, thread(10));
  attach(quotas, 10, thread(11));
  EXPECT_EQ(quotas.close(10).size(), 2U);
  EXPECT_EQ(quotas.close(10).size(), 0U);
  EXPECT_EQ(quotas.worker_count(), 0U);
  EXPECT_EQ(quotas.process_count(), 0U);
  EXPECT_EQ(attach(quotas, 10, thread(10)).refused.code, ASIO_PULSE_REFUSED_ORDER);
  quotas.open(12, 1000);
  EXPECT_FALSE(attach(quotas, 12, thread(12)).refused) << "the user has two again";
  EXPECT_FALSE(attach(quotas, 12, thread(13)).refused);
}

TEST(user_quotas, bounds_are_of_one_user_and_not_of_the_exempt_one) {
  user_quotas quotas{limits{.workers_per_process = 3,
                            .processes_per_user = 1,
                            .workers_per_user = 2,
                            .connections_per_user = 1,
                            .exempt = 0}};
  for (const uid_t uid : {1000U, 1001U}) {
    EXPECT_FALSE(quotas.connect(uid, noon));
    EXPECT_EQ(quotas.connect(uid, noon).code, ASIO_PULSE_REFUSED_USER_LIMIT);
    const auto tgid = static_cast<pid_t>(uid * 10);
    EXPECT_FALSE(quotas.open(tgid, uid));
    EXPECT_EQ(quotas.open(tgid + 1, uid).code, ASIO_PULSE_REFUSED_USER_LIMIT);
    EXPECT_FALSE(attach(quotas, tgid, thread(tgid)).refused);
    EXPECT_FALSE(attach(quotas, tgid, thread(tgid + 1)).refused);
    EXPECT_EQ(attach(quotas, tgid, thread(tgid + 2)).refused.code, ASIO_PULSE_REFUSED_USER_LIMIT);
  }
  EXPECT_FALSE(quotas.connect(0, noon));
  EXPECT_FALSE(quotas.connect(0, noon));
  EXPECT_FALSE(quotas.open(1, 0));
  EXPECT_FALSE(quotas.open(2, 0));
  for (pid_t tid = 1; tid <= 3; ++tid) EXPECT_FALSE(attach(quotas, 1, thread(tid)).refused);
  EXPECT_EQ(attach(quotas, 1, thread(4)).refused.code, ASIO_PULSE_REFUSED_PROCESS_LIMIT);
}

TEST(user_quotas, a_process_is_opened_once) {
  user_quotas quotas{limits{}};
  quotas.connect(1000, noon);
  EXPECT_FALSE(quotas.open(10, 1000));
  EXPECT_EQ(quotas.open(10, 1000).code, ASIO_PULSE_REFUSED_ORDER);
  EXPECT_EQ(quotas.process_count(), 1U);
}

TEST(user_quotas, what_all_users_may_take_together_leaves_the_rest_to_the_exempt_one) {
  user_quotas quotas{limits{.connections_per_user = 2, .connections = 3, .exempt = 0}};
  EXPECT_FALSE(quotas.connect(1000, noon));
  EXPECT_FALSE(quotas.connect(1000, noon));
  EXPECT_EQ(quotas.connect(1000, noon).code, ASIO_PULSE_REFUSED_USER_LIMIT);
  EXPECT_FALSE(quotas.connect(0, noon));
  EXPECT_FALSE(quotas.connect(1001, noon));
  const refusal late = quotas.connect(1002, noon);
  EXPECT_EQ(late.code, ASIO_PULSE_REFUSED_SERVICE_LIMIT);
  EXPECT_EQ(late.text, "this scx_pulse has 3 connections; the rest is reserved for root");
  EXPECT_FALSE(quotas.connect(0, noon));
  quotas.disconnect(0);
  EXPECT_TRUE(quotas.connect(1002, noon)) << "the reserved place is for root only";
  quotas.disconnect(1000);
  EXPECT_FALSE(quotas.connect(1002, noon));
}

TEST(user_quotas, the_bounds_fit_what_the_loader_may_open) {
  const auto within = [](std::size_t descriptors) {
    return within_descriptors(limits{}, descriptors);
  };
  EXPECT_EQ(within(1'000'000).connections, limits{}.connections);
  EXPECT_EQ(within(1'000'000).connections_per_user, limits{}.connections_per_user);
  // Of the usual 1024: 256 for the loader and for root, four each for the others.
  EXPECT_EQ(within(1024).connections, 192U);
  EXPECT_EQ(within(1024).connections_per_user, 48U);
  EXPECT_EQ(within(10).connections, 8U);
  EXPECT_EQ(within(10).connections_per_user, 2U);
}

TEST(user_quotas, a_refused_connection_counts_for_nothing) {
  user_quotas quotas{limits{.connections_per_user = 1}};
  quotas.connect(1000, noon);
  quotas.connect(1000, noon);
  EXPECT_EQ(quotas.connection_count(), 1U);
  quotas.disconnect(1000);
  EXPECT_EQ(quotas.connection_count(), 0U);
  EXPECT_FALSE(quotas.connect(1000, noon));
}

TEST(quota_charge, rests_who_is_ahead_by_more_than_the_credit) {
  user_quotas quotas{limits{}};
  quotas.connect(1000, noon);
  EXPECT_EQ(quotas.charge(1000, milliseconds{4}, noon), nanoseconds{0});
  EXPECT_EQ(quotas.charge(1000, milliseconds{6}, noon), nanoseconds{0});
  EXPECT_EQ(quotas.charge(1000, milliseconds{2}, noon), milliseconds{20}) << "a tenth of the time";
  EXPECT_EQ(quotas.charge(1000, nanoseconds{0}, noon + milliseconds{20}), nanoseconds{0});
  EXPECT_EQ(quotas.charge(1000, milliseconds{1}, noon + milliseconds{20}), milliseconds{10});
  EXPECT_EQ(quotas.charge(1000, milliseconds{10}, noon + seconds{10}), nanoseconds{0})
      << "all paid";
  EXPECT_EQ(quotas.charge(1000, milliseconds{1}, noon + seconds{10}), milliseconds{10})
      << "but unused time is not saved up";
}

TEST(quota_charge, is_not_shaken_off_by_coming_again) {
  user_quotas quotas{limits{}};
  quotas.connect(1000, noon);
  quotas.charge(1000, milliseconds{50}, noon);
  quotas.disconnect(1000);
  quotas.connect(1000, noon + milliseconds{1});
  EXPECT_GT(quotas.charge(1000, nanoseconds{0}, noon + milliseconds{1}), milliseconds{350});
  quotas.disconnect(1000);
  quotas.connect(1000, noon + seconds{1});
  EXPECT_EQ(quotas.charge(1000, nanoseconds{0}, noon + seconds{1}), nanoseconds{0});
}

TEST(quota_charge, is_everybodys_own_and_not_the_exempt_users) {
  user_quotas quotas{limits{.exempt = 0}};
  quotas.connect(0, noon);
  quotas.connect(1000, noon);
  quotas.connect(1001, noon);
  EXPECT_GT(quotas.charge(1000, seconds{1}, noon), nanoseconds{0});
  EXPECT_EQ(quotas.charge(1001, milliseconds{1}, noon), nanoseconds{0});
  EXPECT_EQ(quotas.charge(0, seconds{1}, noon), nanoseconds{0});
}

}  // namespace
