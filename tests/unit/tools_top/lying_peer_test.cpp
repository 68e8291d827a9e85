// SPDX-License-Identifier: BSL-1.0
//
// A hostile process that sends false figures. They are either refused or shown. Under
// AddressSanitizer and UndefinedBehaviorSanitizer in CI; the seeds are fixed.

#include "inspect_wire.hpp"
#include "made.hpp"
#include "metrics_members.hpp"
#include "output.hpp"
#include "screen/picture.hpp"
#include "screen/ui.hpp"
#include "text/wire.hpp"

#include <support/mutator.hpp>

#include <boost/json.hpp>

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace asio_pulse::top {
namespace {

using namespace std::chrono_literals;
using pulse_test::chance;
using pulse_test::mutator;

/// All that pulse_top does with two readings of a process.
void show(const process_metrics& now, const process_metrics* before, chance& by) {
  const picture p = make_picture(now, before, std::chrono::nanoseconds{by.one_in(2) ? 5s : 0s});
  history past;
  remember(past, p);
  const charset set = by.one_in(2) ? charset::utf8 : charset::ascii;
  for (const pane shown : {pane::overview, pane::tasks, pane::sites, pane::stalls, pane::lints,
                           pane::groups, pane::shards}) {
    ui_state ui;
    ui.shown = shown;
    ui.context = by.below(p.contexts.size() + 1);
    ui.details = by.one_in(2);
    ui.current().selected = by.below(5);
    ui.current().how.by = by.below(8);
    ui.current().how.reverse = by.one_in(2);
    if (by.one_in(4)) ui.filter = "a";
    const size room{by.below(60), by.below(200)};
    const auto lines = frame(p, past, ui, room, set);
    ASSERT_EQ(lines.size(), room.rows);
    for (const line& l : lines) ASSERT_LE(width_of(l), room.columns);
  }
  EXPECT_FALSE(plain_text(p, 40 + by.below(100), set).empty());
  boost::system::error_code wrong;
  (void)boost::json::parse(json_text(p), wrong);
  EXPECT_FALSE(wrong) << wrong.message();
}

/// As it arrives from a process that has sent this; nothing where it is refused.
std::optional<process_metrics> received(const std::string& bytes) {
  process_metrics m;
  if (!detail::decode(bytes, m)) return std::nullopt;
  return m;
}

/// Does not limit times to their range.
struct hostile_writer : detail::byte_writer {
  void duration(std::chrono::nanoseconds d) { number(static_cast<std::uint64_t>(d.count())); }
  void time(std::chrono::nanoseconds since_epoch) { duration(since_epoch); }
};

/// The bytes that a hostile process sends.
std::string sent(process_metrics m) {
  detail::basic_wire_out<hostile_writer> out;
  out(m);
  return out.take();
}

struct count {
  int shown = 0;
  int refused = 0;
};

count fuzz(std::uint64_t seed, int rounds) {
  chance by(seed);
  count result;
  for (int round = 0; round < rounds; ++round) {
    process_metrics early = by.one_in(4) ? made::hostile(0) : made::server(0);
    process_metrics late = by.one_in(4) ? made::hostile(1) : made::server(1);
    // From one change in all to one in five.
    mutator change(by, std::size_t{5} << by.below(6));
    change(late);
    if (by.one_in(3)) change(early);
    std::string bytes = sent(late);
    if (by.one_in(3)) pulse_test::mutate(bytes, by);
    const auto now = received(bytes);
    const auto before = received(sent(early));
    if (!now) {
      ++result.refused;
      continue;
    }
    ++result.shown;
    show(*now, before ? &*before : nullptr, by);
    if (testing::Test::HasFatalFailure()) break;
  }
  return result;
}

TEST(lying_peer, whatever_it_sends_is_refused_or_shown) {
  count all;
  for (const std::uint64_t seed : {1U, 2U, 3U, 4U}) {
    SCOPED_TRACE(seed);
    const count one = fuzz(seed, 150);
    all.shown += one.shown;
    all.refused += one.refused;
  }
  // Both must happen; otherwise the test covers only a half.
  EXPECT_GT(all.shown, 60);
  EXPECT_GT(all.refused, 60);
}

process_metrics with_site(std::chrono::nanoseconds cpu, std::uint64_t polls) {
  process_metrics m = made::server(0);
  site_metrics& site = m.contexts[0].sites[0];
  site.cpu = cpu;
  site.polls = polls;
  site.longest = 1h;
  return m;
}

// INT64_MIN / -1 is a SIGFPE.
TEST(lying_peer, the_mean_of_the_least_number_is_no_crash) {
  constexpr std::chrono::nanoseconds least{std::numeric_limits<std::int64_t>::min()};
  EXPECT_FALSE(received(sent(with_site(least, ~std::uint64_t{0}))));
  const auto most = received(sent(with_site(detail::longest_duration, ~std::uint64_t{0})));
  ASSERT_TRUE(most);
  chance by(1);
  show(*most, nullptr, by);
  EXPECT_EQ(make_picture(*most, nullptr).contexts[0].sites[0].mean, 0ns);
}

TEST(lying_peer, what_cannot_be_is_refused) {
  const auto refused = [](const std::function<void(process_metrics&)>& lie) {
    process_metrics m = made::server(0);
    EXPECT_TRUE(received(sent(m)));
    lie(m);
    return !received(sent(m));
  };
  using m = process_metrics;
  EXPECT_TRUE(refused([](m& p) { p.uptime = -1ns; }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].cpu = detail::longest_duration + 1ns; }));
  EXPECT_TRUE(refused(
      [](m& p) { p.at = std::chrono::system_clock::time_point{detail::farthest_time + 1ns}; }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].tasks[0].level = static_cast<tier>(4); }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].stalls[0].cause = static_cast<stall_cause>(5); }));
  EXPECT_TRUE(
      refused([](m& p) { p.contexts[0].totals.clock = static_cast<timing::clock_kind>(200); }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].stalls.resize(65); }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].stalls[0].stack.resize(257); }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].sites.resize(4097); }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].groups.resize(4097); }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].groups[0].asked = -1ns; }));
  EXPECT_TRUE(refused([](m& p) { p.contexts[0].group_recent = detail::longest_duration + 1ns; }));
}

