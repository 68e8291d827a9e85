// SPDX-License-Identifier: BSL-1.0

// The metrics of groups: what each has used, what its weight asks for, and how they are read while
// groups come and go.

#include <support/inspecting.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/inspect.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/task_group.hpp>

#include <boost/asio/executor_work_guard.hpp>

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::context_metrics;
using asio_pulse::group_metrics;
using asio_pulse::group_options;
using asio_pulse::inspector;
using asio_pulse::task;
using asio_pulse::task_group;
using asio_pulse::task_options;

const auto self = static_cast<std::uint64_t>(::getpid());

std::map<std::string, group_metrics> by_path(const context_metrics& m) {
  std::map<std::string, group_metrics> all;
  for (const group_metrics& g : m.groups) EXPECT_TRUE(all.emplace(g.path, g).second) << g.path;
  return all;
}

/// Longer than the interval of recent CPU time.
void let_the_interval_pass() { std::this_thread::sleep_for(520ms); }

void expect_same(const group_metrics& m, const asio_pulse::group_statistics& s) {
  EXPECT_EQ(m.tasks, s.tasks);
  EXPECT_EQ(m.cpu, s.cpu);
  EXPECT_EQ(m.admitted, s.admitted);
  EXPECT_EQ(m.refused_share, s.refused_share);
  EXPECT_EQ(m.refused_overload, s.refused_overload);
}

TEST(group_metrics, are_what_the_groups_say_themselves) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io, {.name = "tenant", .weight = 300});
  const task_group user(io, {.name = "user", .parent = tenant});
  const task_group other(io, {.name = "other"});
  const task of_user(io, in_group(user));
  const task of_tenant(io, in_group(tenant));
  const task of_other(io, in_group(other));
  for (const task* t : {&of_user, &of_tenant, &of_other}) {
    asio_pulse::post(*t, [&, t] {
      burn(t == &of_other ? 300us : 3ms);
      (void)asio_pulse::admit(user);
    });
  }
  io.run();
  const context_metrics m = io.metrics();
  EXPECT_EQ(m.group_count, 3U);
  const auto all = by_path(m);
  ASSERT_EQ(all.size(), 3U);
  for (const auto& [path, group] :
       {std::pair{"tenant", tenant}, {"tenant/user", user}, {"other", other}}) {
    SCOPED_TRACE(path);
    ASSERT_TRUE(all.contains(path));
    const group_metrics& g = all.at(path);
    expect_same(g, group.stats());
    EXPECT_EQ(g.name, group.name());
    EXPECT_EQ(g.weight, group.weight());
    EXPECT_GT(g.cpu, 300us);
  }
  EXPECT_EQ(all.at("tenant/user").admitted, 3U);
  EXPECT_EQ(m.groups.front().path, "tenant")
      << "it has used most, because the user is a part of it";
}

TEST(group_metrics, what_is_asked_follows_from_the_weights_of_those_that_use_the_cpu) {
  asio_pulse::io_context io{steady()};
  const task_group heavy(io, {.name = "heavy", .weight = 300});
  const task_group light(io, {.name = "light", .weight = 100});
  const task_group idle(io, {.name = "idle", .weight = 10000});
  const task_group a(io, {.name = "a", .weight = 10, .parent = heavy});
  const task_group b(io, {.name = "b", .weight = 30, .parent = heavy});
  const task of_a(io, in_group(a));
  const task of_b(io, in_group(b));
  const task of_light(io, in_group(light));
  context_metrics m = io.metrics();
  EXPECT_EQ(m.group_recent, 0ns);
  for (const group_metrics& g : m.groups) EXPECT_EQ(g.asked, 0ns) << "nobody has used anything";
  for (const task* t : {&of_a, &of_b, &of_light}) asio_pulse::post(*t, [] { burn(2ms); });
  io.run();
  let_the_interval_pass();
  m = io.metrics();
  ASSERT_GE(m.group_recent, 6ms);
  const auto all = by_path(m);
  const auto share = [&](const char* path) {
    return static_cast<double>(all.at(path).asked.count()) /
           static_cast<double>(m.group_recent.count());
  };
  constexpr double rounding = 1e-6;
  EXPECT_NEAR(share("heavy"), 0.75, rounding);
  EXPECT_NEAR(share("light"), 0.25, rounding);
  EXPECT_NEAR(share("heavy/a"), 0.75 / 4, rounding);
  EXPECT_NEAR(share("heavy/b"), 0.75 * 3 / 4, rounding);
  EXPECT_EQ(all.at("idle").asked, 0ns);
  EXPECT_EQ(m.group_recent, all.at("heavy").recent + all.at("light").recent);
  for (const char* const path : {"heavy/a", "heavy/b", "light"}) {
    EXPECT_GE(all.at(path).recent, 2ms) << path;
    // In units of 256 ticks.
    EXPECT_NEAR(static_cast<double>(all.at(path).recent.count()),
                static_cast<double>(all.at(path).cpu.count()), 1000)
        << path;
  }
  let_the_interval_pass();
  EXPECT_EQ(io.metrics().group_recent, 0ns) << "nothing was used since";
}

