// SPDX-License-Identifier: BSL-1.0
#include "command.hpp"
// Included first, to check that the header is self-contained.

#include "made.hpp"
#include "output.hpp"
#include "process/sampler.hpp"
#include "process/targets.hpp"
#include "process/tracing.hpp"

// Its implementation is in the tool's json_text.cpp.
#include "support/page_table.hpp"
#include "support/sample_metrics.hpp"

#include <asio_pulse/recording.hpp>
#include <asio_pulse/statistics.hpp>

#include <boost/json/parse.hpp>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

namespace {

using namespace std::chrono_literals;
using asio_pulse::figure;
using asio_pulse::figure_table;
using asio_pulse::process_metrics;
using asio_pulse::statistic;
using asio_pulse::statistic_table;
using namespace asio_pulse::top;  // NOLINT(google-build-using-namespace): what is tested
namespace json = boost::json;

struct outcome {
  int status;
  std::string out;
  std::string error;
};

outcome run(made::machine& m, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "pulse_top");
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = run_command(static_cast<int>(arguments.size()), argv.data(), m);
  return {status, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

void serve(made::machine& m, std::uint64_t readings) {
  m.listed = {{123, "server"}};
  for (std::uint64_t i = 0; i != readings; ++i) m.answers[123].push_back({made::server(i)});
  m.answers[123].push_back({made::server(readings)});  // it lives on
}

TEST(top_command, once_prints_a_table_of_one_interval) {
  made::machine m;
  serve(m, 2);
  const outcome o = run(m, {"--once", "--interval", "0.1"});
  EXPECT_EQ(o.status, 0) << o.error;
  EXPECT_TRUE(has(o.out, "server  pid 123  up 65.0s")) << o.out;
  EXPECT_TRUE(has(o.out, "\"build_report\"")) << o.out;
  EXPECT_TRUE(has(o.out, "Put ASIO_PULSE_CHECKPOINT()")) << o.out;
  EXPECT_TRUE(has(o.out, "src/session.cpp:7 on_read")) << o.out;
  EXPECT_EQ(o.out.find('\x1b'), std::string::npos);
  EXPECT_EQ(o.error, "");
  EXPECT_EQ(m.requests, 2U);
  EXPECT_EQ(m.connections, 1U);
}

TEST(top_command, json_prints_an_object_for_each_interval) {
  made::machine m;
  serve(m, 3);
  const outcome o = run(m, {"server", "--json", "--count", "2", "--interval", "0.1"});
  EXPECT_EQ(o.status, 0) << o.error;
  std::istringstream lines(o.out);
  std::string text;
  int objects = 0;
  for (; std::getline(lines, text); ++objects) {
    const json::object top = json::parse(text).as_object();
    EXPECT_EQ(top.at("schema").as_string(), "asio-pulse-top/1");
    EXPECT_EQ(top.at("interval_ns").as_int64(), 1'000'000'000);
    EXPECT_EQ(top.at("age_ns").as_int64(), 65'000'000'000);
    EXPECT_EQ(top.at("lints").as_array().at(0).at("kind").as_string(), "long_poll");
    const json::object context = top.at("contexts").as_array().at(0).as_object();
    EXPECT_EQ(context.at("name").as_string(), "main");
    EXPECT_DOUBLE_EQ(context.at("totals").at("load").as_double(), 0.5);
    EXPECT_EQ(context.at("queue_delay").at("p99_ns").as_int64(), 61'000'000);
    EXPECT_EQ(context.at("workers").as_array().at(1).at("running").at("task").to_number<int>(), 2);
    EXPECT_TRUE(context.at("workers").as_array().at(0).at("running").is_null());
    EXPECT_EQ(context.at("sites").as_array().at(0).at("place").at("line").to_number<int>(), 42);
    EXPECT_EQ(context.at("tasks").as_array().at(0).at("tier").as_string(), "yield");
    EXPECT_EQ(context.at("stalls").as_array().at(0).at("blamed").to_number<int>(), 1);
  }
  EXPECT_EQ(objects, 2);
}

// ---- changes

using asio_pulse::context_change;
using change_kind = asio_pulse::context_change::kind;

TEST(top_command, changes_are_sent_and_the_answer_is_printed) {
  const std::vector<std::pair<std::vector<std::string>, context_change>> cases{
      {{"--enforce"}, {change_kind::enforce}},
      {{"--shadow"}, {change_kind::shadow}},
      {{"--undo"}, {change_kind::undo}},
      {{"--weight", "tenant/user=200"}, {change_kind::weight, "tenant/user", 200}},
      {{"--weight", "a=b=0"}, {change_kind::weight, "a=b", 0}},  // the process says what is allowed
      {{"--shadow", "--context", "main"}, {change_kind::shadow}},
      {{"--shadow", "--context", "1"}, {change_kind::shadow}},
  };
  for (const auto& [words, what] : cases) {
    made::machine m;
    serve(m, 1);
    m.changed = "done \x1b[2J";
    const outcome o = run(m, words);
    EXPECT_EQ(o.status, 0) << o.error;
    EXPECT_EQ(o.out, "done \\x1b[2J\n");
    ASSERT_EQ(m.changes.size(), 1U) << words[0];
    EXPECT_EQ(m.changes[0].first, 1U);
    EXPECT_EQ(m.changes[0].second.what, what.what) << words[0];
    EXPECT_EQ(m.changes[0].second.group, what.group);
    EXPECT_EQ(m.changes[0].second.weight, what.weight);
  }
}

TEST(top_command, a_refused_change_is_a_sentence) {
  made::machine m;
  serve(m, 1);
  m.refused = "context \"main\" has no group \"x\"";
  const outcome o = run(m, {"--weight", "x=5"});
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(o.out, "");
  EXPECT_EQ(o.error, "pulse_top: refused: context \"main\" has no group \"x\"\n");
}

TEST(top_command, changes_that_make_no_sense_are_not_sent) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--weight", "tenant"},
                                             {"--weight", "tenant="},
                                             {"--weight", "=5"},
                                             {"--weight", "tenant=-5"},
                                             {"--weight", "tenant=5x"},
                                             {"--weight", "tenant=4294967296"},
                                             {"--weight", ""},
                                             {"--enforce", "--shadow"},
                                             {"--undo", "--weight", "x=5"},
                                             {"--enforce", "--json"},
                                             {"--undo", "--trace", "1"},
                                             {"--context", "main"},
                                             {"--context", "main", "--once"},
                                             {"--shadow", "--context", "other"},
                                             {"--shadow", "--context", "2"}}) {
    made::machine m;
    serve(m, 2);
    const outcome o = run(m, words);
    EXPECT_EQ(o.status, 2) << words.back() << o.error;
    EXPECT_NE(o.error, "");
    EXPECT_TRUE(m.changes.empty());
  }
}

TEST(top_command, one_of_several_contexts_has_to_be_chosen) {
  process_metrics two = made::server(0);
  two.contexts.push_back(two.contexts[0]);
  two.contexts[1].number = 7;
  made::machine m;
  m.listed = {{123, "server"}};
  const auto ask = [&](std::vector<std::string> words) {
    m.answers[123] = {{two}, {two}};
    return run(m, std::move(words));
  };
  outcome o = ask({"--shadow"});
  EXPECT_EQ(o.status, 2);
  EXPECT_TRUE(has(o.error, "there are several contexts; choose one with --context: 1 \"main\", 7"))
      << o.error;
  o = ask({"--shadow", "--context", "main"});
  EXPECT_TRUE(has(o.error, "several contexts have this name")) << o.error;
  EXPECT_TRUE(m.changes.empty());
  EXPECT_EQ(ask({"--shadow", "--context", "7"}).status, 0);
  ASSERT_EQ(m.changes.size(), 1U);
  EXPECT_EQ(m.changes[0].first, 7U);
}

TEST(top_command, a_change_of_a_process_that_ends) {
  made::machine m;
  m.listed = {{123, "server"}};
  m.answers[123] = {{made::server(0)}};
  const outcome o = run(m, {"--shadow"});
  EXPECT_EQ(o.status, 1);
  EXPECT_TRUE(m.changes.empty());
}

TEST(top_command, json_has_each_statistic) {
  const process_metrics now = pulse_test::sample_metrics();
  const json::object top = json::parse(json_text(make_picture(now, nullptr))).as_object();
  const json::object totals = top.at("contexts").as_array().at(0).at("totals").as_object();
  for (const statistic& row : statistic_table) {
    const std::string name = std::string(row.name) + (row.time != nullptr ? "_ns" : "");
    const auto expected = row.time != nullptr
                              ? (now.contexts[0].totals.*row.time).count()
                              : static_cast<std::int64_t>(now.contexts[0].totals.*row.count);
    ASSERT_TRUE(totals.contains(name)) << name;
    EXPECT_EQ(totals.at(name).to_number<std::int64_t>(), expected) << name;
  }
}

template <class Of>
void expect_figures(const json::object& shown, const Of& of) {
  for (const figure<Of>& row : figure_table<Of>) {
    if (row.json.empty()) continue;
    const std::string name(row.json);
    ASSERT_TRUE(shown.contains(name)) << name;
    if (const auto* count = std::get_if<std::uint64_t Of::*>(&row.member)) {
      EXPECT_EQ(shown.at(name).to_number<std::uint64_t>(), of.**count) << name;
    } else if (const auto* time = std::get_if<std::chrono::nanoseconds Of::*>(&row.member)) {
      EXPECT_EQ(shown.at(name).to_number<std::int64_t>(), (of.**time).count()) << name;
    } else {
      EXPECT_EQ(shown.at(name).as_bool(), of.*std::get<bool Of::*>(row.member)) << name;
    }
  }
}

TEST(top_command, json_has_each_figure) {
  const process_metrics now = pulse_test::sample_metrics();
  const json::object top = json::parse(json_text(make_picture(now, nullptr))).as_object();
  const json::object context = top.at("contexts").as_array().at(0).as_object();
  const auto first = [&](const char* list) {
    return context.at(list).as_array().at(0).as_object();
  };
  expect_figures(first("sites"), now.contexts[0].sites[0]);
  expect_figures(first("tasks"), now.contexts[0].tasks[0]);
  expect_figures(first("groups"), now.contexts[0].groups[0]);
  expect_figures(first("workers"), now.contexts[0].workers[0]);
  const json::object shard = context.at("shard").as_object();
  expect_figures(shard, now.contexts[0].shard);
  EXPECT_EQ(shard.at("keeps").as_string(), "nothing_movable");
  const json::object move = shard.at("moves").as_array().at(0).as_object();
  EXPECT_EQ(move.at("who").as_string(), "peer");
  EXPECT_EQ(move.at("why").as_string(), "drain");
}

TEST(top_command, json_of_a_context_that_is_no_shard_has_null) {
  process_metrics now = pulse_test::sample_metrics();
  now.contexts[0].shard = {};
  const json::object top = json::parse(json_text(make_picture(now, nullptr))).as_object();
  EXPECT_TRUE(top.at("contexts").as_array().at(0).as_object().at("shard").is_null());
}

// The order of the members, for those who compare lines.
TEST(top_command, json_shows_what_it_works_out_beside_the_figure) {
  const auto before = made::server(0);
  const picture p = make_picture(made::server(1), &before);
  const json::object top = json::parse(json_text(p)).as_object();
  const json::object context = top.at("contexts").as_array().at(0).as_object();
  const auto members = [&context](const char* list) {
    std::string names;
    for (const auto& member : context.at(list).as_array().at(0).as_object()) {
      names += std::string(member.key()) + ' ';
    }
    return names;
  };
  EXPECT_EQ(members("workers"), "thread load polls_per_second running ");
  EXPECT_EQ(members("tasks"), "id name tier load cpu_ns polls polls_per_second held_back ");
  EXPECT_EQ(members("sites"),
            "type place load lock cpu_ns polls polls_per_second again mean_ns suspended refused "
            "refused_lock longest_ns ");
  EXPECT_EQ(members("groups"),
            "path name share_got share_asked load cpu_ns weight tasks admitted admitted_per_second "
            "refused_share refused_overload refused_per_second queue_delay_ns wants_more ");
  const json::object flood = context.at("groups").as_array().at(1).as_object();
  EXPECT_EQ(flood.at("path").as_string(), "flood");
  EXPECT_DOUBLE_EQ(flood.at("share_got").as_double(), 0.9);
  EXPECT_DOUBLE_EQ(flood.at("share_asked").as_double(), 0.5);
  EXPECT_DOUBLE_EQ(flood.at("refused_per_second").as_double(), 73);
  EXPECT_EQ(context.at("group_count").to_number<int>(), 2);
}

template <class Of>
void describe(std::string& table, const std::string& list) {
  for (const figure<Of>& row : figure_table<Of>) {
    if (row.json.empty()) continue;
    table += "| `" + list + "." + std::string(row.json) + "` | " + std::string(row.help) + " |\n";
  }
}

TEST(top_command, the_readme_has_each_figure) {
  std::string table = "| figure | meaning |\n|---|---|\n";
  describe<asio_pulse::worker_metrics>(table, ".workers[]");
  describe<asio_pulse::task_metrics>(table, ".tasks[]");
  describe<asio_pulse::site_metrics>(table, ".sites[]");
  describe<asio_pulse::group_metrics>(table, ".groups[]");
  describe<asio_pulse::shard_metrics>(table, ".shard");
  pulse_test::expect_table(ASIO_PULSE_TOP_MD, table);
}

TEST(top_command, hostile_names_stay_text) {
  ASSERT_TRUE(made::use_utf8());
  const auto before = made::hostile(0);
  const picture p = make_picture(made::hostile(1), &before);
  const json::object top = json::parse(json_text(p)).as_object();  // throws if it is none
  EXPECT_TRUE(has(std::string(top.at("program").as_string()), "\\x1b[2J"));
  for (const std::string& text : {json_text(p), plain_text(p, 120, charset::utf8)}) {
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      ASSERT_TRUE((byte >= 0x20 && byte != 0x7f) || c == '\n') << static_cast<int>(byte);
    }
    EXPECT_FALSE(has(text, "\u202e"));
  }
}