TEST(lying_peer, sums_do_not_overflow) {
  process_metrics m = made::server(0);
  context_metrics& c = m.contexts[0];
  for (int n = 0; n < 50; ++n) {
    c.sites.push_back(c.sites[0]);
    c.sites.back().cpu = detail::longest_duration;
    c.tasks.push_back(c.tasks[0]);
    c.tasks.back().recent = detail::longest_duration;
    c.groups.push_back(c.groups[0]);
    c.groups.back().recent = detail::longest_duration;
  }
  c.other_sites.cpu = c.other_tasks.recent = detail::longest_duration;
  const auto now = received(sent(m));
  ASSERT_TRUE(now);
  chance by(1);
  show(*now, nullptr, by);
}

/// The CPU time of this process.
std::chrono::nanoseconds used() {
  timespec at{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
  return std::chrono::seconds{at.tv_sec} + std::chrono::nanoseconds{at.tv_nsec};
}

// Names that differ only at their ends, as many as an answer may have: compared one by one, each
// with each, they took more than six seconds of CPU time at each reading.
TEST(lying_peer, many_long_names_do_not_keep_the_screen_waiting) {
  process_metrics m = made::server(0);
  context_metrics& c = m.contexts[0];
  c.sites.clear();
  c.workers.clear();
  for (std::uint64_t n = 0; n != 4096; ++n) {
    site_metrics site;
    site.type = std::string(3500, 'x') + std::to_string(10'000 + n);
    site.polls = 2000;
    site.cpu = site.longest = 1s;
    c.workers.push_back({.thread = n + 1, .running = site.type, .running_for = 1s});
    c.sites.push_back(std::move(site));
  }
  ASSERT_LE(sent(m).size(), detail::longest_metrics);
  process_metrics later = m;
  later.uptime += 1s;
  const auto before = used();
  const picture p = make_picture(later, &m);
  EXPECT_LT(used() - before, 2s);
  EXPECT_EQ(p.contexts[0].sites[4095].load, 0.0) << "it was found again";
  EXPECT_EQ(std::count_if(p.lints.begin(), p.lints.end(),
                          [](const lint& l) { return l.kind == lint_kind::long_poll; }),
            4096);
}

}  // namespace
}  // namespace asio_pulse::top