TEST(group_metrics, most_recent_groups_are_listed_and_the_rest_is_counted) {
  asio_pulse::io_context io{steady()};
  const task_group tenant(io, {.name = "tenant"});
  std::vector<task_group> groups;
  std::vector<task> tasks;
  for (int i = 0; i != 300; ++i) {  // more than one piece of the list
    groups.emplace_back(io, group_options{.name = std::to_string(i), .parent = tenant});
    tasks.emplace_back(io, in_group(groups.back()));
    (void)asio_pulse::admit(groups.back());
  }
  const task_group top(io, {.name = "top"});
  const task of_top(io, in_group(top));
  for (const std::size_t i : {7U, 107U, 207U}) {
    asio_pulse::post(tasks[i], [] { burn(20ms); });
  }
  asio_pulse::post(of_top, [] { burn(500us); });
  io.run();
  context_metrics m = io.metrics({.top_groups = 4});
  EXPECT_EQ(m.group_count, 302U);
  ASSERT_EQ(m.groups.size(), 4U);
  EXPECT_EQ(m.groups[0].path, "tenant");
  std::vector<std::string> rest;
  for (std::size_t i = 1; i != 4; ++i) rest.push_back(m.groups[i].path);
  EXPECT_THAT(rest, testing::UnorderedElementsAre("tenant/7", "tenant/107", "tenant/207"));
  EXPECT_EQ(m.other_groups.admitted, 297U);
  EXPECT_EQ(m.other_groups.tasks, 298U);
  EXPECT_EQ(m.other_groups.cpu, top.stats().cpu) << "what is below the tenant is a part of it";
  m = io.metrics({.top_groups = 0});
  EXPECT_TRUE(m.groups.empty());
  EXPECT_EQ(m.other_groups.admitted, 300U);
  EXPECT_EQ(m.other_groups.cpu, top.stats().cpu + tenant.stats().cpu);
  groups.clear();
  tasks.clear();
  EXPECT_EQ(io.metrics().group_count, 2U);
}

TEST(group_metrics, a_path_tells_groups_apart_whatever_their_names) {
  asio_pulse::io_context io{steady()};
  const task_group a(io, {.name = "a"});
  const task_group b(io, {.name = "b", .parent = a});
  const task_group slash(io, {.name = "a/b"});
  const task_group backslash(io, {.name = "a\\"});
  const task_group below(io, {.name = "b", .parent = backslash});
  const task_group longest(io, {.name = std::string(1000, 'x')});
  const auto all = by_path(io.metrics());
  EXPECT_EQ(all.size(), 6U);
  EXPECT_TRUE(all.contains("a/b"));
  EXPECT_EQ(all.at("a\\/b").name, "a/b");
  EXPECT_TRUE(all.contains("a\\\\/b"));
  EXPECT_TRUE(all.contains(std::string(128, 'x')));
}

TEST(group_metrics, the_queue_delay_is_that_of_the_last_request) {
  if (always_preempt()) GTEST_SKIP() << "every operation goes behind the others once";
  asio_pulse::io_context io{steady()};
  const task_group first(io, {.name = "first"});
  const task_group later(io, {.name = "later"});
  asio::post(io, [&] { (void)asio_pulse::admit(first); });  // nothing has waited yet
  asio::post(io, [] { burn(3ms); });
  asio::post(io, [&] { (void)asio_pulse::admit(later); });  // what was put behind it still waits
  io.run();
  const auto all = by_path(io.metrics());
  EXPECT_EQ(all.at("first").queue_delay, 0ns);
  EXPECT_GE(all.at("later").queue_delay, 2900us);
}