TEST(top_command, a_process_that_ends_is_a_sentence_and_status_one) {
  made::machine m;
  m.listed = {{123, "server"}};
  m.answers[123].push_back({made::server(0)});
  const outcome o = run(m, {"--once", "--interval", "0.1"});
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(o.error, "pulse_top: process 123 has ended\n");
}

TEST(top_command, a_process_that_never_was) {
  made::machine m;
  const outcome o = run(m, {"77", "--once"});
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(o.error, "pulse_top: there is no process 77\n");
}

TEST(top_command, what_the_inspector_says_is_passed_on) {
  made::machine m;
  m.answers[9].push_back(
      {{}, make_error_code(std::errc::permission_denied), "process 9 is another user's"});
  m.answers[9].push_back({});
  const outcome o = run(m, {"9", "--json"});
  EXPECT_EQ(o.status, 1);
  EXPECT_EQ(o.error, "pulse_top: process 9 is another user's\n");
}

TEST(top_command, several_processes_are_listed) {
  made::machine m;
  m.listed = {{123, "server"}, {456, "evil\x1b[2J"}};
  const outcome o = run(m, {"--once"});
  EXPECT_EQ(o.status, 2);
  EXPECT_EQ(o.out, "       123  server\n       456  evil\\x1b[2J\n");
  EXPECT_EQ(o.error, "pulse_top: 2 processes can be inspected; choose one by its number\n");
  EXPECT_EQ(m.requests, 0U);
}

