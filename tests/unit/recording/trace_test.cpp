// SPDX-License-Identifier: BSL-1.0
//
// The trace as a parser of JSON that is not ours reads it.

#if defined(ASIO_PULSE_TEST_JSON)

#include "sample.hpp"

#include <asio_pulse/recording.hpp>
#include <asio_pulse/trace.hpp>

#include <boost/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace asio_pulse {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using test::everything;
using test::poll_at;
using testing::ElementsAre;
using testing::HasSubstr;

struct trace {
  json::value whole;
  std::vector<json::object> events;

  explicit trace(const recording& r) {
    std::ostringstream out;
    write_trace(r, out);
    whole = json::parse(out.str());  // throws: the test fails
    for (const json::value& e : whole.at("traceEvents").as_array()) {
      events.push_back(e.as_object());
    }
  }
  [[nodiscard]] std::vector<json::object> of(std::string_view phase,
                                             std::string_view name = {}) const {
    std::vector<json::object> found;
    for (const json::object& e : events) {
      if (e.at("ph").as_string() != phase) continue;
      if (name.empty() || e.at("name").as_string() == name) found.push_back(e);
    }
    return found;
  }
};

// Recordings of shards: a lane for each, and one axis of time.
TEST(trace, several_recordings_have_a_lane_each) {
  std::vector<recording> all(3, everything());
  all[1].context = "server/1";
  all[1].begin = all[0].begin + 3ms;
  all[2].begin = all[0].begin - 2ms;
  std::ostringstream out;
  write_trace(all, out);
  const json::value whole = json::parse(out.str());
  std::map<std::int64_t, double> first;  // by process
  std::map<std::int64_t, std::size_t> events;
  std::map<std::int64_t, std::int64_t> order;
  for (const json::value& e : whole.at("traceEvents").as_array()) {
    const std::int64_t process = e.at("pid").as_int64();
    ++events[process];
    if (e.at("name").as_string() == "process_sort_index") {
      order[process] = e.at("args").at("sort_index").as_int64();
    }
    if (e.at("ph").as_string() != "X") continue;
    const double at = e.at("ts").as_double();
    const auto known = first.try_emplace(process, at).first;
    known->second = std::min(known->second, at);
  }
  ASSERT_EQ(first.size(), 3U);
  const std::int64_t one = static_cast<std::int64_t>(all[0].pid);
  const std::int64_t two = one + (1 << 22);
  const std::int64_t three = one + 2 * (1 << 22);
  EXPECT_EQ(order[two], 1);
  EXPECT_EQ(order[three], 2);
  EXPECT_EQ(events[two], events[three]);
  EXPECT_NEAR(first[one] - first[three], 2000, 0.01);
  EXPECT_NEAR(first[two] - first[three], 5000, 0.01);
  // None at all is a trace, too.
  std::ostringstream empty;
  write_trace(std::span<const recording>(), empty);
  EXPECT_TRUE(json::parse(empty.str()).at("traceEvents").is_array());
}

double us(const json::object& e, std::string_view field) { return e.at(field).as_double(); }

std::string text(const json::value& v) { return std::string(v.as_string()); }

struct time_span {
  double start;
  double end;
};

// Fields of each phase, ascending times on each thread, slices that are inside one another or
// apart.
void expect_well_formed(const trace& t) {
  std::map<std::int64_t, double> last;
  std::map<std::int64_t, std::vector<time_span>> open;
  for (const json::object& e : t.events) {
    const std::string phase = text(e.at("ph"));
    ASSERT_TRUE(e.at("pid").is_int64());
    ASSERT_TRUE(e.at("ts").is_double());
    ASSERT_TRUE(e.at("name").is_string());
    ASSERT_TRUE(e.at("args").is_object());
    ASSERT_GE(us(e, "ts"), 0);
    if (phase == "C") {
      ASSERT_EQ(e.at("args").as_object().size(), 1U);
      ASSERT_TRUE(e.at("args").as_object().begin()->value().is_number());
      continue;
    }
    const std::int64_t thread = e.at("tid").as_int64();
    if (phase == "M") {
      ASSERT_TRUE(e.at("args").at("name").is_string());
      continue;
    }
    ASSERT_GE(us(e, "ts"), last[thread]);
    last[thread] = us(e, "ts");
    if (phase == "i") {
      ASSERT_EQ(e.at("s").as_string(), "t");
      continue;
    }
    ASSERT_EQ(phase, "X");
    const time_span s{us(e, "ts"), us(e, "ts") + us(e, "dur")};
    ASSERT_GE(s.end, s.start);
    auto& stack = open[thread];
    while (!stack.empty() && stack.back().end <= s.start + 1e-6) stack.pop_back();
    constexpr double rounding = 1e-3;
    ASSERT_TRUE(stack.empty() || s.end <= stack.back().end + rounding);
    stack.push_back(s);
  }
}

