// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/registry.hpp>
//
#include <support/sanitizers.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <latch>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace asio_pulse::hooks;

const poll_event a_poll{.task_id = 7,
                        .task_name = "report",
                        .site = "main.cpp:1",
                        .thread = std::this_thread::get_id(),
                        .start = 100,
                        .cost = 20,
                        .exact = true};

hook_set counting_polls(std::atomic<int>& calls) {
  return {.before_poll = [&calls](const poll_event&) { ++calls; }};
}

TEST(registry, fires_nothing_when_empty) {
  registry hooks;
  EXPECT_FALSE(hooks.wants_polls());
  hooks.before_poll(a_poll);
  hooks.after_poll(a_poll);
  hooks.task_spawned({});
  hooks.tier_changed({});
  hooks.stall({});
  hooks.yielded({});
  hooks.completed({});
  EXPECT_FALSE(hooks.wants_yields());
  EXPECT_FALSE(hooks.wants_completions());
  EXPECT_EQ(hooks.hook_errors(), 0U);
}

TEST(registry, each_kind_reaches_its_hook_with_its_event) {
  registry hooks;
  std::vector<std::string> seen;
  const auto connection = hooks.install({
      .task_spawned =
          [&](const task_event& e) {
            EXPECT_EQ(e.task_id, 3U);
            EXPECT_EQ(e.parent_id, 2U);
            seen.emplace_back("spawned " + std::string(e.task_name));
          },
      .before_poll =
          [&](const poll_event& e) { seen.emplace_back("before " + std::string(e.site)); },
      .after_poll =
          [&](const poll_event& e) {
            EXPECT_EQ(e.cost, 20U);
            EXPECT_TRUE(e.exact);
            EXPECT_EQ(e.thread, std::this_thread::get_id());
            seen.emplace_back("after " + std::string(e.task_name));
          },
      .tier_changed =
          [&](const tier_event& e) {
            seen.emplace_back("tier " + std::to_string(e.from) + std::to_string(e.to));
          },
      .stall =
          [&](const stall_event& e) { seen.emplace_back("stall " + std::string(e.task_name)); },
      .yielded =
          [&](const yield_event& e) {
            EXPECT_EQ(e.task_id, 3U);
            EXPECT_EQ(e.site, "main.cpp:1");
            EXPECT_EQ(e.thread, std::this_thread::get_id());
            EXPECT_EQ(e.operations, 4U);
            seen.emplace_back("yielded " + std::string(to_string(e.reason)));
          },
      .completed =
          [&](const completion_event& e) {
            EXPECT_EQ(e.task_id, 3U);
            EXPECT_EQ(e.parent_id, 2U);
            EXPECT_EQ(e.polls, 5U);
            EXPECT_EQ(e.cpu, std::chrono::microseconds{6});
            seen.emplace_back("completed " + std::string(e.task_name));
          },
  });
  EXPECT_TRUE(connection.connected());
  hooks.task_spawned({.task_id = 3, .task_name = "child", .parent_id = 2});
  hooks.before_poll(a_poll);
  hooks.after_poll(a_poll);
  hooks.tier_changed({.task_id = 3, .task_name = "child", .from = 0, .to = 2});
  hooks.stall({.task_id = 3,
               .task_name = "child",
               .site = {},
               .thread = {},
               .so_far = std::chrono::milliseconds{5}});
  hooks.yielded({.task_id = 3,
                 .task_name = "child",
                 .site = "main.cpp:1",
                 .thread = std::this_thread::get_id(),
                 .reason = yield_reason::held,
                 .operations = 4});
  hooks.completed({.task_id = 3,
                   .task_name = "child",
                   .parent_id = 2,
                   .polls = 5,
                   .cpu = std::chrono::microseconds{6}});
  EXPECT_EQ(seen, (std::vector<std::string>{"spawned child", "before main.cpp:1", "after report",
                                            "tier 02", "stall child", "yielded held",
                                            "completed child"}));
}

TEST(registry, each_reason_of_a_yield_has_a_name) {
  std::set<std::string_view> names;
  for (auto why = static_cast<std::uint8_t>(yield_reason::hint);
       why <= static_cast<std::uint8_t>(yield_reason::forced); ++why) {
    EXPECT_TRUE(names.insert(to_string(static_cast<yield_reason>(why))).second);
  }
  EXPECT_EQ(names.size(), 9U);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(to_string(static_cast<yield_reason>(200)), "unknown");
}

