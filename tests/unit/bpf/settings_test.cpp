// SPDX-License-Identifier: BSL-1.0
#include "settings.hpp"
// Included first, to check that the header is self-contained.

#include <gmock/gmock.h>

#include <cstring>

namespace {

using namespace asio_pulse::scx;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using ::testing::HasSubstr;

TEST(settings, bounds_are_allowed_and_what_is_beyond_is_named) {
  for (const duration_rule& rule : {slice_rule, grace_rule, max_critical_rule, throttle_rule}) {
    EXPECT_EQ(broken(rule, rule.least), std::nullopt) << rule.option;
    EXPECT_EQ(broken(rule, rule.most), std::nullopt) << rule.option;
    const auto above = broken(rule, rule.most + nanoseconds{1});
    ASSERT_TRUE(above) << rule.option;
    EXPECT_THAT(*above, HasSubstr(std::string(rule.option) + " must be from "));
    EXPECT_TRUE(broken(rule, rule.least - nanoseconds{1})) << rule.option;
  }
}

TEST(settings, durations_read_like_the_options) {
  EXPECT_EQ(in_ms(milliseconds{5}), "5ms");
  EXPECT_EQ(in_ms(std::chrono::microseconds{100}), "0.1ms");
  EXPECT_EQ(in_ms(std::chrono::minutes{1}), "60000ms");
}

TEST(settings, policies_are_found_by_their_names) {
  EXPECT_EQ(local_policy_name(SCX_PULSE_ROUND_ROBIN), "round-robin");
  EXPECT_EQ(local_policy_name(SCX_PULSE_PRIORITY), "priority");
  EXPECT_EQ(local_policy_name(SCX_PULSE_FAIR), "fair");
  EXPECT_GE(local_policy_names().size(), 3U);
  for (const std::string_view name : local_policy_names()) {
    const auto policy = local_policy_of(name);
    ASSERT_TRUE(policy) << name;
    EXPECT_EQ(local_policy_name(*policy), name);
  }
  EXPECT_EQ(local_policy_of("lifo"), std::nullopt);
  EXPECT_EQ(local_policy_of(""), std::nullopt);
}

struct change_case {
  const char* name;
  void (*spoil)(asio_pulse_set_request&);
  const char* sentence;
};

TEST(settings, apply_changes_nothing_when_anything_is_wrong) {
  const change_case cases[] = {
      {"nothing named", [](asio_pulse_set_request& c) { c.fields = 0; }, "at least one"},
      {"a setting of the future", [](asio_pulse_set_request& c) { c.fields |= 64; }, "knows 0x3f"},
      {"reserved", [](asio_pulse_set_request& c) { c.reserved = 1; }, "knows"},
      {"slice", [](asio_pulse_set_request& c) { c.slice_ns = 1; }, "--slice-ms"},
      {"grace", [](asio_pulse_set_request& c) { c.grace_ns = ~std::uint64_t{0}; }, "--grace-ms"},
      {"critical", [](asio_pulse_set_request& c) { c.max_critical_ns = 1ULL << 63; },
       "--max-critical-ms"},
      {"throttle", [](asio_pulse_set_request& c) { c.throttle_ns = 0; }, "--throttle-ms"},
      {"no share", [](asio_pulse_set_request& c) { c.throttle_percent = 0; }, "--throttle-percent"},
      {"101 %", [](asio_pulse_set_request& c) { c.throttle_percent = 101; }, "--throttle-percent"},
      {"mode none", [](asio_pulse_set_request& c) { c.mode = ASIO_PULSE_MODE_NONE; }, "--mode"},
      {"mode 2", [](asio_pulse_set_request& c) { c.mode = 2; }, "--mode"},
  };
  const scx_pulse_settings before{.slice_ns = 5'000'000,
                                  .grace_ns = 1,
                                  .max_critical_ns = 2,
                                  .throttle_ns = 3,
                                  .throttle_percent = 4,
                                  .mode = 0,
                                  .imbalance = 6,
                                  .pressure = 7};
  asio_pulse_set_request right{};
  right.fields = 63;
  right.mode = ASIO_PULSE_MODE_ENFORCED;
  right.slice_ns = 1'000'000;
  right.grace_ns = 0;
  right.max_critical_ns = 0;
  right.throttle_ns = 1'000'000'000;
  right.throttle_percent = 100;
  for (const change_case& one : cases) {
    asio_pulse_set_request wrong = right;
    one.spoil(wrong);
    scx_pulse_settings settings = before;
    const auto sentence = apply(wrong, settings);
    ASSERT_TRUE(sentence) << one.name;
    EXPECT_THAT(*sentence, HasSubstr(one.sentence)) << one.name;
    EXPECT_EQ(std::memcmp(&settings, &before, sizeof before), 0) << one.name;
  }
  scx_pulse_settings settings = before;
  EXPECT_EQ(apply(right, settings), std::nullopt);
  EXPECT_EQ(settings.mode, ASIO_PULSE_MODE_ENFORCED);
  EXPECT_EQ(settings.slice_ns, 1'000'000U);
  EXPECT_EQ(settings.grace_ns, 0U);
  EXPECT_EQ(settings.max_critical_ns, 0U);
  EXPECT_EQ(settings.throttle_ns, 1'000'000'000U);
  EXPECT_EQ(settings.throttle_percent, 100U);
  EXPECT_EQ(settings.imbalance, 6U);
  EXPECT_EQ(settings.pressure, 7U);
}

TEST(settings, apply_looks_only_at_what_is_named) {
  asio_pulse_set_request change{};
  change.fields = ASIO_PULSE_SET_GRACE;
  change.grace_ns = 9;
  change.slice_ns = 0;  // nonsense, and not named
  change.mode = 99;
  scx_pulse_settings settings{};
  settings.slice_ns = 5'000'000;
  EXPECT_EQ(apply(change, settings), std::nullopt);
  EXPECT_EQ(settings.grace_ns, 9U);
  EXPECT_EQ(settings.slice_ns, 5'000'000U);
  EXPECT_EQ(settings.mode, 0U);
}

}  // namespace