TEST(trace, of_everything_is_well_formed) { expect_well_formed(trace(everything())); }

TEST(trace, of_nothing_is_well_formed) {
  const trace t{recording{}};
  expect_well_formed(t);
  EXPECT_EQ(t.events.size(), 1U);  // the process's name
}

TEST(trace, tells_what_was_recorded) {
  const trace t(everything());
  const json::object& other = t.whole.at("otherData").as_object();
  EXPECT_EQ(other.at("program").as_string(), "serv\"er\\");
  EXPECT_EQ(other.at("context").as_string(), "main\n\x01");
  EXPECT_EQ(other.at("begin_unix_ns").as_string(), "1790000000000000000");
  EXPECT_EQ(other.at("clock").as_string(), "rseq_tsc");

  const auto process = t.of("M", "process_name");
  ASSERT_EQ(process.size(), 1U);
  EXPECT_EQ(process[0].at("args").at("name").as_string(), "serv\"er\\: main\n\x01");
  std::vector<std::string> threads;
  for (const auto& e : t.of("M", "thread_name")) threads.push_back(text(e.at("args").at("name")));
  EXPECT_THAT(threads,
              ElementsAre("worker 1234 (3 events lost)", "worker 1234: stalls", "worker 1235"));
}

TEST(trace, shows_polls_as_slices_named_by_site) {
  const auto polls = trace(everything()).of("X");
  ASSERT_EQ(polls.size(), 4U);
  EXPECT_EQ(polls[0].at("name").as_string(), "void parse<char>(int)::{lambda()#1}");
  EXPECT_EQ(polls[0].at("tid").as_int64(), 1234);
  EXPECT_DOUBLE_EQ(us(polls[0], "ts"), 1.0);
  EXPECT_DOUBLE_EQ(us(polls[0], "dur"), 100.0);
  const json::object& args = polls[0].at("args").as_object();
  EXPECT_EQ(args.at("id").as_int64(), 7);
  EXPECT_EQ(args.at("task").as_string(), "re\xef\xbf\xbdport\x1b[31m");
  EXPECT_EQ(args.at("place").as_string(), "src/pa\"rse.cpp:12");
  EXPECT_EQ(args.at("function").as_string(), "parse");
  // A site without a type, a task without a name; the whole of its id is known.
  EXPECT_EQ(polls[1].at("name").as_string(), "poll");
  EXPECT_EQ(polls[1].at("args").at("id").as_int64(), (1LL << 32) + 9);
  EXPECT_DOUBLE_EQ(us(polls[3], "dur"), 1e7);
}

TEST(trace, shows_what_else_happened_as_instants) {
  std::vector<std::string> names;
  for (const auto& e : trace(everything()).of("i")) names.push_back(text(e.at("name")));
  EXPECT_THAT(names,
              ElementsAre("tier: monitor to yield", "parked", "yielded", "isolated", "hint"));
}

