// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/options.hpp>
// Included first, to check that the header is self-contained.

#include <asio_pulse/error.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asio_pulse::invalid_reason;
using asio_pulse::isolation_priority;
using asio_pulse::options;
using asio_pulse::task_budget;
using asio_pulse::task_options;
using asio_pulse::tier_limits;
using asio_pulse::validate;
using asio_pulse::timing::clock_kind;
using std::chrono::nanoseconds;

static_assert(std::is_aggregate_v<options>);
static_assert(std::is_aggregate_v<task_options>);
static_assert(std::is_aggregate_v<asio_pulse::tier_policy>);

// The text contains the field, the rule and the value.
template <typename Options>
struct bad_case {
  std::function<void(Options&)> spoil;
  std::string text;
};

template <typename Options>
void expect_refused(const std::vector<bad_case<Options>>& cases, const std::string& prefix) {
  for (const auto& c : cases) {
    Options o;
    c.spoil(o);
    const std::string wanted = prefix + c.text;
    EXPECT_EQ(invalid_reason(o), wanted);
    try {
      validate(o);
      ADD_FAILURE() << "accepted: " << wanted;
    } catch (const std::invalid_argument& e) {
      EXPECT_EQ(e.what(), wanted);
    }
    boost::system::error_code ec;
    validate(o, ec);
    EXPECT_EQ(ec, asio_pulse::error::invalid_option) << wanted;
  }
}

template <typename Options>
void expect_accepted(const std::vector<std::function<void(Options&)>>& cases) {
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Options o;
    cases[i](o);
    EXPECT_EQ(invalid_reason(o), "") << "case " << i;
    EXPECT_NO_THROW(validate(o));
    boost::system::error_code ec = asio_pulse::error::invalid_option;
    validate(o, ec);
    EXPECT_FALSE(ec.failed()) << "case " << i;
  }
}

TEST(options, defaults_are_valid) {
  expect_accepted<options>({[](options&) {}});
  expect_accepted<task_options>({[](task_options&) {}});
}

TEST(options, designated_initialisers_in_the_documented_order) {
  const options o{.stall_threshold = 5ms,
                  .yield_threshold = 20ms,
                  .isolate_threshold = 50ms,
                  .accepted = {.name = "session", .budget = 2ms, .per = 10ms},
                  .unnamed = {},
                  .accept_rule = false,
                  .enabled = true,
                  .shadow = true,
                  .quantum = 1ms,
                  .min_slice = 100us,
                  .isolation_threads = 2,
                  .isolation_priority = isolation_priority::nice,
                  .isolation_nice = 5,
                  .report_interval = 2s,
                  .reports_per_second = 100,
                  .on_report = [](const asio_pulse::report&) {},
                  .clock = clock_kind::steady,
                  .tiers = {.yield_after = 3,
                            .isolate_after = 4,
                            .clean_window = 1s,
                            .isolate_clean_window = 2s},
                  .max_critical = 2ms,
                  .watchdog = false,
                  .stall_signal = -1,
                  .stack_bytes = 8192,
                  .spare_workers = 2,
                  .spare_cooldown = 2s,
                  .fiber_stack = 32768};
  EXPECT_NO_THROW(validate(o));
  const task_options t{
      .name = "report", .budget = 2ms, .per = 10ms, .burst = 4ms, .isolatable = true};
  EXPECT_NO_THROW(validate(t));
}

TEST(options, task_options_out_of_range_are_refused) {
  expect_refused<task_options>(
      {
          {[](auto& o) { o.budget = -1ns; }, "budget must not be negative (got -1ns)"},
          {[](auto& o) { o.budget = nanoseconds::min(); },
           "budget must not be negative (got -9223372036854775808ns)"},
          {[](auto& o) { o.budget = 999ns; },
           "budget must be zero (unlimited) or at least 1us (got 999ns)"},
          {[](auto& o) { o.budget = 6ms; }, "budget must not exceed per = 3ms (got 6ms)"},
          {[](auto& o) { o.budget = 500us, o.per = 60s; },
           "budget must not be below per / 65535, per = 60s (got 500us)"},
          {[](auto& o) { o.per = 0ns; }, "per must be positive (got 0ns)"},
          {[](auto& o) { o.per = -5ms; }, "per must be positive (got -5ms)"},
          {[](auto& o) { o.per = 61s; }, "per must be at most 60s (got 61s)"},
          {[](auto& o) { o.per = nanoseconds::max(); },
           "per must be at most 60s (got 9223372036854775807ns)"},
          {[](auto& o) { o.budget = 0ns, o.per = 0ns; }, "per must be positive (got 0ns)"},
          {[](auto& o) { o.burst = -1s; }, "burst must not be negative (got -1s)"},
          {[](auto& o) { o.burst = 1ns; },
           "burst must be zero (one budget) or at least 1us (got 1ns)"},
          {[](auto& o) { o.burst = 61s; },
           "burst must be refilled within 600s, that is burst * per / budget (got 61s)"},
          {[](auto& o) { o.burst = nanoseconds::max(); },
           "burst must be refilled within 600s, that is burst * per / budget (got "
           "9223372036854775807ns)"},
          {[](auto& o) { o.budget = 0ns, o.burst = 2h; }, "burst must be at most 1h (got 7200s)"},
      },
      "asio_pulse::task_options.");
}