TEST(top_command, no_process_is_a_sentence) {
  made::machine m;
  EXPECT_TRUE(has(run(m, {"--once"}).error, "no process of this user has an asio_pulse"));
  const outcome o = run(m, {"x\x1b", "--once"});
  EXPECT_EQ(o.status, 1);
  EXPECT_TRUE(has(o.error, R"(named "x\x1b")")) << o.error;
  m.list_error = make_error_code(std::errc::permission_denied);
  EXPECT_TRUE(has(run(m, {"--once"}).error, "cannot be listed"));
}

TEST(top_command, a_name_that_is_long_is_cut_in_the_sentence) {
  made::machine m;
  const outcome o = run(m, {"--once", "\x1b[2J" + std::string(10'000, 'a')});
  EXPECT_EQ(o.status, 1);
  EXPECT_LT(o.error.size(), 300U) << o.error;
  EXPECT_TRUE(has(o.error, "named \"\\x1b[2Jaaa")) << o.error;
}

TEST(top_command, names_are_as_the_kernel_cuts_them) {
  made::machine m;
  m.listed = {{1, "a_very_long_nam"}, {2, "a_very_long"}};
  EXPECT_EQ(find_target(m, "a_very_long_name_indeed").pid, 1U);
  EXPECT_EQ(find_target(m, "a_very_long").pid, 2U);
  EXPECT_FALSE(find_target(m, "a_very").pid);
  EXPECT_EQ(find_target(m, "77").pid, 77U);
  EXPECT_EQ(find_target(m, "").choice.size(), 2U);
}

TEST(top_command, without_a_terminal_it_says_so) {
  made::machine m;
  serve(m, 1);
  const outcome o = run(m, {"server"});
  EXPECT_EQ(o.status, 2);
  EXPECT_EQ(
      o.error,
      "pulse_top: stdout is not a terminal; use --once for a table or --json for a JSON object\n");
}

TEST(top_command, bad_arguments_are_refused) {
  made::machine m;
  serve(m, 1);
  const std::vector<std::vector<std::string>> bad{{"--nonsense"},
                                                  {"--interval", "0"},
                                                  {"--interval", "nan"},
                                                  {"--interval", "61"},
                                                  {"--interval", "x"},
                                                  {"--json", "--count", "0"},
                                                  {"--count", "3"},
                                                  {"--once", "--json"},
                                                  {"--trace", "-1"},
                                                  {"--trace", "61"},
                                                  {"--trace", "1", "--once"},
                                                  {"--out", "x.pulse"},
                                                  {"a", "b"}};
  for (const auto& arguments : bad) {
    const outcome o = run(m, arguments);
    EXPECT_EQ(o.status, 2) << arguments[0] << ' ' << o.error;
    EXPECT_FALSE(o.error.empty());
    EXPECT_EQ(o.out, "");
  }
  EXPECT_EQ(m.requests, 0U);
  EXPECT_EQ(run(m, {"--help"}).status, 0);
  EXPECT_TRUE(has(run(m, {"--version"}).out, "pulse_top 0."));
}

class folder {
 public:
  folder() : before_(std::filesystem::current_path()) {
    std::string name = (std::filesystem::temp_directory_path() / "pulse_top_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
    std::filesystem::current_path(path_);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() {
    std::error_code ignored;
    std::filesystem::current_path(before_, ignored);
    std::filesystem::remove_all(path_, ignored);
  }

 private:
  std::filesystem::path before_;
  std::filesystem::path path_;
};

TEST(top_trace, both_files_are_written) {
  const folder here;
  made::machine m;
  serve(m, 1);
  m.recorded.pid = 123;
  m.recorded.program = "server";
  m.recorded.length = 1s;
  const outcome o = run(m, {"--trace", "0", "--out", "x.pulse"});
  EXPECT_EQ(o.status, 0) << o.error;
  EXPECT_EQ(o.out, "0 events in x.pulse and x.json\n");
  std::error_code ec;
  EXPECT_EQ(asio_pulse::read_recording("x.pulse", ec).program, "server");
  EXPECT_FALSE(ec);
  std::ifstream file("x.json");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NO_THROW((void)json::parse(text.str()));
  // Nothing else is left behind.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator("."), {}), 2);
}

TEST(top_trace, the_next_free_name_is_taken) {
  const folder here;
  EXPECT_EQ(free_files("../a b\x1b", 5).recording, "_.._a_b_.5.1.pulse");
  EXPECT_EQ(free_files("", 5).recording, "_.5.1.pulse");
  std::ofstream("server.5.1.json") << "x";
  EXPECT_EQ(free_files("server", 5).json, "server.5.2.json");
  EXPECT_EQ(files_of("a/b.json").recording, "a/b.pulse");
  EXPECT_EQ(files_of("a/b").json, "a/b.json");
  EXPECT_EQ(files_of(".pulse").recording, ".pulse.pulse");
}

TEST(top_trace, a_file_that_cannot_be_written_is_status_one) {
  const folder here;
  made::machine m;
  serve(m, 1);
  const outcome o = run(m, {"--trace", "0", "--out", "nowhere/x.pulse"});
  EXPECT_EQ(o.status, 1);
  EXPECT_TRUE(has(o.error, "nowhere/x.pulse")) << o.error;
  EXPECT_EQ(m.connections, 0U) << "it was recorded for nothing";
}

TEST(top_trace, a_recording_is_kept_and_named_where_its_json_cannot_be_written) {
  const folder here;
  made::machine m;
  serve(m, 1);
  std::filesystem::create_directory("x.json");
  const outcome o = run(m, {"--trace", "0", "--out", "x.pulse"});
  EXPECT_EQ(o.status, 1);
  EXPECT_TRUE(has(o.error, "\"x.json\" exists and is not a regular file")) << o.error;
  EXPECT_TRUE(has(o.error, "the recording is in x.pulse")) << o.error;
  std::error_code ec;
  (void)asio_pulse::read_recording("x.pulse", ec);
  EXPECT_FALSE(ec);
}

TEST(top_watcher, connects_again_after_a_failure) {
  made::machine m;
  m.answers[5].push_back({made::server(0)});
  m.answers[5].push_back({{}, make_error_code(std::errc::timed_out), "no answer"});
  m.answers[5].push_back({made::server(1)});
  watcher w(m, 5);
  EXPECT_TRUE(w.read().metrics);
  const reading failed = w.read();
  EXPECT_FALSE(failed.metrics);
  EXPECT_FALSE(failed.ended);
  EXPECT_EQ(failed.trouble, "no answer");
  EXPECT_TRUE(w.read().metrics);
  EXPECT_EQ(m.connections, 2U);
  const reading last = w.read();
  EXPECT_TRUE(last.ended);
  EXPECT_EQ(last.trouble, "process 5 has ended");
}

TEST(top_watcher, the_first_reading_is_one_that_has_figures) {
  made::machine m;
  asio_pulse::process_metrics begins = made::server(0);
  begins.contexts[0].collecting = false;
  m.answers[5] = {{begins}, {made::server(0)}, {made::server(1)}};
  EXPECT_TRUE(watcher(m, 5).read_first().metrics->contexts[0].collecting);
  EXPECT_EQ(m.requests, 2U);
  EXPECT_TRUE(watcher(m, 5).read_first().metrics);  // collecting already: one is enough
  EXPECT_EQ(m.requests, 3U);
}

TEST(top_watcher, the_sampler_hands_out_readings_until_the_end) {
  made::machine m;
  m.answers[5] = {{made::server(0)}, {made::server(1)}};
  sampler s(watcher(m, 5), 1ms);
  const auto end = std::chrono::steady_clock::now() + 20s;
  bool ended = false;
  while (!ended && std::chrono::steady_clock::now() < end) {
    const auto r = s.take();
    if (!r) {
      std::this_thread::yield();
      continue;
    }
    ended = r->ended;
  }
  EXPECT_TRUE(ended);
  EXPECT_EQ(m.requests, 3U);  // none after the one that failed
}

TEST(top_watcher, no_request_while_paused) {
  made::machine m;
  m.answers[5] = {{made::server(0)}, {made::server(1)}};
  sampler s(watcher(m, 5), 1h);
  s.pause(true);
  s.set_interval(1ms);
  EXPECT_FALSE(s.take());
  s.pause(false);
  const auto end = std::chrono::steady_clock::now() + 20s;
  std::optional<reading> r;
  while (!r && std::chrono::steady_clock::now() < end) r = s.take();
  EXPECT_TRUE(r);
}

// ---- outputs that fail

/// A stream of this process that is another file while it lives.
class redirected {
 public:
  redirected(std::FILE* stream, const char* path)
      : stream_(stream), number_(::fileno(stream)), kept_(::dup(number_)) {
    std::fflush(stream_);
    const int file = ::open(path, O_WRONLY | O_CLOEXEC);
    works_ = kept_ >= 0 && file >= 0 && ::dup2(file, number_) >= 0;
    if (file >= 0) ::close(file);
  }
  redirected(const redirected&) = delete;
  redirected& operator=(const redirected&) = delete;
  ~redirected() {
    std::fflush(stream_);
    std::clearerr(stream_);
    std::cout.clear();
    ::dup2(kept_, number_);
    ::close(kept_);
  }
  [[nodiscard]] bool works() const { return works_; }

 private:
  std::FILE* stream_;
  int number_;
  int kept_;
  bool works_ = false;
};

TEST(top_command, a_full_stderr_does_not_change_the_status) {
  made::machine m;
  char name[] = "pulse_top";
  char nonsense[] = "--nonsense";
  char* argv[] = {name, nonsense, nullptr};
  const redirected full(stderr, "/dev/full");
  if (!full.works()) GTEST_SKIP() << "there is no /dev/full";
  EXPECT_EQ(run_command(2, argv, m), bad_usage);
  EXPECT_EQ(complain("no reader", cannot), cannot);
}

TEST(top_command, help_that_cannot_be_written_is_no_success) {
  made::machine m;
  for (std::string option : {"--help", "--version"}) {
    char name[] = "pulse_top";
    char* argv[] = {name, option.data(), nullptr};
    const redirected full(stdout, "/dev/full");
    if (!full.works()) GTEST_SKIP() << "there is no /dev/full";
    testing::internal::CaptureStderr();
    EXPECT_EQ(run_command(2, argv, m), cannot);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "pulse_top: the output cannot be written\n");
  }
}

// A process that ignores SIGHUP used to read the end of its input for ever, with all of a CPU.
TEST(top_command, the_screen_ends_with_its_terminal) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0 || ::grantpt(terminal) != 0 || ::unlockpt(terminal) != 0) {
    GTEST_SKIP() << "this machine has no pseudo terminals";
  }
  const std::string name = ::ptsname(terminal);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::setsid();
    ::signal(SIGHUP, SIG_IGN);
    ::setenv("TERM", "xterm", 1);
    const int other_end = ::open(name.c_str(), O_RDWR);
    for (const int number : {0, 1, 2}) ::dup2(other_end, number);
    if (other_end > 2) ::close(other_end);
    ::close(terminal);
    made::machine m;
    serve(m, 3);
    ::_exit(run_screen(m, "123", 1s));
  }
  char bytes[4096];
  pollfd look{.fd = terminal, .events = POLLIN, .revents = 0};
  const ssize_t size = ::poll(&look, 1, 20'000) == 1 ? ::read(terminal, bytes, sizeof bytes) : 0;
  // A message that the terminal's type is not known has no escape sequences.
  const bool shown =
      std::string_view(bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0))).find('\x1b') !=
      std::string_view::npos;
  ::close(terminal);
  int status = 0;
  const auto end = std::chrono::steady_clock::now() + 20s;
  pid_t ended = 0;
  while ((ended = ::waitpid(child, &status, WNOHANG)) == 0 &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(10ms);
  }
  if (ended == 0) {
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
  }
  if (!shown) GTEST_SKIP() << "the terminal type xterm is not known here";
  EXPECT_EQ(ended, child) << "it goes on without a terminal";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == fine) << status;
}

}  // namespace