TEST(trace, shows_refused_requests_with_the_reason_and_counts_them) {
  recording r = everything();
  r.workers[1].events = {recorded_event::make(event_kind::refused, 1ms, 0, 7, std::uint32_t{1}),
                         recorded_event::make(event_kind::refused, 2ms, 0, 7, std::uint32_t{2}),
                         recorded_event::make(event_kind::refused, 3ms, 0, 7, std::uint32_t{99})};
  const trace t(r);
  expect_well_formed(t);
  EXPECT_EQ(t.of("i", "refused: share").size(), 1U);
  EXPECT_EQ(t.of("i", "refused: overload").size(), 1U);
  EXPECT_EQ(t.of("i", "refused: unknown").size(), 1U) << "of a later version";
  const auto counts = t.of("C", "refused, in all");
  ASSERT_EQ(counts.size(), 3U);
  EXPECT_DOUBLE_EQ(us(counts[1], "ts"), 2000);
  EXPECT_EQ(counts[1].at("args").at("requests").as_int64(), 2);
}

TEST(trace, counts_over_all_workers_in_one_order) {
  recording r = everything();
  r.workers[1].events = {
      recorded_event::make(event_kind::parked, 1ms, 0, 9, std::uint32_t{0}),
      recorded_event::make(event_kind::queue_delay, 9ms, 0, 0, std::chrono::nanoseconds{1500ns})};
  const trace t(r);
  expect_well_formed(t);
  const auto parked = t.of("C", "put back, in all");
  ASSERT_EQ(parked.size(), 2U);
  EXPECT_DOUBLE_EQ(us(parked[0], "ts"), 1000);
  EXPECT_EQ(parked[0].at("args").at("operations").as_int64(), 1);
  EXPECT_DOUBLE_EQ(us(parked[1], "ts"), 7400);
  EXPECT_EQ(parked[1].at("args").at("operations").as_int64(), 2);
  const auto delay = t.of("C", "queue delay");
  ASSERT_EQ(delay.size(), 2U);
  EXPECT_DOUBLE_EQ(delay[0].at("args").at("us").as_double(), 7000);
  EXPECT_DOUBLE_EQ(delay[1].at("args").at("us").as_double(), 1.5);
}

TEST(trace, shows_stalls_with_their_stacks_from_their_polls_beginning) {
  const auto stalls = trace(everything()).of("X", "blocked: work(int)");
  ASSERT_EQ(stalls.size(), 1U);
  EXPECT_DOUBLE_EQ(us(stalls[0], "ts"), 200);
  EXPECT_DOUBLE_EQ(us(stalls[0], "dur"), 9000);
  const json::object& args = stalls[0].at("args").as_object();
  EXPECT_EQ(args.at("call").as_string(), "futex");
  EXPECT_EQ(args.at("blamed").as_string(), R"(work \"x\" at src/work.cpp:99 (awaiting))");
  ASSERT_EQ(args.at("stack").as_array().size(), 2U);
  EXPECT_EQ(args.at("stack").at(0).as_string(), "wait in libc.so.6+0x9c3fe (inlined)");
  EXPECT_TRUE(args.at("ended").as_bool());
}

TEST(trace, survives_a_stall_that_is_not_in_the_recording) {
  recording r = everything();
  r.stalls.clear();
  const trace t(r);
  expect_well_formed(t);
  EXPECT_EQ(t.of("X").size(), 3U);
}

// An outer poll's cost leaves out what the inner ones took: it lasted for both.
TEST(trace, puts_polls_inside_polls) {
  recording r;
  r.workers = {{1,
                0,
                {poll_at(0us, 1, 100us), poll_at(50us, 2, 500us), poll_at(560us, 3, 5us),
                 poll_at(700us, 4, 1us)}}};
  const trace t(r);
  expect_well_formed(t);
  const auto polls = t.of("X");
  ASSERT_EQ(polls.size(), 4U);
  EXPECT_DOUBLE_EQ(us(polls[0], "dur"), 605);
  EXPECT_DOUBLE_EQ(polls[0].at("args").at("cpu_us").as_double(), 100);
  EXPECT_DOUBLE_EQ(us(polls[1], "dur"), 500);
  EXPECT_FALSE(polls[1].at("args").as_object().contains("cpu_us"));
}

TEST(trace, keeps_polls_apart_where_two_clocks_differ) {
  recording r;
  r.workers = {
      {1, 0, {poll_at(0us, 1, 10400ns), poll_at(10us, 2, 10400ns), poll_at(20us, 3, 1us)}}};
  const trace t(r);
  expect_well_formed(t);
  EXPECT_DOUBLE_EQ(us(t.of("X")[0], "dur"), 9.999);
  EXPECT_DOUBLE_EQ(us(t.of("X")[1], "dur"), 9.999);
}