TEST(registry, says_whether_yields_and_ends_are_wanted) {
  registry hooks;
  auto yields = hooks.install({.yielded = [](const yield_event&) {}});
  EXPECT_TRUE(hooks.wants_yields());
  EXPECT_FALSE(hooks.wants_completions());
  EXPECT_FALSE(hooks.wants_polls());
  auto ends = hooks.install({.completed = [](const completion_event&) {}});
  EXPECT_TRUE(hooks.wants_completions());
  yields.disconnect();
  EXPECT_FALSE(hooks.wants_yields());
  EXPECT_TRUE(hooks.wants_completions());
  ends.disconnect();
  EXPECT_FALSE(hooks.wants_completions());
}

TEST(registry, knows_whether_this_thread_is_in_a_hook) {
  registry hooks;
  registry others;
  std::vector<bool> inside;
  const auto look = [&] { inside.push_back(registry::calling()); };
  const auto inner = others.install({.yielded = [&](const yield_event&) { look(); }});
  const auto outer = hooks.install({.completed = [&](const completion_event&) {
    look();
    others.yielded({});
    look();
    std::thread([&] { look(); }).join();
    throw std::runtime_error("of the hook");
  }});
  look();
  hooks.completed({});
  look();
  EXPECT_EQ(inside, (std::vector<bool>{false, true, true, true, false, false}));
  EXPECT_EQ(hooks.hook_errors(), 1U);
}

TEST(registry, every_installed_set_is_called) {
  registry hooks;
  std::atomic<int> calls{0};
  std::vector<registry::connection> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back(hooks.install(counting_polls(calls)));
  }
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 10);
  all.resize(4);
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 14);
}

TEST(registry, a_connection_removes_when_destroyed_moved_over_or_told_to) {
  registry hooks;
  std::atomic<int> calls{0};
  {
    const auto scoped = hooks.install(counting_polls(calls));
    hooks.before_poll(a_poll);
    EXPECT_EQ(calls, 1);
  }
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 1);

  auto first = hooks.install(counting_polls(calls));
  auto moved = std::move(first);
  EXPECT_FALSE(first.connected());  // NOLINT(bugprone-use-after-move): moved from is disconnected
  EXPECT_TRUE(moved.connected());
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 2);

  std::atomic<int> others{0};
  moved = hooks.install(counting_polls(others));
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(others, 1);

  moved.disconnect();
  moved.disconnect();
  EXPECT_FALSE(moved.connected());
  hooks.before_poll(a_poll);
  EXPECT_EQ(others, 1);
}

TEST(registry, removal_destroys_what_the_hooks_captured) {
  registry hooks;
  auto token = std::make_shared<int>(1);
  auto connection = hooks.install({.before_poll = [token](const poll_event&) {}});
  EXPECT_EQ(token.use_count(), 2);
  connection.disconnect();
  EXPECT_EQ(token.use_count(), 1);
}

TEST(registry, wants_polls_and_the_listener_follow_the_poll_hooks_only) {
  registry hooks;
  std::vector<bool> heard;
  const auto hear = [](void* to, bool wants) {
    static_cast<std::vector<bool>*>(to)->push_back(wants);
  };
  hooks.set_listener(hear, &heard);
  EXPECT_EQ(heard, (std::vector<bool>{false}));
  auto spawn_only = hooks.install({.task_spawned = [](const task_event&) {}});
  EXPECT_FALSE(hooks.wants_polls());
  auto before = hooks.install({.before_poll = [](const poll_event&) {}});
  EXPECT_TRUE(hooks.wants_polls());
  auto after = hooks.install({.after_poll = [](const poll_event&) {}});
  before.disconnect();
  EXPECT_TRUE(hooks.wants_polls());
  after.disconnect();
  EXPECT_FALSE(hooks.wants_polls());
  EXPECT_EQ(heard, (std::vector<bool>{false, true, false}));
  hooks.set_listener(nullptr, nullptr);
  after = hooks.install({.after_poll = [](const poll_event&) {}});
  EXPECT_EQ(heard.size(), 3U);
}

TEST(registry, a_throwing_hook_is_counted_kept_and_harms_no_other) {
  registry hooks;
  std::atomic<int> calls{0};
  const auto first = hooks.install(counting_polls(calls));
  const auto throwing = hooks.install({.before_poll = [&calls](const poll_event&) {
    ++calls;
    throw std::runtime_error("an exception of a hook");
  }});
  const auto odd = hooks.install({.before_poll = [](const poll_event&) { throw 42; }});
  const auto last = hooks.install(counting_polls(calls));
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(hooks.hook_errors(), 2U);
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 6);
  EXPECT_EQ(hooks.hook_errors(), 4U);
}

