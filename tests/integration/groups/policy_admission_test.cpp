// SPDX-License-Identifier: BSL-1.0

// What policies mean for admission, and when a policy of the program's is made.

#include <support/scenario.hpp>
//
#include <asio_pulse/scheduling_policy.hpp>
#include <asio_pulse/task_group.hpp>

#include <gmock/gmock.h>

#include <atomic>
#include <memory>
#include <span>

namespace {

using namespace pulse_test;
using asio_pulse::scheduling;
using asio_pulse::task;
using asio_pulse::task_group;
using testing::HasSubstr;

// Invariant 106: requests of a flood wait and are refused, also for as long as the context is saturated.
// Those of a tenant that waits for nothing are admitted.
TEST(policy_admission, sees_how_long_operations_of_the_group_wait) {
  if (always_preempt()) GTEST_SKIP() << "every operation goes behind the others once";
  struct asking {
    asio_pulse::io_context& io;
    std::atomic<std::int64_t>& left;
    void post(const task& t, const task_group& g, std::chrono::microseconds cost) const {
      asio_pulse::post(t, [this, t, g, cost] {
        (void)asio_pulse::admit(g);
        burn(cost);
        if ((left -= cost.count() * 1000) > 0) post(t, g, cost);
      });
    }
  };
  const auto refused = [](const task_group& g) {
    const asio_pulse::group_statistics s = g.stats();
    const auto no = static_cast<double>(s.refused_share + s.refused_overload);
    return no / (no + static_cast<double>(s.admitted));
  };
  asio_pulse::options o = steady();
  o.policy = scheduling::fair;
  o.saturation = 100us;
  o.admission = {.target = 2ms, .interval = 10ms};
  EXPECT_TRUE(holds_in_one_of(5, [&]() -> testing::AssertionResult {
    asio_pulse::io_context io{o};
    const task_group flood(io, {.name = "flood"});
    const task_group small(io, {.name = "small"});
    std::atomic<std::int64_t> left{std::chrono::nanoseconds(300ms).count()};
    const asking work{io, left};
    for (int i = 0; i != 64; ++i) work.post(task(io, in_group(flood)), flood, 200us);
    work.post(task(io, in_group(small)), small, 20us);
    io.run();
    // Some of the small tenant's, too, when other programs take the CPU for longer than its limit.
    if (refused(flood) > 0.3 && refused(small) < refused(flood) / 3) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure()
           << "refused: " << refused(flood) << " of the flood, " << refused(small)
           << " of the small tenant, " << small.stats().admitted << " admitted";
  }));
}

struct first_of_all : asio_pulse::scheduling_policy {
  std::size_t pick(std::span<const work> /*waiting*/, time /*now*/) override { return 0; }
};

TEST(policy_updates, a_custom_policy_is_made_only_when_the_policy_changes) {
  int made = 0;
  asio_pulse::options o = steady();
  o.policy = scheduling::custom;
  o.custom_policy = [&made] {
    ++made;
    return std::make_unique<first_of_all>();
  };
  asio_pulse::io_context io{o};
  EXPECT_EQ(made, 1);
  io.update({.policy = scheduling::custom});
  io.update({.policy = scheduling::custom, .saturation = 1ms});
  io.update({.shadow = true});
  asio_pulse::options next = io.get_options();
  next.shadow = false;
  io.update_to(next);
  EXPECT_EQ(made, 1);
  EXPECT_THAT(refused_by_name([&] { io.update({.policy = scheduling::fair, .saturation = 1us}); }),
              HasSubstr("saturation"));
  EXPECT_EQ(io.get_options().policy, scheduling::custom);
  io.update({.policy = scheduling::fair});
  EXPECT_EQ(made, 1);
  EXPECT_THAT(
      refused_by_name([&] { io.update({.policy = scheduling::custom, .saturation = 1us}); }),
      HasSubstr("saturation"));
  EXPECT_EQ(made, 1) << "not for an update that is refused";
  io.update({.policy = scheduling::custom});
  EXPECT_EQ(made, 2);
}

}  // namespace