// As readers do that add in floating point: one that ends behind the beginning of the next is left
// open by them, and holds all that follows.
TEST(trace, slices_that_touch_are_apart_in_floating_point) {
  recording r;
  r.workers = {{1, 0, {}}};
  std::chrono::nanoseconds at{55'438'668};
  for (int i = 0; i != 2000; ++i) {
    const std::chrono::nanoseconds length{700 + i * 37 % 1000};
    r.workers[0].events.push_back(poll_at(at, 1, length));
    at += length;
  }
  const trace t(r);
  expect_well_formed(t);
  const auto slices = t.of("X");
  ASSERT_EQ(slices.size(), 2000U);
  double last_end = 0;
  for (const json::object& e : slices) {
    EXPECT_LT(last_end, us(e, "ts"));
    last_end = us(e, "ts") + us(e, "dur");
    EXPECT_FALSE(e.at("args").as_object().contains("cpu_us")) << "not worth telling";
  }
}

TEST(trace, sorts_what_is_out_of_order) {
  recording r;
  r.workers = {{1, 0, {poll_at(50us, 2, 1us), poll_at(10us, 1, 1us)}}};
  expect_well_formed(trace(r));
}

TEST(trace, gives_each_worker_a_track_whatever_its_number) {
  recording r;
  r.pid = ~0ULL;
  for (const std::uint64_t thread : {0ULL, 0ULL, 5ULL, 5ULL, ~0ULL}) {
    r.workers.push_back({thread, 0, {poll_at(0us, 1, 1us)}});
  }
  const trace t(r);
  expect_well_formed(t);
  std::map<std::int64_t, int> tracks;
  for (const auto& e : t.of("X")) ++tracks[e.at("tid").as_int64()];
  EXPECT_EQ(tracks.size(), 5U);
}

TEST(trace, of_a_forged_recording_is_well_formed) {
  recording r = everything();
  r.stalls[0].lasted = std::chrono::nanoseconds::max();
  r.length = std::chrono::nanoseconds::max();
  r.workers.push_back({});
  for (std::uint32_t i = 0; i < 5000; ++i) {
    r.workers[2].events.push_back(poll_at(std::chrono::hours{1000}, i, std::chrono::hours{2}));
    r.workers[2].events.push_back({i * 0x9e3779b97f4a7c15ULL, ~(i * 0xc2b2ae3d27d4eb4fULL)});
  }
  const trace t(r);
  for (const json::object& e : t.of("X")) ASSERT_GE(us(e, "dur"), 0);
}

TEST(trace, escapes_any_bytes_and_keeps_those_that_are_text) {
  recording r;
  for (int byte = 0; byte < 256; ++byte) r.program.push_back(static_cast<char>(byte));
  r.context =
      "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80 \xed\xa0\x80 \xc0\xaf \xe2\x80\xa8 "
      "\xc2\x9b";
  std::ostringstream out;
  write_trace(r, out);
  for (const char byte : out.str()) {
    ASSERT_TRUE(static_cast<unsigned char>(byte) >= 0x20 || byte == '\n');
  }
  EXPECT_THAT(out.str(), HasSubstr("\\u2028"));
  EXPECT_EQ(out.str().find("\xc2\x9b"), std::string::npos);  // U+009B begins an escape sequence
  const json::value whole = json::parse(out.str());
  const std::string program = text(whole.at("otherData").at("program"));
  std::string expected;
  for (int byte = 0; byte < 128; ++byte) expected.push_back(static_cast<char>(byte));
  for (int byte = 128; byte < 256; ++byte) expected += "\xef\xbf\xbd";
  EXPECT_EQ(program, expected);
  EXPECT_EQ(text(whole.at("otherData").at("context")),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80 \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
            "\xef\xbf\xbd\xef\xbf\xbd \xe2\x80\xa8 \xc2\x9b");
}

}  // namespace
}  // namespace asio_pulse

#endif