TEST(registry, a_hook_can_remove_itself) {
  registry hooks;
  int calls = 0;
  auto token = std::make_shared<int>(1);
  std::optional<registry::connection> self;
  self.emplace(hooks.install({.before_poll = [&calls, &self, token](const poll_event&) {
    ++calls;
    self.reset();
    EXPECT_EQ(token.use_count(), 2);  // our own captures outlive the call
  }}));
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(token.use_count(), 1);  // and no longer
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(hooks.wants_polls());
}

TEST(registry, a_hook_that_removes_itself_and_throws_is_gone_too) {
  registry hooks;
  std::optional<registry::connection> self;
  self.emplace(hooks.install({.before_poll = [&self](const poll_event&) {
    self.reset();
    throw std::runtime_error("and goodbye");
  }}));
  hooks.before_poll(a_poll);
  hooks.before_poll(a_poll);
  EXPECT_EQ(hooks.hook_errors(), 1U);
}

TEST(registry, a_hook_can_remove_itself_from_a_nested_fire) {
  registry hooks;
  int depth = 0;
  int calls = 0;
  auto token = std::make_shared<int>(1);
  std::optional<registry::connection> self;
  self.emplace(hooks.install({.before_poll = [&, token](const poll_event& e) {
    ++calls;
    if (++depth < 3) {
      hooks.before_poll(e);
    } else {
      self.reset();
    }
    EXPECT_EQ(token.use_count(), 2);
  }}));
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(token.use_count(), 1);
}

TEST(registry, a_hook_can_remove_and_install_others) {
  registry hooks;
  std::atomic<int> old_calls{0};
  std::atomic<int> new_calls{0};
  auto victim = hooks.install(counting_polls(old_calls));
  registry::connection added;
  const auto manager = hooks.install({.after_poll = [&](const poll_event&) {
    victim.disconnect();
    added = hooks.install(counting_polls(new_calls));
  }});
  hooks.before_poll(a_poll);
  hooks.after_poll(a_poll);
  hooks.before_poll(a_poll);
  EXPECT_EQ(old_calls, 1);
  EXPECT_EQ(new_calls, 1);
}

TEST(registry, captures_may_hold_connections) {
  registry hooks;
  std::atomic<int> calls{0};
  auto inner = std::make_shared<registry::connection>(hooks.install(counting_polls(calls)));
  auto outer = hooks.install({.after_poll = [inner](const poll_event&) {}});
  inner.reset();
  outer.disconnect();  // destroys the capture, which removes the other
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 0);
}

TEST(registry, connections_may_outlive_the_registry) {
  std::atomic<int> calls{0};
  registry::connection late;
  {
    registry hooks;
    late = hooks.install(counting_polls(calls));
  }
  EXPECT_TRUE(late.connected());
  late.disconnect();
}

TEST(registry, two_registries_do_not_mix) {
  registry first;
  registry second;
  std::atomic<int> calls{0};
  const auto connection = first.install(counting_polls(calls));
  second.before_poll(a_poll);
  EXPECT_EQ(calls, 0);
  EXPECT_FALSE(second.wants_polls());
}

TEST(registry, removal_waits_for_a_call_in_another_thread) {
  registry hooks;
  std::latch inside{1};
  std::latch leave{1};
  std::atomic<bool> left{false};
  auto connection = hooks.install({.before_poll = [&](const poll_event&) {
    inside.count_down();
    leave.wait();
    left = true;
  }});
  std::thread poller([&] { hooks.before_poll(a_poll); });
  inside.wait();
  std::atomic<bool> removed{false};
  std::thread remover([&] {
    connection.disconnect();
    EXPECT_TRUE(left);
    removed = true;
  });
  while (hooks.wants_polls()) {  // until the removal has begun
    std::this_thread::yield();
  }
  EXPECT_FALSE(removed);      // it cannot end while the hook is inside
  hooks.before_poll(a_poll);  // nor is the hook called: its latch would be counted down twice
  leave.count_down();
  remover.join();
  poller.join();
  EXPECT_TRUE(removed);
}

