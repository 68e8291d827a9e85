// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/changes.hpp>
// Included first, to check that the header is self-contained.

#include "option_changes.hpp"

#include <asio_pulse/scheduling_policy.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asio_pulse::changes;
using asio_pulse::handler_order;
using asio_pulse::options;
using asio_pulse::report_kind;
using asio_pulse::detail::changed;
using asio_pulse::detail::difference;
using asio_pulse::detail::fixed_reason;
using asio_pulse::detail::names_of;
using testing::StartsWith;

static_assert(std::is_aggregate_v<changes>);
static_assert(std::is_aggregate_v<asio_pulse::budget_changes>);

struct change_case {
  const char* name;
  changes what;
  std::function<bool(const options&)> made;
};

const std::vector<change_case>& cases() {
  static const std::vector<change_case> all{
      {"stall_threshold",
       {.stall_threshold = 1ms},
       [](const options& o) { return o.stall_threshold == 1ms; }},
      {"yield_threshold",
       {.yield_threshold = 21ms},
       [](const options& o) { return o.yield_threshold == 21ms; }},
      {"isolate_threshold",
       {.isolate_threshold = 51ms},
       [](const options& o) { return o.isolate_threshold == 51ms; }},
      {"accepted.budget",
       {.accepted = {.budget = 1ms}},
       [](const options& o) { return o.accepted.budget == 1ms; }},
      {"accepted.per",
       {.accepted = {.per = 4ms}},
       [](const options& o) { return o.accepted.per == 4ms; }},
      {"accepted.burst",
       {.accepted = {.burst = 2ms}},
       [](const options& o) { return o.accepted.burst == 2ms; }},
      {"connected.budget",
       {.connected = {.budget = 1ms}},
       [](const options& o) { return o.connected.budget == 1ms; }},
      {"unnamed.per",
       {.unnamed = {.per = 4ms}},
       [](const options& o) { return o.unnamed.per == 4ms; }},
      {"accept_rule", {.accept_rule = false}, [](const options& o) { return !o.accept_rule; }},
      {"connect_rule", {.connect_rule = false}, [](const options& o) { return !o.connect_rule; }},
      {"shadow", {.shadow = true}, [](const options& o) { return o.shadow; }},
      {"order",
       {.order = handler_order::strict},
       [](const options& o) { return o.order == handler_order::strict; }},
      {"quantum", {.quantum = 1ms}, [](const options& o) { return o.quantum == 1ms; }},
      {"min_slice", {.min_slice = 60us}, [](const options& o) { return o.min_slice == 60us; }},
      {"report_interval",
       {.report_interval = 0ms},
       [](const options& o) { return o.report_interval == 0ms; }},
      {"reports_per_second",
       {.reports_per_second = 0},
       [](const options& o) { return o.reports_per_second == 0; }},
      {"silenced",
       {.silenced = {{report_kind::stall}}},
       [](const options& o) { return o.silenced.contains(report_kind::stall); }},
      {"tiers",
       {.tiers = {{.yield_after = 7}}},
       [](const options& o) { return o.tiers.yield_after == 7; }},
      {"max_critical",
       {.max_critical = 2ms},
       [](const options& o) { return o.max_critical == 2ms; }},
      {"watchdog", {.watchdog = false}, [](const options& o) { return !o.watchdog; }},
      {"admission",
       {.admission = asio_pulse::admission_policy{.target = 7ms}},
       [](const options& o) { return o.admission.target == 7ms; }},
      {"policy",
       {.policy = asio_pulse::scheduling::fair},
       [](const options& o) { return o.policy == asio_pulse::scheduling::fair; }},
      {"saturation", {.saturation = 1ms}, [](const options& o) { return o.saturation == 1ms; }},
  };
  return all;
}

TEST(option_changes, each_changes_its_option_and_no_other) {
  const options before;
  for (const change_case& c : cases()) {
    const options after = changed(before, c.what);
    EXPECT_TRUE(c.made(after)) << c.name;
    EXPECT_EQ(difference(before, after), c.what) << c.name;
    EXPECT_EQ(names_of(c.what), c.name);
    EXPECT_EQ(fixed_reason(before, after), "") << c.name;
    EXPECT_EQ(asio_pulse::invalid_reason(after), "") << c.name;
  }
}

TEST(option_changes, what_is_empty_stays) {
  options o;
  o.quantum = 3ms;
  o.accepted.per = 7ms;
  EXPECT_EQ(difference(o, changed(o, {})), changes{});
  EXPECT_EQ(changed(o, {.accepted = {.budget = 1ms}}).accepted.per, 7ms);
}

TEST(option_changes, all_of_them_are_named_in_their_order) {
  EXPECT_EQ(names_of({}), "");
  EXPECT_EQ(names_of({.accepted = {.budget = 1ms, .burst = 1ms}, .shadow = true, .quantum = 1ms}),
            "shadow, quantum, accepted.budget, accepted.burst");
}

