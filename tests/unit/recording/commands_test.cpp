// SPDX-License-Identifier: BSL-1.0
//
// The commands for recordings, from the words on the command line to the exit status.

#if defined(ASIO_PULSE_TEST_COMMANDS) && defined(ASIO_PULSE_TEST_JSON)

#include "recording_commands.hpp"
#include "sample.hpp"

#include <asio_pulse/version.hpp>

#include <boost/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace asio_pulse::tools {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using namespace std::chrono_literals;
using test::poll_at;
using testing::HasSubstr;
using testing::StartsWith;

TEST(parse_duration, takes_a_number_and_a_unit) {
  EXPECT_EQ(parse_duration("5ms"), 5ms);
  EXPECT_EQ(parse_duration("1.5us"), 1500ns);
  EXPECT_EQ(parse_duration("7ns"), 7ns);
  EXPECT_EQ(parse_duration("3600s"), 1h);
  EXPECT_EQ(parse_duration("0"), 0ns);
  EXPECT_EQ(parse_duration("0.1ms"), 100us);
}

TEST(parse_duration, takes_nothing_else) {
  for (const char* const text :
       {"", "5", "ms", "5 ms", " 5ms", "5ms ", "5MS", "5m", "-1ms", "-0.1ns", "nanms", "infs",
        "1e3ms", "3601s", "5msx", "0x5ms", "+5ms"}) {
    EXPECT_EQ(parse_duration(text), std::nullopt) << text;
  }
}

class recording_commands : public testing::Test {
 protected:
  recording_commands() {
    folder_ = fs::temp_directory_path() /
              ("asio_pulse_commands_" + std::to_string(std::random_device{}()));
    fs::create_directory(folder_);
    file_ = (folder_ / "a.pulse").string();
  }
  ~recording_commands() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  void save(const recording& r) const {
    std::error_code ec;
    write_recording(r, file_, ec);
    ASSERT_FALSE(ec) << ec.message();
  }
  int run(const std::vector<std::string>& words) {
    std::vector<const char*> arguments{"pulse_recording"};
    for (const std::string& word : words) arguments.push_back(word.c_str());
    return run_command(static_cast<int>(arguments.size()), arguments.data(), out_, faults_);
  }

  fs::path folder_;
  std::string file_;
  std::ostringstream out_;
  std::ostringstream faults_;
};

// The first example of replay_test.cpp, under a name that no terminal should see.
recording storm() {
  recording r;
  r.program = "server";
  r.settings = {.stall_threshold = 5ms, .yield_threshold = 20ms, .isolate_threshold = 50ms};
  r.tasks = {{1, "sto\x1b[31mrm\xff\xc2\x9b", 6ms, 60ms, 6ms}, {2, "", 0ns, 3ms, 0ns}};
  r.workers = {{1, 0, {poll_at(0ms, 1, 25ms), poll_at(25ms, 1, 25ms), poll_at(50ms, 2, 1ms)}}};
  return r;
}

// Enough of it to judge.
recording storms() {
  recording r = storm();
  r.tasks[0] = {1, "storm", 60ms, 60ms, 0ns};
  r.length = 4s;
  r.workers[0].events.clear();
  for (int i = 0; i < 40; ++i) {
    for (int n = 0; n < 30; ++n) {
      r.workers[0].events.push_back(poll_at(i * 100ms + n * 2ms, n < 25 ? 1 : 2, 2ms));
    }
  }
  return r;
}

TEST_F(recording_commands, replay_as_recorded) {
  save(storm());
  EXPECT_EQ(run({"replay", file_}), fine) << faults_.str();
  EXPECT_THAT(out_.str(), HasSubstr("3 polls on 1 workers"));
  EXPECT_THAT(out_.str(), HasSubstr("50.000 -> 25.000"));
  EXPECT_THAT(out_.str(), HasSubstr("sto\\x1b[31mrm\\xff\\u{9b}"));
  EXPECT_EQ(out_.str().find('\x1b'), std::string::npos);
  EXPECT_EQ(faults_.str(), "");
}

