// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/lints.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asio_pulse::context_metrics;
using asio_pulse::histogram;
using asio_pulse::lint;
using asio_pulse::lint_kind;
using asio_pulse::process_metrics;
using asio_pulse::stack_frame;
using asio_pulse::stack_trace;
using asio_pulse::stall_cause;
using asio_pulse::stall_metrics;
using std::chrono::nanoseconds;

context_metrics healthy() {
  context_metrics c;
  c.number = 1;
  c.collecting = true;
  c.totals.clock = asio_pulse::timing::clock_kind::rseq_tsc;
  c.totals.stalls = 1;  // a watchdog is there
  c.recent_interval = 1s;
  return c;
}

process_metrics process_of(context_metrics c, nanoseconds uptime = 100s) {
  process_metrics p;
  p.pid = 7;
  p.uptime = uptime;
  p.contexts.push_back(std::move(c));
  return p;
}

std::vector<lint> lints_of(const context_metrics& now) { return lints(process_of(now)); }

std::vector<lint> lints_of(const context_metrics& before, const context_metrics& now,
                           nanoseconds interval = 1s) {
  const process_metrics earlier = process_of(before);
  return lints(process_of(now, 100s + interval), &earlier);
}

std::vector<lint_kind> kinds(const std::vector<lint>& all) {
  std::vector<lint_kind> result;
  for (const lint& l : all) result.push_back(l.kind);
  return result;
}

using found = std::vector<lint_kind>;

histogram all_of(nanoseconds each, std::uint64_t count) {
  histogram h;
  h.buckets.push_back({each, count});
  h.count = count;
  h.sum = each * static_cast<std::int64_t>(count);
  return h;
}

stack_frame at(std::string function, std::string file, std::uint32_t line) {
  return {.function = std::move(function), .file = std::move(file), .line = line};
}
stack_frame in(std::string function, std::string module) {
  return {.function = std::move(function), .module = std::move(module)};
}

stall_metrics blocked_in(std::string call, stack_trace stack, std::size_t blamed) {
  stall_metrics s;
  s.site = "reader";
  s.thread = 3;
  s.lasted = 40ms;
  s.ended = true;
  s.cause = stall_cause::blocked;
  s.system_call = std::move(call);
  s.stack = std::move(stack);
  s.blamed = blamed;
  return s;
}

TEST(lints, nothing_is_said_of_a_healthy_context) {
  context_metrics c = healthy();
  c.sites.push_back({.type = "quick", .polls = 100'000, .cpu = 100ms, .longest = 4'999us});
  c.workers.push_back({.thread = 3, .polls = 100'000, .longest_batch = 4'999us});
  c.queue_delay = all_of(200us, 1000);
  EXPECT_EQ(kinds(lints_of(c)), found{});
  EXPECT_EQ(kinds(lints_of(c, c)), found{});
}

TEST(lints, an_empty_process_has_none) { EXPECT_TRUE(lints(process_metrics{}).empty()); }

TEST(lints, long_poll_from_five_milliseconds) {
  context_metrics c = healthy();
  c.sites.push_back({.type = "parse",
                     .place = {.file = "parse.cpp", .line = 12},
                     .polls = 4,
                     .cpu = 20ms,
                     .longest = 5ms});
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), found{lint_kind::long_poll});
  EXPECT_EQ(all[0].text,
            "\"parse\" (parse.cpp:12) ran for up to 5.00ms without a break (4 polls, 5.00ms on "
            "average): nothing else ran on its worker meanwhile.");
  EXPECT_EQ(all[0].subject, "parse");
  EXPECT_EQ(all[0].context, 1U);
  EXPECT_NE(all[0].advice.find("ASIO_PULSE_CHECKPOINT"), std::string::npos);
}

TEST(lints, long_poll_names_the_function_that_a_stack_showed) {
  context_metrics c = healthy();
  c.sites.push_back({.type = "parse", .polls = 1, .cpu = 9ms, .longest = 9ms});
  stall_metrics s = blocked_in("", {at("crc(char const*)", "src/crc.cpp", 8)}, 0);
  s.cause = stall_cause::spinning;
  s.site = "parse";
  c.stalls.push_back(s);
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), found{lint_kind::long_poll});
  EXPECT_NE(all[0].text.find("In crc(char const*) at src/crc.cpp:8: \"parse\" ran for"),
            std::string::npos);
}