TEST(options, limits_of_task_options_are_inside) {
  expect_accepted<task_options>({
      [](auto& o) { o.budget = 0ns; },
      [](auto& o) { o.budget = 1us; },
      [](auto& o) { o.budget = o.per; },
      [](auto& o) { o.budget = 1ms, o.per = 60s; },
      [](auto& o) { o.burst = 1us; },
      [](auto& o) { o.burst = 60s; },
      [](auto& o) { o.name = std::string(100'000, '\xff'); },
      [](auto& o) { o.name.assign(3, '\0'); },
  });
}

TEST(options, out_of_range_is_refused_with_field_rule_and_value) {
  expect_refused<options>(
      {
          {[](auto& o) { o.stall_threshold = -1ns; },
           "stall_threshold must not be negative (got -1ns)"},
          {[](auto& o) { o.stall_threshold = 2h; },
           "stall_threshold must be at most 1h (got 7200s)"},
          {[](auto& o) { o.yield_threshold = -1ms; },
           "yield_threshold must not be negative (got -1ms)"},
          {[](auto& o) { o.yield_threshold = 4ms; },
           "yield_threshold must not be below stall_threshold = 5ms (got 4ms)"},
          {[](auto& o) { o.isolate_threshold = -1us; },
           "isolate_threshold must not be negative (got -1us)"},
          {[](auto& o) { o.isolate_threshold = 10ms; },
           "isolate_threshold must not be below yield_threshold = 20ms (got 10ms)"},
          {[](auto& o) { o.yield_threshold = 0ns, o.isolate_threshold = 4ms; },
           "isolate_threshold must not be below stall_threshold = 5ms (got 4ms)"},
          {[](auto& o) { o.accepted.budget = 1s; },
           "accepted.budget must not exceed per = 3ms (got 1s)"},
          {[](auto& o) { o.connected.budget = 1s; },
           "connected.budget must not exceed per = 3ms (got 1s)"},
          {[](auto& o) { o.unnamed.per = 0ns; }, "unnamed.per must be positive (got 0ns)"},
          {[](auto& o) { o.quantum = 0ns; }, "quantum must be positive (got 0ns)"},
          {[](auto& o) { o.quantum = -1us; }, "quantum must be positive (got -1us)"},
          {[](auto& o) { o.quantum = 2h; }, "quantum must be at most 1h (got 7200s)"},
          {[](auto& o) { o.min_slice = 0ns; }, "min_slice must be positive (got 0ns)"},
          {[](auto& o) { o.min_slice = 501us; },
           "min_slice must not exceed quantum = 500us (got 501us)"},
          {[](auto& o) { o.isolation_threads = 257; },
           "isolation_threads must be at most 256 (got 257)"},
          {[](auto& o) { o.isolation_threads = std::numeric_limits<std::size_t>::max(); },
           "isolation_threads must be at most 256 (got 18446744073709551615)"},
          {[](auto& o) { o.isolation_priority = static_cast<isolation_priority>(9); },
           "isolation_priority must be an enumerator of isolation_priority (got 9)"},
          {[](auto& o) { o.isolation_nice = -1; },
           "isolation_nice must be between 0 and 19 (got -1)"},
          {[](auto& o) { o.isolation_nice = 20; },
           "isolation_nice must be between 0 and 19 (got 20)"},
          {[](auto& o) { o.report_interval = -1s; },
           "report_interval must not be negative (got -1s)"},
          {[](auto& o) { o.report_interval = 2h; },
           "report_interval must be at most 1h (got 7200s)"},
          {[](auto& o) { o.reports_per_second = 1'000'001; },
           "reports_per_second must be at most 1000000 (got 1000001)"},
          {[](auto& o) { o.silenced = {static_cast<asio_pulse::report_kind>(9)}; },
           "silenced must have enumerators of report_kind only (got another value)"},
          {[](auto& o) { o.clock = clock_kind::none; },
           "clock must be a clock that a context can attach to (got none = 0)"},
          {[](auto& o) { o.clock = clock_kind::manual; },
           "clock must be a clock that a context can attach to (got manual = " +
               std::to_string(static_cast<int>(clock_kind::manual)) + ")"},
          {[](auto& o) { o.clock = static_cast<clock_kind>(200); },
           "clock must be a clock that a context can attach to (got unknown = 200)"},
          {[](auto& o) { o.tiers.yield_after = 256; },
           "tiers.yield_after must be at most 255 (got 256)"},
          {[](auto& o) { o.tiers.isolate_after = 4'000'000'000U; },
           "tiers.isolate_after must be at most 255 (got 4000000000)"},
          {[](auto& o) { o.tiers.clean_window = 0ns; },
           "tiers.clean_window must be positive (got 0ns)"},
          {[](auto& o) { o.tiers.clean_window = -1ns; },
           "tiers.clean_window must be positive (got -1ns)"},
          {[](auto& o) { o.tiers.isolate_clean_window = 0ns; },
           "tiers.isolate_clean_window must be positive (got 0ns)"},
          {[](auto& o) { o.tiers.isolate_clean_window = 99ms; },
           "tiers.isolate_clean_window must not be below tiers.clean_window = 100ms (got 99ms)"},
          {[](auto& o) { o.tiers.isolate_clean_window = 2h; },
           "tiers.isolate_clean_window must be at most 1h (got 7200s)"},
          {[](auto& o) { o.max_critical = -1ns; }, "max_critical must not be negative (got -1ns)"},
          {[](auto& o) { o.max_critical = 2h; }, "max_critical must be at most 1h (got 7200s)"},
          {[](auto& o) { o.stall_signal = SIGSEGV; },
           "stall_signal must be zero, negative, or a signal that can be caught and is not "
           "raised by a fault (got 11)"},
          {[](auto& o) { o.stack_bytes = 4095; },
           "stack_bytes must be between 4096 and 1048576 (got 4095)"},
          {[](auto& o) { o.stack_bytes = 1048577; },
           "stack_bytes must be between 4096 and 1048576 (got 1048577)"},
          {[](auto& o) { o.spare_workers = 65; }, "spare_workers must be at most 64 (got 65)"},
          {[](auto& o) { o.spare_cooldown = -1ms; },
           "spare_cooldown must not be negative (got -1ms)"},
          {[](auto& o) { o.spare_cooldown = 2h; }, "spare_cooldown must be at most 1h (got 7200s)"},
          {[](auto& o) { o.fiber_stack = 16383; },
           "fiber_stack must be between 16384 and 8388608 (got 16383)"},
          {[](auto& o) { o.fiber_stack = 8388609; },
           "fiber_stack must be between 16384 and 8388608 (got 8388609)"},
          {[](auto& o) { o.preemptible = static_cast<asio_pulse::preemptible_handlers>(3); },
           "preemptible must be an enumerator of preemptible_handlers (got 3)"},
          {[](auto& o) { o.policy = asio_pulse::scheduling::custom; },
           "policy must not be custom without custom_policy (got custom)"},
          {[](auto& o) { o.saturation = 1us; },
           "saturation must be zero (always saturated) or at least 10us (got 1us)"},
          {[](auto& o) { o.accepted.priority = 8; },
           "accepted.priority must be between 0 and 7 (got 8)"},
          {[](auto& o) { o.connected.deadline = 61s; },
           "connected.deadline must be at most 60s (got 61s)"},
      },
      "asio_pulse::options.");
}

TEST(options, zero_switches_off_where_it_says_so) {
  expect_accepted<options>({
      [](auto& o) { o.stall_threshold = 0ns; },
      [](auto& o) { o.yield_threshold = 0ns; },
      [](auto& o) { o.isolate_threshold = 0ns; },
      [](auto& o) { o.stall_threshold = o.yield_threshold = o.isolate_threshold = 0ns; },
      [](auto& o) { o.unnamed.budget = 0ns; },
      [](auto& o) { o.isolation_threads = 0; },
      [](auto& o) { o.report_interval = 0ns; },
      [](auto& o) { o.reports_per_second = 0; },
      [](auto& o) { o.max_critical = 0ns; },
      [](auto& o) { o.tiers.yield_after = o.tiers.isolate_after = 0; },
      [](auto& o) { o.min_slice = o.quantum; },
      [](auto& o) { o.isolation_threads = 256; },
      [](auto& o) { o.isolation_nice = 19; },
      [](auto& o) { o.watchdog = false; },
      [](auto& o) { o.stall_signal = -1; },
      [](auto& o) { o.stall_signal = SIGUSR1; },
      [](auto& o) { o.stack_bytes = 4096; },
      [](auto& o) { o.stack_bytes = 1048576; },
      [](auto& o) { o.spare_workers = 64; },
      [](auto& o) { o.spare_cooldown = 0ns; },
      [](auto& o) { o.preemptible = asio_pulse::preemptible_handlers::connections; },
      [](auto& o) { o.fiber_stack = 16384; },
      [](auto& o) { o.fiber_stack = 8388608; },
  });
}

#if defined(__linux__)
TEST(options, signals_that_nobody_may_take_are_refused) {
  for (const int signal : {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP,
                           SIGSYS, 32, SIGRTMAX + 1, 1'000'000}) {
    options o;
    o.stall_signal = signal;
    EXPECT_NE(invalid_reason(o).find("stall_signal must"), std::string::npos) << signal;
  }
  for (const int signal : {SIGURG, SIGUSR2, SIGRTMIN, SIGRTMAX}) {
    options o;
    o.stall_signal = signal;
    EXPECT_EQ(invalid_reason(o), "") << signal;
  }
}
#endif

TEST(options, limits_are_the_options_in_ticks) {
  options o;
  o.shadow = true;
  const auto& base = asio_pulse::timing::timebase::get();
  const tier_limits l = make_tier_limits(o);
  EXPECT_EQ(l.slow_poll, base.from_ns(5ms));
  EXPECT_EQ(l.yield_poll, base.from_ns(20ms));
  EXPECT_EQ(l.isolate_poll, base.from_ns(50ms));
  EXPECT_EQ(l.quiet_below, l.slow_poll);
  EXPECT_EQ(l.clean_window, base.from_ns(100ms));
  EXPECT_EQ(l.isolate_clean_window, base.from_ns(1s));
  EXPECT_EQ(l.yield_after, 2);
  EXPECT_EQ(l.isolate_after, 3);
  EXPECT_TRUE(l.shadow);
  EXPECT_FALSE(l.trust_occupancy);
}

TEST(options, zero_thresholds_are_off_and_quiet_follows_what_is_left) {
  options o;
  o.stall_threshold = 0ns;
  EXPECT_EQ(make_tier_limits(o).slow_poll, tier_limits::off);
  EXPECT_EQ(make_tier_limits(o).quiet_below, make_tier_limits(o).yield_poll);
  o.yield_threshold = o.isolate_threshold = 0ns;
  EXPECT_EQ(make_tier_limits(o).quiet_below, tier_limits::off);
  o.clock = clock_kind::steady;
  EXPECT_TRUE(make_tier_limits(o).trust_occupancy);
}

TEST(options, budget_is_configured_in_ticks) {
  const auto& base = asio_pulse::timing::timebase::get();
  task_budget b;
  configure(b, {.budget = 1ms, .per = 10ms, .burst = 2ms});
  EXPECT_NEAR(static_cast<double>(b.burst()), static_cast<double>(base.from_ns(2ms)), 1024.0);
  EXPECT_NEAR(static_cast<double>(b.refill_time()), static_cast<double>(base.from_ns(20ms)),
              1024.0);
  configure(b, {.budget = 1ms, .per = 10ms});
  EXPECT_NEAR(static_cast<double>(b.burst()), static_cast<double>(base.from_ns(1ms)), 1024.0);
  configure(b, {.budget = 0ns});
  EXPECT_TRUE(b.unlimited());
}

TEST(options, priorities_have_names) {
  EXPECT_EQ(to_string(isolation_priority::normal), "normal");
  EXPECT_EQ(to_string(isolation_priority::batch), "batch");
  EXPECT_EQ(to_string(isolation_priority::idle), "idle");
  EXPECT_EQ(to_string(isolation_priority::nice), "nice");
  EXPECT_EQ(to_string(static_cast<isolation_priority>(77)), "unknown");
}

}  // namespace