TEST(registry, removal_from_inside_does_not_wait_for_the_same_hook_in_another_thread) {
  registry hooks;
  std::latch both_inside{2};
  std::latch removed{1};
  std::atomic<int> calls{0};
  std::atomic<bool> first{true};
  auto token = std::make_shared<int>(1);
  std::optional<registry::connection> self;
  self.emplace(hooks.install({.before_poll = [&, token](const poll_event&) {
    ++calls;
    both_inside.arrive_and_wait();
    if (first.exchange(false)) {
      self.reset();
      removed.count_down();
    } else {
      removed.wait();  // would be a deadlock if the removal waited
    }
    EXPECT_EQ(*token, 1);
  }}));
  std::thread other([&] { hooks.before_poll(a_poll); });
  hooks.before_poll(a_poll);
  other.join();
  hooks.before_poll(a_poll);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(token.use_count(), 1);
}

// After disconnect() returns the flag is false and the hook's state is gone: a call that came later
// would see that. Nodes are reused all the time, by hooks of other kinds.
TEST(registry, install_and_remove_storm_beside_firing_threads) {
  registry hooks;
  constexpr int firing = 2;
  constexpr int changing = 2;
#if defined(PULSE_TEST_TSAN) || defined(PULSE_TEST_ASAN)
  constexpr int rounds = 150;
#else
  constexpr int rounds = 400;
#endif
  std::latch start{firing + changing};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> after_removal{0};
  std::atomic<std::uint64_t> calls{0};
  std::vector<std::thread> fire;
  for (int i = 0; i < firing; ++i) {
    fire.emplace_back([&] {
      start.arrive_and_wait();
      while (!stop.load(std::memory_order_relaxed)) {
        hooks.before_poll(a_poll);
        hooks.after_poll(a_poll);
        hooks.tier_changed({});
      }
    });
  }
  std::vector<std::thread> change;
  for (int i = 0; i < changing; ++i) {
    change.emplace_back([&, i] {
      start.arrive_and_wait();
      for (int round = 0; round < rounds; ++round) {
        struct state {
          std::atomic<bool> live{true};
          std::array<int, 4> plain{1, 2, 3, 4};  // unsynchronised: the removal orders the accesses
        };
        auto mine = std::make_unique<state>();
        const auto use = [&, s = mine.get()] {
          if (!s->live.load(std::memory_order_relaxed) || s->plain[2] != 3) {
            ++after_removal;
          }
          ++calls;
        };
        hook_set set;
        switch ((round + i) % 3) {
          case 0:
            set.before_poll = [use](const poll_event&) { use(); };
            break;
          case 1:
            set.after_poll = [use](const poll_event&) { use(); };
            break;
          default:
            set.tier_changed = [use](const tier_event&) { use(); };
            set.before_poll = [use](const poll_event&) { use(); };
        }
        auto connection = hooks.install(std::move(set));
        if (round % 2 == 0) {
          std::this_thread::yield();
        }
        connection.disconnect();
        mine->live.store(false, std::memory_order_relaxed);
        mine->plain[2] = 0;
      }
    });
  }
  for (auto& thread : change) {
    thread.join();
  }
  stop = true;
  for (auto& thread : fire) {
    thread.join();
  }
  EXPECT_EQ(after_removal, 0U);
  EXPECT_FALSE(hooks.wants_polls());
  std::atomic<int> still{0};
  const auto connection = hooks.install(counting_polls(still));
  hooks.before_poll(a_poll);
  EXPECT_EQ(still, 1);
}

TEST(registry, self_removal_storm_leaks_no_node_and_no_capture) {
  registry hooks;
  std::atomic<bool> stop{false};
  std::latch start{3};
  std::vector<std::thread> fire;
  for (int i = 0; i < 2; ++i) {
    fire.emplace_back([&] {
      start.arrive_and_wait();
      while (!stop.load(std::memory_order_relaxed)) {
        hooks.before_poll(a_poll);
      }
    });
  }
  start.arrive_and_wait();
  auto token = std::make_shared<int>(1);
  for (int round = 0; round < 150; ++round) {
    struct once {
      registry::connection self;
      std::latch installed{1};
      std::atomic<bool> taken{false};
      std::atomic<bool> removed{false};
    };
    auto state = std::make_shared<once>();
    state->self = hooks.install({.before_poll = [state, token](const poll_event&) {
      state->installed.wait();
      if (!state->taken.exchange(true)) {
        state->self.disconnect();
        state->removed = true;
        state->removed.notify_all();
      }
    }});
    state->installed.count_down();
    state->removed.wait(false);
  }
  stop = true;
  for (auto& thread : fire) {
    thread.join();
  }
  EXPECT_EQ(token.use_count(), 1);
}

}  // namespace