// The process that is inspected may name its functions as it likes, so a sentence escapes them once.
TEST(lints, a_frame_is_escaped_and_cut_in_a_sentence) {
  const auto sentence = [](const stack_frame& frame) {
    context_metrics c = healthy();
    c.stalls.push_back(blocked_in("futex", {frame}, 0));
    const std::string text = lints_of(c).at(0).text;
    return text.substr(0, text.find(": \"reader\""));
  };
  EXPECT_EQ(sentence(at("f\x1b[2J\"\n", "a\\b.cpp", 4)), R"(In f\x1b[2J\"\n at a\\b.cpp:4)");
  EXPECT_EQ(sentence(at("parse<" + std::string(80, 'T') + ">()", "a.cpp", 4)),
            "In parse... at a.cpp:4");
  EXPECT_EQ(sentence(at("f()", std::string(100, 'd'), 4)), "In f()");
  EXPECT_EQ(sentence(in("read", "libc.so.6")), "In read");
  EXPECT_EQ(sentence({.module = "server", .offset = 0x1f}), "In server+0x1f");
  EXPECT_EQ(sentence({.address = 0x1f}), "In 0x1f");
}

TEST(lints, a_wait_is_no_long_poll_where_the_clock_cannot_tell) {
  context_metrics c = healthy();
  c.sites.push_back({.type = "reader", .polls = 1, .cpu = 40ms, .longest = 40ms});
  c.stalls.push_back(blocked_in("read fd 5", {in("read", "libc.so.6")}, 7));
  EXPECT_EQ(kinds(lints_of(c)), (found{lint_kind::long_poll, lint_kind::blocked_call}));
  c.totals.clock = asio_pulse::timing::clock_kind::steady;
  EXPECT_EQ(kinds(lints_of(c)), found{lint_kind::blocked_call});
}

TEST(lints, a_stuck_worker_comes_first_and_is_told_once) {
  context_metrics c = healthy();
  c.sites.push_back({.type = "worse by its figures", .polls = 1, .cpu = 9s, .longest = 9s});
  c.sites.push_back({.type = "spin", .polls = 1, .cpu = 50ms, .longest = 50ms});
  c.workers.push_back({.thread = 3, .running = "spin", .running_for = 100ms});
  c.workers.push_back({.thread = 4, .running = "short", .running_for = 99ms});
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), (found{lint_kind::long_poll, lint_kind::long_poll}));
  EXPECT_EQ(all[0].subject, "spin");
  EXPECT_NE(all[0].text.find("has not ended"), std::string::npos);
  EXPECT_EQ(all[1].subject, "worse by its figures");
}

TEST(lints, a_worker_that_was_stuck_before_collecting_is_told_by_its_stall) {
  context_metrics c = healthy();
  stall_metrics s;
  s.site = "spin";
  s.thread = 3;
  s.lasted = 5s;
  s.cause = stall_cause::spinning;
  c.stalls.push_back(s);
  ASSERT_EQ(kinds(lints_of(c)), found{lint_kind::long_poll});
  c.stalls[0].cause = stall_cause::stopped;  // stopped by a debugger
  EXPECT_EQ(kinds(lints_of(c)), found{});
}

TEST(lints, greedy_strand_only_where_no_handler_explains_it) {
  context_metrics c = healthy();
  c.workers.push_back({.thread = 3, .longest_batch = 8ms, .batch_site = "step"});
  c.sites.push_back({.type = "step", .polls = 1000, .cpu = 10ms, .longest = 100us});
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), found{lint_kind::greedy_strand});
  EXPECT_NE(all[0].text.find("8.00ms"), std::string::npos);
  c.sites[0].longest = 4'500us;  // nearly all of it
  EXPECT_EQ(kinds(lints_of(c)), found{});
}

struct wait_case {
  std::string call;
  stack_trace stack;
  std::size_t blamed;
  lint_kind kind;
  std::string_view says;
};