TEST_F(recording_commands, replay_under_other_settings_as_json) {
  save(storm());
  EXPECT_EQ(run({"replay", file_, "--yield-threshold", "30ms", "--isolate-threshold", "0",
                 "--yield-after", "0", "--budget", "6ms", "--json"}),
            fine)
      << faults_.str();
  const json::value o = json::parse(out_.str());
  EXPECT_EQ(o.at("put_back").to_number<int>(), 0);
  EXPECT_EQ(o.at("others_after").at("p99_ns").to_number<int>(), 50'000'000);
  EXPECT_EQ(o.at("settings").at("yield_threshold_ns").to_number<int>(), 30'000'000);
  EXPECT_EQ(o.at("settings").at("yield_after").to_number<int>(), 0);
  EXPECT_EQ(o.at("settings").at("budget_ns").to_number<int>(), 6'000'000);
  EXPECT_TRUE(o.at("settings").at("per_ns").is_null());
  EXPECT_EQ(o.at("tasks").at(0).at("name").as_string(), "sto\x1b[31mrm\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(out_.str().find('\x1b'), std::string::npos);
  EXPECT_EQ(out_.str().find("\xc2\x9b"), std::string::npos);
}

TEST_F(recording_commands, replay_names_the_option_and_the_rule) {
  save(storm());
  EXPECT_EQ(run({"replay", file_, "--budget", "5\x1b[2Jms"}), bad_usage);
  EXPECT_EQ(faults_.str(),
            "pulse_recording: --budget: must be a number with a unit (ns, us, ms, s), from 0 to "
            "1h, such as 5ms (got \"5\\x1b[2Jms\"); see --help\n");
  faults_.str({});
  EXPECT_EQ(run({"replay", file_, "--yield-threshold", "1ms"}), bad_usage);
  EXPECT_EQ(faults_.str(),
            "pulse_recording replay: --yield-threshold must not be below stall_threshold = 5ms "
            "(got 1ms)\n");
  faults_.str({});
  EXPECT_EQ(run({"replay", file_, "--budget", "2ms", "--per", "1ms"}), bad_usage);
  EXPECT_EQ(faults_.str(),
            "pulse_recording replay: --budget must not exceed per = 1ms (got 2ms)\n");
  faults_.str({});
  EXPECT_EQ(run({"replay", file_, "--yield-after", "256"}), bad_usage);
  EXPECT_EQ(faults_.str(),
            "pulse_recording: --yield-after: must be a whole number from 0 to 255 (got \"256\"); "
            "see --help\n");
  EXPECT_EQ(run({"replay"}), bad_usage);
  EXPECT_EQ(run({"replay", file_, "--nonsense"}), bad_usage);
  EXPECT_EQ(out_.str(), "");
}

TEST_F(recording_commands, help_and_version_are_answers_and_no_faults) {
  EXPECT_EQ(run({"--help"}), fine);
  for (const char* const command : {"replay", "tune", "trace"}) {
    EXPECT_THAT(out_.str(), HasSubstr(command));
  }
  out_.str({});
  EXPECT_EQ(run({"--version"}), fine);
  EXPECT_EQ(out_.str(), ASIO_PULSE_VERSION "\n");
  EXPECT_EQ(faults_.str(), "");
}

TEST_F(recording_commands, what_was_typed_cannot_reach_the_terminal_raw) {
  EXPECT_EQ(run({}), bad_usage);
  EXPECT_EQ(run({"replay", file_, "--non\x1b[2Jsense"}), bad_usage);
  EXPECT_THAT(faults_.str(), HasSubstr("\\x1b[2J"));
  EXPECT_EQ(faults_.str().find('\x1b'), std::string::npos);
  EXPECT_EQ(out_.str(), "");
}

TEST_F(recording_commands, fail_where_there_is_no_recording) {
  for (const char* const command : {"replay", "tune"}) {
    faults_.str({});
    EXPECT_EQ(run({command, file_}), failed);
    EXPECT_THAT(faults_.str(),
                StartsWith("pulse_recording " + std::string(command) + ": recording: file: "));
  }
  std::ofstream(file_) << "something else";
  faults_.str({});
  EXPECT_EQ(run({"trace", file_, "--out", file_ + ".json"}), failed);
  EXPECT_EQ(faults_.str(), "pulse_recording trace: recording: file: \"" + file_ +
                               "\": magic: this is not a recording of asio-pulse\n");
  EXPECT_FALSE(fs::exists(file_ + ".json"));
}

TEST_F(recording_commands, fail_where_the_recordings_settings_are_out_of_range) {
  recording r = storm();
  r.settings.tiers.clean_window = 0ns;
  save(r);
  EXPECT_EQ(run({"replay", file_}), failed);
  EXPECT_THAT(faults_.str(),
              StartsWith("pulse_recording replay: recording: settings: asio_pulse::options."
                         "tiers.clean_window must be positive"));
}

TEST_F(recording_commands, fail_where_the_answer_cannot_be_written) {
  save(storm());
  out_.setstate(std::ios::badbit);
  EXPECT_EQ(run({"replay", file_}), failed);
  EXPECT_EQ(faults_.str(), "pulse_recording replay: the result could not be written completely\n");
  faults_.str({});
  EXPECT_EQ(run({"--version"}), failed);
  EXPECT_EQ(faults_.str(), "pulse_recording: the result could not be written completely\n");
}

TEST_F(recording_commands, tune_prints_lines_to_paste) {
  save(storms());
  EXPECT_EQ(run({"tune", file_, "--goal-p99", "40ms"}), fine) << faults_.str();
  EXPECT_THAT(out_.str(), HasSubstr("wait for 40ms at most"));
  EXPECT_THAT(out_.str(), HasSubstr("// Proposal 1\nasio_pulse::options{\n"));
  out_.str({});
  EXPECT_EQ(run({"tune", file_, "--goal-p99", "40ms", "--json"}), fine);
  const json::value o = json::parse(out_.str());
  EXPECT_EQ(o.at("goal_p99_ns").to_number<int>(), 40'000'000);
  EXPECT_EQ(o.at("present").at("tasks_touched").to_number<int>(), 0);
  EXPECT_TRUE(o.at("proposals").at(0).at("reaches_goal").as_bool());
  EXPECT_EQ(o.at("proposals").at(0).at("proposed").at("tasks_touched").to_number<int>(), 1);
}

TEST_F(recording_commands, tune_says_when_there_is_nothing_to_do) {
  save(storms());
  EXPECT_EQ(run({"tune", file_, "--goal-p99", "1s"}), fine) << faults_.str();
  EXPECT_THAT(out_.str(), HasSubstr("the recording's settings reach the goal"));
  out_.str({});
  EXPECT_EQ(run({"tune", file_, "--goal-p99", "1s", "--json"}), fine);
  EXPECT_TRUE(json::parse(out_.str()).at("proposals").as_array().empty());
}

TEST_F(recording_commands, tune_does_not_judge_by_too_little) {
  save(storm());
  EXPECT_EQ(run({"tune", file_}), failed);
  EXPECT_THAT(faults_.str(),
              StartsWith("pulse_recording tune: the recording is too short to judge: "));
}

TEST_F(recording_commands, trace_writes_a_file_or_standard_output) {
  save(storm());
  const std::string trace = (folder_ / "trace.json").string();
  EXPECT_EQ(run({"trace", file_, "--out", trace}), fine) << faults_.str();
  std::ostringstream text;
  text << std::ifstream(trace).rdbuf();
  EXPECT_EQ(json::parse(text.str()).at("traceEvents").as_array().size(), 5U);
  EXPECT_EQ(run({"trace", file_, "--out", "-"}), fine);
  EXPECT_EQ(out_.str(), text.str());
  EXPECT_EQ(run({"trace", file_}), bad_usage);
  EXPECT_EQ(run({"trace", file_, "--out", (folder_ / "none" / "t.json").string()}), failed);
  EXPECT_THAT(faults_.str(), HasSubstr("pulse_recording trace: --out: file: "));
}

}  // namespace
}  // namespace asio_pulse::tools

#endif
