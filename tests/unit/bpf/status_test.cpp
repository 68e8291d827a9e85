// SPDX-License-Identifier: BSL-1.0
#include "status.hpp"
// Included first, to check that the header is self-contained.

#include <asio_pulse/bpf/protocol.h>

#include <boost/json.hpp>

#include <gmock/gmock.h>

#include <stdexcept>

namespace {

namespace json = boost::json;
using namespace asio_pulse::scx;
using ::testing::HasSubstr;
using ::testing::Not;

system_state some_state() {
  system_state state;
  state.settings.slice_ns = 2'500'000;
  state.settings.mode = ASIO_PULSE_MODE_ENFORCED;
  state.pressure = {.cpu = 50, .io = 1, .memory = 2, .known = true};
  state.queued = 3;
  state.cpus = 8;
  return state;
}

TEST(status, fits_into_a_reply_whatever_the_number_of_processes) {
  user_quotas quotas{limits{.processes_per_user = 5000, .exempt = 0}};
  quotas.connect(4'000'000'000U, {});
  for (pid_t pid = 4'000'001; pid <= 4'001'024; ++pid) quotas.open(pid, 4'000'000'000U);
  const std::string text = status_json(some_state(), quotas, [](json::object& out) {
    out["counts"] = counts_json(scx_pulse_counts{});
  });
  EXPECT_LE(text.size(), ASIO_PULSE_REPLY_TEXT);
  EXPECT_GE(text.size(), ASIO_PULSE_REPLY_TEXT * 3 / 4) << "there was room for more";
  const json::value parsed = json::parse(text);
  const std::size_t listed = parsed.at("process_list").as_array().size();
  EXPECT_EQ(parsed.at("processes").to_number<std::size_t>(), 1024U);
  EXPECT_EQ(parsed.at("processes_not_listed").to_number<std::size_t>(), 1024U - listed);
}

TEST(status, text_has_everything_for_people) {
  user_quotas quotas{limits{}};
  quotas.connect(1000, {});
  quotas.open(4711, 1000);
  const std::string text = status_text(
      status_json(some_state(), quotas, [](json::object& out) { out["policy"] = "round-robin"; }));
  EXPECT_THAT(text, HasSubstr("mode: enforced\n"));
  EXPECT_THAT(text, HasSubstr("slice=2.5ms"));
  EXPECT_THAT(text, HasSubstr("cpu_percent=50"));
  EXPECT_THAT(text, HasSubstr("queued: 3\n"));
  EXPECT_THAT(text, HasSubstr("policy: round-robin\n"));
  EXPECT_THAT(text, HasSubstr("process: pid=4711 uid=1000 workers=0\n"));
  EXPECT_THAT(text, Not(HasSubstr("not measured")));
}

TEST(status, text_says_when_pressure_is_unknown) {
  system_state state = some_state();
  state.pressure = {};
  const user_quotas quotas{limits{}};
  EXPECT_THAT(status_text(status_json(state, quotas, {})),
              HasSubstr("these zeros are not measured"));
}

TEST(status, text_of_anything_else_is_refused) {
  for (const char* const text : {"", "{", "[]", "null", "1", "\xff\xfe", "{\"a\":1}x"}) {
    EXPECT_THROW(static_cast<void>(status_text(text)), std::runtime_error) << text;
  }
  EXPECT_EQ(status_text("{}"), "");
  EXPECT_EQ(status_text(R"({"a":[1,{"b":2}],"pressure":7})"), "process: b=2\npressure: 7\n");
}

TEST(status, every_count_has_its_name) {
  scx_pulse_counts counts{};
  counts.dispatched = 1;
  counts.lost_hints = 2;
  counts.ended = 3;
  const json::object named = counts_json(counts);
  EXPECT_EQ(named.size(), sizeof counts / sizeof(std::uint64_t));
  EXPECT_EQ(named.at("dispatched").as_uint64(), 1U);
  EXPECT_EQ(named.at("lost_hints").as_uint64(), 2U);
  EXPECT_EQ(named.at("ended").as_uint64(), 3U);
}

TEST(statistics, a_line_has_what_happened_since_the_last) {
  scx_pulse_counts before{};
  before.hints = 10;
  before.kicks = 5;
  scx_pulse_counts now = before;
  now.hints = 17;
  now.acknowledged = 4;
  const std::string text = statistics_line(before, now, 2.0, some_state(), 3, 9, false);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_THAT(text, HasSubstr("processes=3 workers=9 queued=3 cpu_pressure=50%"));
  EXPECT_THAT(text, HasSubstr(" hints=+7"));
  EXPECT_THAT(text, HasSubstr(" acknowledged=+4"));
  EXPECT_THAT(text, Not(HasSubstr("kicks")));

  const std::string line = statistics_line(before, now, 2.0, some_state(), 3, 9, true);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const json::value parsed = json::parse(line);
  EXPECT_EQ(parsed.at("event").as_string(), "statistics");
  EXPECT_EQ(parsed.at("since_last").at("hints").to_number<int>(), 7);
  EXPECT_EQ(parsed.at("since_last").at("kicks").to_number<int>(), 0);
  EXPECT_EQ(parsed.at("total").at("kicks").to_number<int>(), 5);
  EXPECT_EQ(parsed.at("workers").to_number<int>(), 9);
}

TEST(statistics, a_hint_is_one_line) {
  const asio_pulse_hint hint{.time_ns = 1,
                             .seq = 2,
                             .ran_ns = 7'500'000,
                             .tgid = 3,
                             .tid = 4,
                             .slot = 5,
                             .kind = ASIO_PULSE_KICKED,
                             .policy = ASIO_PULSE_POLICY_THREAD_KICK,
                             .cpu = 6};
  EXPECT_EQ(hint_line(hint, false), "scx_pulse: kicked pid=3 tid=4 slot=5 seq=2 ran=7.500ms cpu=6");
  const json::value parsed = json::parse(hint_line(hint, true));
  EXPECT_EQ(parsed.at("event").as_string(), "kicked");
  EXPECT_EQ(parsed.at("ran_ns").to_number<int>(), 7'500'000);
  asio_pulse_hint odd = hint;
  odd.kind = 200;
  EXPECT_THAT(hint_line(odd, false), HasSubstr("unknown"));
}

}  // namespace