TEST(lints, what_a_handler_waited_for) {
  const wait_case cases[] = {
      {"futex",
       {in("__lll_lock_wait", "libc.so.6"), at("prices()", "p.cpp", 4)},
       1,
       lint_kind::blocked_lock,
       "for a lock"},
      {"futex",
       {in("pthread_cond_wait", "libc.so.6"),
        in("std::condition_variable::wait()", "libstdc++.so.6"), at("prices()", "p.cpp", 4)},
       2,
       lint_kind::blocked_lock,
       "another thread's result"},
      {"poll",
       {in("poll", "libc.so.6"), in("__res_context_send", "libc.so.6"),
        in("getaddrinfo", "libc.so.6"), at("look_up()", "l.cpp", 9)},
       3,
       lint_kind::blocked_dns,
       "a name to be resolved"},
      {"clock_nanosleep",
       {in("clock_nanosleep", "libc.so.6"), at("nap()", "n.cpp", 1)},
       1,
       lint_kind::blocked_call,
       "in a sleep"},
      {"read fd 5",
       {in("read", "libc.so.6"), at("load()", "n.cpp", 1)},
       1,
       lint_kind::blocked_call,
       "a file, a pipe or a peer"},
      {"fsync fd 5",
       {in("fsync", "libc.so.6"), at("save()", "n.cpp", 1)},
       1,
       lint_kind::blocked_call,
       "for the disk"},
      {"system call 999",
       {at("new_call()", "n.cpp", 1)},
       0,
       lint_kind::blocked_call,
       "in a system call"},
      {"", {at("touch(page*)", "n.cpp", 1)}, 0, lint_kind::blocked_call, "in the kernel"},
      // Its caller's name says nothing, and neither does a part of a word.
      {"read fd 5",
       {in("read", "libc.so.6"), at("cached_getaddrinfo_file()", "n.cpp", 1),
        in("getaddrinfo", "libc.so.6")},
       1,
       lint_kind::blocked_call,
       "a file, a pipe or a peer"},
      {"", {}, asio_pulse::no_frame, lint_kind::blocked_call, "no stack was taken"}};
  for (const wait_case& each : cases) {
    context_metrics c = healthy();
    c.stalls.push_back(blocked_in(each.call, each.stack, each.blamed));
    const auto all = lints_of(c);
    ASSERT_EQ(kinds(all), found{each.kind}) << each.call << ": " << each.says;
    EXPECT_NE(all[0].text.find(each.says), std::string::npos) << all[0].text;
    EXPECT_FALSE(all[0].advice.empty());
  }
}

TEST(lints, stalls_of_a_handler_are_told_together_and_by_who_knows_most) {
  context_metrics c = healthy();
  c.stalls.push_back(blocked_in("", {}, asio_pulse::no_frame));  // the report was held back
  c.stalls.push_back(blocked_in("futex", {at("prices()", "p.cpp", 4)}, 0));
  c.stalls.push_back(blocked_in("futex", {at("prices()", "p.cpp", 4)}, 0));
  c.stalls[2].lasted = 90ms;
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), found{lint_kind::blocked_lock});
  EXPECT_EQ(
      all[0].text,
      "In prices() at p.cpp:4: \"reader\" waited for up to 90.0ms for a lock (futex); 2 of the "
      "last 3 stalls.");
}

TEST(lints, self_waking_needs_polls_a_share_and_cpu_time) {
  const context_metrics before = healthy();
  context_metrics c = healthy();
  c.sites.push_back({.type = "poller", .polls = 1000, .again = 500, .cpu = 100ms, .longest = 1us});
  EXPECT_EQ(kinds(lints_of(before, c)), found{lint_kind::self_waking});
  EXPECT_EQ(kinds(lints_of(c)), found{lint_kind::self_waking});  // of all CPU time there is
  auto other = c;
  other.sites[0].again = 499;
  EXPECT_EQ(kinds(lints_of(before, other)), found{});
  other = c;
  other.sites[0].polls = 999;
  EXPECT_EQ(kinds(lints_of(before, other)), found{});
  other = c;
  other.sites[0].cpu = 99ms;
  EXPECT_EQ(kinds(lints_of(before, other)), found{});
  EXPECT_EQ(kinds(lints_of(c, c)), found{});  // it has stopped
}