TEST(group_metrics, are_read_while_groups_come_and_go) {
  asio_pulse::io_context io{steady()};
  pulse_test::let_run(io);
  auto work = asio::make_work_guard(io);
  const task_group tenant(io, {.name = "tenant"});
  std::atomic<bool> over{false};
  std::atomic<int> left{0};
  constexpr int enough_groups = 3000;
  constexpr int enough_readings = 20;
  constexpr int most_groups = 1'000'000;  // where a reader has given up
  std::atomic<int> readings{0};
  std::atomic<int> fetched{0};
  const auto expect_whole = [](const context_metrics& m) {
    ASSERT_LE(m.groups.size(), 20U);
    ASSERT_GE(m.group_count, m.groups.size());
    for (const group_metrics& g : m.groups) {
      ASSERT_TRUE(g.path == "tenant" || g.path == "tenant/brief") << g.path;
      ASSERT_TRUE(g.name == "tenant" || g.name == "brief") << g.name;
      ASSERT_LE(g.asked, m.group_recent);
    }
  };
  on_threads(5, [&](std::size_t thread) {
    if (thread <= 1) {
      io.run();
    } else if (thread == 2) {
      for (; !over; ++readings) expect_whole(io.metrics({.top_groups = 20}));
    } else if (thread == 3) {
      inspector in;
      std::error_code ec;
      in.connect(self, ec);
      ASSERT_FALSE(ec) << in.detail();
      for (; !over; ++fetched) {
        const auto p = in.fetch({.top_groups = 20}, ec, 20s);
        ASSERT_FALSE(ec) << in.detail();
        ASSERT_EQ(p.contexts.size(), 1U);
        expect_whole(p.contexts[0]);
      }
    } else {
      // Some live on for a while, so that the list is longer than a piece of it.
      std::vector<task_group> kept;
      const auto enough = [&](int made) {
        return made >= enough_groups && readings >= enough_readings && fetched >= enough_readings;
      };
      for (int i = 0; !enough(i) && i != most_groups; ++i) {
        const task_group brief(io, {.name = "brief", .parent = tenant});
        const task one(io, in_group(brief));
        ++left;
        asio_pulse::post(one, [&, brief] {
          (void)asio_pulse::admit(brief);
          brief.set_weight(7);
          --left;
        });
        kept.push_back(brief);
        if (kept.size() == 500) kept.clear();
      }
      kept.clear();
      while (left != 0) std::this_thread::sleep_for(1ms);
      over = true;
      work.reset();
    }
  });
  EXPECT_GE(readings, enough_readings);
  EXPECT_GE(fetched, enough_readings);
  const context_metrics m = io.metrics();
  EXPECT_EQ(m.group_count, 1U);
  ASSERT_EQ(m.groups.size(), 1U);
  expect_same(m.groups[0], tenant.stats());
}

TEST(group_metrics, a_trace_names_the_group_of_a_task_and_shows_refusals) {
  asio_pulse::options o = steady();
  o.trace = asio_pulse::instrument_mode::on;
  o.admission = {.target = 1ms, .interval = 1ms};
  asio_pulse::io_context io{o};
  const task_group tenant(io, {.name = "tenant"});
  const task_group user(io, {.name = "user", .parent = tenant});
  const task one(io, in_group(user));
  for (int i = 0; i != 200; ++i) {
    asio_pulse::post(one, [&] {
      burn(1ms);
      (void)asio_pulse::admit(user);
    });
  }
  io.run();
  const auto recorded = io.trace();
  std::vector<std::string> names;
  for (const auto& t : recorded.tasks) names.push_back(t.name);
  EXPECT_THAT(names, testing::Contains("member (in tenant/user)"));
  std::uint64_t refused = 0;
  for (const auto& w : recorded.workers) {
    for (const auto& e : w.events) {
      if (e.kind() != asio_pulse::event_kind::refused) continue;
      ++refused;
      EXPECT_EQ(e.task(), one.id());
      EXPECT_EQ(e.value(), static_cast<std::uint32_t>(asio_pulse::refusal::overload));
    }
  }
  EXPECT_GT(refused, 0U);
  EXPECT_EQ(refused, user.stats().refused_overload);
}

}  // namespace