TEST(option_changes, what_cannot_change_is_named) {
  const std::vector<std::pair<const char*, std::function<void(options&)>>> fixed{
      {"accepted.name", [](options& o) { o.accepted.name = "x"; }},
      {"accepted.isolatable", [](options& o) { o.accepted.isolatable = true; }},
      {"connected.name", [](options& o) { o.connected.name = "x"; }},
      {"connected.isolatable", [](options& o) { o.connected.isolatable = true; }},
      {"unnamed.name", [](options& o) { o.unnamed.name = "x"; }},
      {"unnamed.isolatable", [](options& o) { o.unnamed.isolatable = true; }},
      {"enabled", [](options& o) { o.enabled = false; }},
      {"isolation_threads", [](options& o) { o.isolation_threads = 2; }},
      {"isolation_priority",
       [](options& o) { o.isolation_priority = asio_pulse::isolation_priority::idle; }},
      {"isolation_nice", [](options& o) { o.isolation_nice = 11; }},
      {"on_report", [](options& o) { o.on_report = [](const asio_pulse::report&) {}; }},
      {"clock", [](options& o) { o.clock = asio_pulse::timing::clock_kind::steady; }},
      {"stall_signal", [](options& o) { o.stall_signal = -1; }},
      {"stack_bytes", [](options& o) { o.stack_bytes = 8192; }},
      {"spare_workers", [](options& o) { o.spare_workers = 1; }},
      {"spare_cooldown", [](options& o) { o.spare_cooldown = 2s; }},
      {"fiber_stack", [](options& o) { o.fiber_stack = 131072; }},
      {"preemptible", [](options& o) { o.preemptible = asio_pulse::preemptible_handlers::all; }},
      {"hints", [](options& o) { o.hints = asio_pulse::hint_source::off; }},
      {"hint_socket", [](options& o) { o.hint_socket = "/tmp/x"; }},
      {"escalation", [](options& o) { o.escalation = asio_pulse::escalation_policy::hybrid; }},
      {"escapable", [](options& o) { o.escapable = false; }},
      {"hint_priority", [](options& o) { o.hint_priority = 1; }},
      {"name", [](options& o) { o.name = "x"; }},
      {"metrics", [](options& o) { o.metrics = asio_pulse::instrument_mode::on; }},
      {"trace", [](options& o) { o.trace = asio_pulse::instrument_mode::on; }},
      {"instrument_bytes", [](options& o) { o.instrument_bytes = 65536; }},
      {"trace_events", [](options& o) { o.trace_events = 256; }},
      {"trace_folder", [](options& o) { o.trace_folder = "/tmp"; }},
      {"trace_signal", [](options& o) { o.trace_signal = 10; }},
      {"classify",
       [](options& o) {
         o.classify = [](const asio_pulse::accepted_connection&) -> asio_pulse::group_ref {
           return {};
         };
       }},
      {"inspectable", [](options& o) { o.inspectable = false; }},
      {"accepted.priority", [](options& o) { o.accepted.priority = 4; }},
      {"connected.deadline", [](options& o) { o.connected.deadline = 1ms; }},
      {"custom_policy",
       [](options& o) {
         o.custom_policy = [] { return std::unique_ptr<asio_pulse::scheduling_policy>(); };
       }},
      {"controllable", [](options& o) { o.controllable = false; }},
  };
  const options before;
  for (const auto& [name, spoil] : fixed) {
    options after;
    spoil(after);
    EXPECT_THAT(fixed_reason(before, after),
                StartsWith(std::string("asio_pulse::options.") + name +
                           " cannot change while the context exists: "));
    EXPECT_EQ(difference(before, after), changes{}) << name;
  }
}

// So a program can go from one to another while it runs.
TEST(option_changes, profiles_differ_in_what_can_change) {
  constexpr auto differs =
      "stall_threshold, yield_threshold, isolate_threshold, quantum, min_slice, max_critical, "
      "admission, accepted.budget, accepted.per, connected.budget, connected.per";
  EXPECT_EQ(difference({}, options::balanced()), changes{});
  changes to_latency = difference({}, options::latency());
  EXPECT_EQ(std::exchange(to_latency.tiers, {})->yield_after, 1U);
  EXPECT_EQ(names_of(to_latency), differs);
  EXPECT_EQ(names_of(difference({}, options::throughput())), differs);
  for (const options& o : {options::latency(), options::balanced(), options::throughput()}) {
    EXPECT_EQ(fixed_reason({}, o), "");
    EXPECT_EQ(asio_pulse::invalid_reason(o), "");
  }
}

TEST(option_changes, profiles_are_in_order) {
  const options fast = options::latency();
  const options even = options::balanced();
  const options much = options::throughput();
  for (const auto of :
       {&options::stall_threshold, &options::yield_threshold, &options::isolate_threshold,
        &options::quantum, &options::min_slice, &options::max_critical}) {
    EXPECT_LT(fast.*of, even.*of);
    EXPECT_LT(even.*of, much.*of);
  }
  for (const auto of : {&options::accepted, &options::connected}) {
    for (const options* o : {&fast, &even, &much}) {
      EXPECT_EQ((o->*of).budget * 10, (o->*of).per) << "a tenth of a CPU";
    }
    EXPECT_LT((fast.*of).per, (even.*of).per);
    EXPECT_LT((even.*of).per, (much.*of).per);
  }
  EXPECT_LT(fast.admission.target, even.admission.target);
  EXPECT_LT(even.admission.target, much.admission.target);
}

}  // namespace