TEST(lints, queue_delay_rises_against_what_was_usual) {
  context_metrics before = healthy();
  before.queue_delay = all_of(200us, 10'000);
  context_metrics now = before;
  const auto add = [&](nanoseconds each, std::uint64_t count) {
    now.queue_delay = before.queue_delay;
    now.queue_delay.buckets.push_back({each, count});
    now.queue_delay.count += count;
    now.queue_delay.sum += each * static_cast<std::int64_t>(count);
  };
  add(1ms, 20);
  auto all = lints_of(before, now);
  ASSERT_EQ(kinds(all), found{lint_kind::rising_delay});
  EXPECT_NE(all[0].text.find("rises"), std::string::npos);
  EXPECT_NE(all[0].text.find("200us was usual"), std::string::npos);
  add(1ms, 19);  // too few to say
  EXPECT_EQ(kinds(lints_of(before, now)), found{});
  add(700us, 100);  // too short to be noticed
  EXPECT_EQ(kinds(lints_of(before, now)), found{});
}

TEST(lints, queue_delay_that_is_always_high) {
  context_metrics c = healthy();
  c.queue_delay = all_of(10ms, 100);
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), found{lint_kind::rising_delay});
  EXPECT_NE(all[0].text.find("is high"), std::string::npos);
  c.queue_delay = all_of(9ms, 100);
  EXPECT_EQ(kinds(lints_of(c)), found{});
}

TEST(lints, hot_task_takes_half_of_all_and_half_a_cpu) {
  context_metrics c = healthy();
  c.task_count = 2;
  c.tasks.push_back({.id = 5, .name = "report", .recent = 500ms});
  c.tasks.push_back({.id = 6, .name = "other", .recent = 499ms});
  const auto all = lints_of(c);
  ASSERT_EQ(kinds(all), found{lint_kind::hot_task});
  EXPECT_EQ(all[0].subject, "report");
  c.tasks[0].recent = 499ms;
  EXPECT_EQ(kinds(lints_of(c)), found{});
  c.tasks[0] = {.id = 0, .name = "unnamed", .recent = 900ms};
  EXPECT_EQ(kinds(lints_of(c)), found{});
}

// Two groups of a tenant, with weights of 10 and 90 %.
context_metrics two_groups() {
  context_metrics c = healthy();
  c.groups = {{.path = "tenant/a", .name = "a", .recent = 910ms, .asked = 100ms},
              {.path = "tenant/b", .name = "b", .recent = 90ms, .asked = 900ms, .wants_more = true},
              {.path = "tenant", .name = "tenant", .recent = 1s, .asked = 1s}};
  c.group_count = c.groups.size();
  c.group_recent = 1s;
  c.queue_delay = all_of(2ms, 100);
  return c;
}

TEST(lints, over_share_while_another_group_wants_more) {
  const auto all = lints_of(two_groups());
  ASSERT_EQ(kinds(all), found{lint_kind::over_share});
  EXPECT_EQ(all[0].subject, "tenant/a");
  EXPECT_EQ(all[0].text,
            "Group \"tenant/a\" takes 91 % of the CPU time of all groups with a weight of 10 %, "
            "while group \"tenant/b\" wants more and has 9 % of its 90 %.");
}

TEST(lints, a_group_may_use_what_nobody_else_wants) {
  context_metrics c = two_groups();
  c.groups[1].wants_more = false;
  EXPECT_EQ(kinds(lints_of(c)), found{});
  c = two_groups();
  c.groups[1].recent = 680ms;  // three quarters of its share
  EXPECT_EQ(kinds(lints_of(c)), found{});
  c = two_groups();
  c.groups[0].recent = 190ms;  // less than a tenth more
  EXPECT_EQ(kinds(lints_of(c)), found{});
  c = two_groups();
  c.recent_interval = 3s;  // a third of a CPU
  EXPECT_EQ(kinds(lints_of(c)), found{});
  c = two_groups();
  c.queue_delay = all_of(900us, 100);  // nobody waits
  EXPECT_EQ(kinds(lints_of(c)), found{});
  c = two_groups();
  EXPECT_EQ(kinds(lints_of(c, c)), found{}) << "nor lately, as far as is known";
  c.groups[1].path = "tenant\\/b";  // not beside the other: at the top, with a slash in its name
  EXPECT_EQ(kinds(lints_of(c)), found{});
}

TEST(lints, overloaded_and_not_by_one_group) {
  context_metrics before = healthy();
  before.totals.requests_refused_overload = 1000;
  context_metrics now = before;
  EXPECT_EQ(kinds(lints_of(before, now)), found{});
  now.totals.requests_refused_overload += 20;
  now.totals.requests_refused_share += 19;
  const auto all = lints_of(before, now);
  ASSERT_EQ(kinds(all), found{lint_kind::overloaded});
  EXPECT_TRUE(all[0].text.starts_with(
      "20 requests were refused because of overload, and not because of one group's use (19 were"))
      << all[0].text;
  ++now.totals.requests_refused_share;  // as many because of one group's use
  EXPECT_EQ(kinds(lints_of(before, now)), found{});
}

TEST(lints, held_back_in_both_readings) {
  context_metrics c = healthy();
  c.totals.parked = 100;
  EXPECT_EQ(kinds(lints_of(c)), found{lint_kind::held_back});
  EXPECT_EQ(kinds(lints_of(c, c)), found{lint_kind::held_back});
  EXPECT_EQ(kinds(lints_of(healthy(), c)), found{});
}

TEST(lints, blind_spots) {
  context_metrics c = healthy();
  c.totals.stalls = 0;
  c.sites.push_back({.type = "parse", .polls = 1, .cpu = 100ms, .longest = 100ms});
  EXPECT_EQ(kinds(lints_of(c)), (found{lint_kind::long_poll, lint_kind::no_watchdog}));

  c = healthy();
  c.collecting = false;
  EXPECT_EQ(kinds(lints_of(c)), found{});  // it may just have begun
  EXPECT_EQ(kinds(lints_of(c, c)), found{lint_kind::not_collected});

  c = healthy();
  c.uncollected_workers = 2;
  EXPECT_EQ(kinds(lints_of(c)), found{lint_kind::not_collected});

  c = healthy();
  c.enabled = false;
  EXPECT_EQ(kinds(lints_of(c)), found{lint_kind::not_collected});
}

TEST(lints, another_process_is_no_earlier_reading) {
  context_metrics c = healthy();
  c.collecting = false;
  const process_metrics now = process_of(c);
  process_metrics other = now;
  other.pid = 8;
  other.uptime = 1s;
  EXPECT_TRUE(lints(now, &other).empty());
  EXPECT_TRUE(lints(now, &now).empty());  // no time has passed
}

TEST(lints, hostile_names_are_escaped_and_cut) {
  context_metrics c = healthy();
  const std::string name = "\x1b]0;x\a\n\xff\u202e" + std::string(10'000, 'a');
  c.sites.push_back({.type = name, .place = {.file = name, .line = 1}, .polls = 1, .longest = 9ms});
  stall_metrics s = blocked_in(name, {at(name, name, 1)}, 0);
  s.site = name;
  c.stalls.push_back(s);
  const auto all = lints_of(c);
  ASSERT_EQ(all.size(), 2U);
  for (const lint& l : all) {
    EXPECT_EQ(l.subject, name);  // the program that prints it escapes it
    EXPECT_LT(l.text.size(), 1000U);
  }
  const std::string& text = all[all[0].kind == lint_kind::long_poll ? 0 : 1].text;
  EXPECT_NE(text.find(R"(\x1b]0;x\x07\n\xff\u{202e})"), std::string::npos) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

process_metrics shards_of(const std::vector<std::uint64_t>& cpu_permille) {
  process_metrics p = process_of(healthy());
  p.contexts.clear();
  for (std::size_t i = 0; i != cpu_permille.size(); ++i) {
    context_metrics c = healthy();
    c.number = i + 1;
    c.shard.set = 1;
    c.shard.index = i;
    c.shard.shards = cpu_permille.size();
    c.shard.cpu_permille = cpu_permille[i];
    p.contexts.push_back(std::move(c));
  }
  return p;
}

TEST(lints, a_shard_that_is_much_above_the_mean_is_hot_and_its_largest_task_is_named) {
  process_metrics p = shards_of({200, 300, 950, 250});
  asio_pulse::task_metrics t;
  t.name = "key X";
  t.recent = 600ms;
  p.contexts[2].tasks.push_back(t);
  p.contexts[2].group_recent = 1s;
  p.contexts[2].recent_interval = 1s;
  p.contexts[2].shard.keeps = asio_pulse::stay_reason::too_large;
  auto all = lints(p);
  std::erase_if(all, [](const lint& l) { return l.kind != lint_kind::hot_shard; });
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].context, 3U);
  EXPECT_EQ(all[0].subject, "key X");
  EXPECT_EQ(all[0].text,
            "Shard 2 of 4 is hot: it uses 95 % of a CPU, and the mean is 42 %. \"key X\" uses 60 % "
            "of a CPU of that.");
  EXPECT_NE(all[0].advice.find("make another shard hot"), std::string::npos) << all[0].advice;
  // Shards that have nothing to do, or much the same, are not.
  EXPECT_TRUE(lints(shards_of({10, 400, 20})).empty());
  EXPECT_TRUE(lints(shards_of({800, 900, 950})).empty());
  EXPECT_TRUE(lints(shards_of({950})).empty());
}

TEST(lints, impossible_loads_of_shards_do_not_overflow) {
  // The sum of two of these is 0 in 64 bits.
  constexpr std::uint64_t half = std::uint64_t{1} << 63;
  EXPECT_TRUE(lints(shards_of({half, half})).empty());
  const auto all = lints(shards_of({~std::uint64_t{0}, 0, 0, 0}));
  ASSERT_EQ(kinds(all), (std::vector<lint_kind>{lint_kind::hot_shard}));
  EXPECT_EQ(all[0].context, 1U);
}

TEST(lints, a_shard_that_is_pinned_to_a_cpu_that_something_else_uses_is_named) {
  process_metrics p = shards_of({300, 300, 300});
  for (auto& c : p.contexts) c.shard.pinned = true;
  p.contexts[1].shard.cpu = 1;
  p.contexts[2].shard.cpu = 1;
  auto all = lints(p);
  ASSERT_EQ(kinds(all), (std::vector<lint_kind>{lint_kind::shared_cpu}));
  EXPECT_EQ(all[0].context, 3U);
  EXPECT_EQ(all[0].text,
            "Shard 2 of 3 is pinned to CPU 1, as shard 1 is: each of them gets half of it.");
  p.contexts[2].shard.cpu = 2;
  EXPECT_TRUE(lints(p).empty());
  // It waits, although it does not use its CPU.
  p.contexts[2].shard.delay = 20ms;
  all = lints(p);
  ASSERT_EQ(kinds(all), (std::vector<lint_kind>{lint_kind::shared_cpu}));
  EXPECT_NE(all[0].text.find("other programs use that CPU"), std::string::npos) << all[0].text;
  // A handler that does not end explains that.
  asio_pulse::worker_metrics w;
  w.running = "handler";
  w.running_for = 21ms;
  p.contexts[2].workers.push_back(w);
  EXPECT_TRUE(lints(p).empty());
}

TEST(lints, a_handler_whose_automatic_checkpoints_are_refused_is_named_with_the_lock) {
  context_metrics c = healthy();
  c.sites.push_back({.type = "importer",
                     .polls = 10,
                     .cpu = 5ms,
                     .longest = 3ms,
                     .suspended = 20,
                     .refused = 100,
                     .refused_lock = 60,
                     .lock = "table_mutex, in import()"});
  const auto all = lints_of(c);
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].kind, lint_kind::refused_checkpoint);
  EXPECT_EQ(all[0].text,
            "\"importer\" was not suspended at 100 of 120 automatic checkpoints where its time was "
            "up: it held a lock: \"table_mutex, in import()\".");
  c.sites.back().refused_lock = 10;
  EXPECT_NE(lints_of(c).at(0).text.find("automatic_refused_"), std::string::npos);
  c.sites.back().refused = 99;
  EXPECT_TRUE(lints_of(c).empty());
  c.sites.back().refused = 100;
  c.sites.back().suspended = 101;
  EXPECT_TRUE(lints_of(c).empty());
}

TEST(lints, every_kind_has_a_name_and_a_heading) {
  std::ifstream file(ASIO_PULSE_LINTS_MD);
  std::stringstream all;
  all << file.rdbuf();
  const std::string text = all.str();
  ASSERT_FALSE(text.empty());
  for (int i = 0; i <= static_cast<int>(lint_kind::refused_checkpoint); ++i) {
    const auto name = to_string(static_cast<lint_kind>(i));
    EXPECT_NE(name, "unknown");
    EXPECT_NE(text.find("\n## " + std::string{name} + "\n"), std::string::npos) << name;
  }
  EXPECT_EQ(to_string(static_cast<lint_kind>(99)), "unknown");
  context_metrics c = healthy();
  c.uncollected_workers = 1;
  EXPECT_EQ(lints_of(c).at(0).anchor, "not_collected");
}

}  // namespace
