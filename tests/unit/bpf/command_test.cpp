// SPDX-License-Identifier: BSL-1.0
//
// The command itself, as an operator calls it.
#include "check.hpp"
#include "service/socket_file.hpp"
#include "support.hpp"

#include <boost/json.hpp>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace bpf_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct outcome {
  int status = -1;
  std::string output;  ///< both streams
};

// `while_it_runs` is called until the command has ended.
outcome run(std::initializer_list<std::string> arguments,
            const std::function<void()>& while_it_runs = {}, bool as_nobody = false,
            int full_stream = -1) {
  int pipes[2];
  if (::pipe2(pipes, O_CLOEXEC) != 0) return {};
  unique_fd reading(pipes[0]);
  unique_fd writing(pipes[1]);
  std::vector<std::string> words{ASIO_PULSE_SCX_PULSE};
  words.insert(words.end(), arguments);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(writing.get(), 1);
    ::dup2(writing.get(), 2);
    if (full_stream >= 0) ::dup2(::open("/dev/full", O_WRONLY | O_CLOEXEC), full_stream);
    ::unsetenv(ASIO_PULSE_SOCKET_VARIABLE);
    if (as_nobody && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(126);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  writing.reset();
  int status = 0;
  if (while_it_runs) {
    while (::waitpid(child, &status, WNOHANG) == 0) while_it_runs();
  }
  outcome result;
  char buffer[4096];
  for (ssize_t got; (got = ::read(reading.get(), buffer, sizeof buffer)) > 0;) {
    result.output.append(buffer, static_cast<std::size_t>(got));
  }
  if (!while_it_runs) ::waitpid(child, &status, 0);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return result;
}

bool could_run_here() { return judge(look_at_machine("/nonexistent")).can_run; }

TEST(command, help_documents_options_and_statuses) {
  const outcome help = run({"--help"});
  EXPECT_EQ(help.status, 0);
  for (const char* const word :
       {"--mode", "--slice-ms", "--grace-ms", "--max-critical-ms", "--policy", "--throttle-percent",
        "--throttle-ms", "--socket", "--socket-mode", "--stats", "--json", "--debug", "status",
        "check", "set", "Exit status", "has ended the scheduler"}) {
    EXPECT_THAT(help.output, HasSubstr(word));
  }
  EXPECT_EQ(run({"set", "--help"}).status, 0);
}

TEST(command, nonsense_is_bad_usage_and_named) {
  struct usage {
    std::initializer_list<std::string> arguments;
    const char* name;
    const char* rule;
  };
  const usage wrong[] = {
      {{"--slice-ms", "0"}, "--slice-ms", "from 0.1 to 1000 ms"},
      {{"--slice-ms", "-1"}, "--slice-ms", "from 0.1 to 1000 ms"},
      {{"--slice-ms", "nan"}, "--slice-ms", "from 0.1 to 1000 ms"},
      {{"--slice-ms", "inf"}, "--slice-ms", "from 0.1 to 1000 ms"},
      {{"--slice-ms", "5ms"}, "--slice-ms", "must be a number"},
      {{"--slice-ms", ""}, "--slice-ms", ""},
      {{"--slice-ms"}, "--slice-ms", "required"},
      {{"--slice-ms", "5", "--slice-ms", "6"}, "--slice-ms", ""},
      {{"--grace-ms", "60001"}, "--grace-ms", "from 0 to 60000 ms"},
      {{"--max-critical-ms", "1001"}, "--max-critical-ms", "from 0 to 1000 ms"},
      {{"--throttle-percent", "0"}, "--throttle-percent", "from 1 to 100"},
      {{"--throttle-percent", "101"}, "--throttle-percent", "from 1 to 100"},
      {{"--throttle-percent", "12.5"}, "--throttle-percent", ""},
      {{"--throttle-ms", "0"}, "--throttle-ms", "from 1 to 60000 ms"},
      {{"--mode", "brutal"}, "--mode", "observer, enforced"},
      {{"--mode", "Enforced"}, "--mode", "observer, enforced"},
      {{"--policy", "lifo"}, "--policy", "round-robin, priority, fair"},
      {{"--socket-mode", "0999"}, "--socket-mode", "octal"},
      {{"--socket-mode", "1777"}, "--socket-mode", "0 to 0777"},
      {{"--stats", "0"}, "--stats", "from 0.1"},
      {{"--unknown"}, "--unknown", "not expected"},
      {{"nonsense"}, "nonsense", "not expected"},
      {{"status", "--slice-ms", "5"}, "--slice-ms", "does not go with the subcommand status"},
      {{"--mode", "enforced", "check"}, "--mode", "does not go with the subcommand check"},
      {{"set"}, "set", "names nothing to change"},
      {{"set", "--slice-ms", "0"}, "--slice-ms", "from 0.1 to 1000 ms"},
      {{"set", "--policy", "fair"}, "--policy", "does not go with the subcommand set"},
      {{"status", "check"}, "check", ""},
  };
  for (const usage& one : wrong) {
    const outcome got = run(one.arguments);
    EXPECT_EQ(got.status, 2) << one.name << ": " << got.output;
    EXPECT_THAT(got.output, HasSubstr(one.name));
    EXPECT_THAT(got.output, HasSubstr(one.rule));
  }
}

TEST(command, check_says_what_is_missing_and_what_to_do) {
  const temporary_folder folder;
  const outcome text = run({"check", "--socket", folder / "none"});
  EXPECT_EQ(text.status, could_run_here() ? 0 : 1);
  if (!std::filesystem::exists("/sys/kernel/sched_ext")) {
    EXPECT_EQ(text.status, 1);
    EXPECT_THAT(text.output, HasSubstr("this kernel has no sched_ext"));
    EXPECT_THAT(text.output, HasSubstr("CONFIG_SCHED_CLASS_EXT=y"));
  }
  const outcome as_json = run({"--json", "check", "--socket", folder / "none"});
  EXPECT_EQ(as_json.status, text.status);
  EXPECT_EQ(boost::json::parse(as_json.output).at("can_run").as_bool(), text.status == 0);
}

TEST(command, check_without_privilege_names_the_capabilities) {
  if (::geteuid() == 0) {
    const outcome got = run({"check", "--socket", "/nonexistent"}, {}, true);
    if (got.status >= 126) GTEST_SKIP() << "nobody cannot reach the command";
    EXPECT_EQ(got.status, 1);
    EXPECT_THAT(got.output, HasSubstr("CAP_SYS_ADMIN is not in effect"));
    EXPECT_THAT(got.output, HasSubstr("run scx_pulse as root"));
  } else {
    EXPECT_EQ(run({"check", "--socket", "/nonexistent"}).status, 1);
  }
}

TEST(command, says_why_it_cannot_run_and_leaves_no_socket) {
  if (could_run_here()) GTEST_SKIP() << "it could run here";
  const temporary_folder folder;
  const outcome got = run({"--socket", folder / "socket"});
  EXPECT_EQ(got.status, 1);
  EXPECT_THAT(got.output, HasSubstr("scx_pulse: "));
  if (!std::filesystem::exists("/sys/kernel/sched_ext")) {
    EXPECT_THAT(got.output, HasSubstr("CONFIG_SCHED_CLASS_EXT=y"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "socket"));
}

TEST(command, does_not_touch_a_file_in_its_sockets_place) {
  const temporary_folder folder;
  const std::string path = folder / "precious";
  std::ofstream(path) << "precious";
  const outcome got = run({"--socket", path});
  EXPECT_EQ(got.status, 1);
  EXPECT_THAT(got.output, HasSubstr("is not a socket, so it is not replaced"));
  EXPECT_EQ(std::filesystem::file_size(path), 8U);
}

TEST(command, status_without_a_scx_pulse_says_so) {
  const temporary_folder folder;
  const outcome got = run({"status", "--socket", folder / "none"});
  EXPECT_EQ(got.status, 1);
  EXPECT_THAT(got.output, HasSubstr("scx_pulse is not running"));
  EXPECT_THAT(got.output, HasSubstr("start `scx_pulse` as root"));
}

using command_served = service_test;

TEST_F(command_served, status_is_text_or_json) {
  state_.pressure = {.cpu = 33, .io = 0, .memory = 0, .known = true};
  start();
  const auto pump_it = [this] { pump(); };
  const outcome text = run({"status", "--socket", options_.path}, pump_it);
  EXPECT_EQ(text.status, 0) << text.output;
  EXPECT_THAT(text.output, HasSubstr("mode: observer\n"));
  EXPECT_THAT(text.output, HasSubstr("cpu_percent=33"));
  const outcome as_json = run({"status", "--socket", options_.path, "--json"}, pump_it);
  EXPECT_EQ(as_json.status, 0) << as_json.output;
  EXPECT_EQ(boost::json::parse(as_json.output).at("pressure").at("cpu_percent").as_int64(), 33);
}

// As on a full disk.
TEST_F(command_served, a_status_that_cannot_be_written_is_no_success) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "there is no /dev/full";
  start();
  const auto pump_it = [this] { pump(); };
  for (const char* const format : {"", "--json"}) {
    const outcome got = *format == '\0'
                            ? run({"status", "--socket", options_.path}, pump_it, false, 1)
                            : run({"status", "--socket", options_.path, format}, pump_it, false, 1);
    EXPECT_EQ(got.status, 1) << format;
    EXPECT_THAT(got.output, HasSubstr("the output cannot be written"));
  }
  EXPECT_EQ(run({"--help"}, {}, false, 1).status, 1);
  EXPECT_EQ(run({"--nonsense"}, {}, false, 2).status, 2);
}

/// Answers one request with this text, as no scx_pulse does.
class impostor {
 public:
  impostor(const std::string& path, asio_pulse_refusal refused, std::string text)
      : socket_(path, 0600), refused_(refused), text_(std::move(text)) {}

  void pump() {
    const unique_fd peer(::accept(socket_.fd(), nullptr, nullptr));
    asio_pulse_request request{};
    if (!peer || ::recv(peer.get(), &request, sizeof request, 0) <= 0) return;
    asio_pulse_reply reply{.magic = ASIO_PULSE_PROTOCOL_MAGIC,
                           .abi_version = ASIO_PULSE_ABI_VERSION,
                           .kind = request.kind,
                           .refusal = static_cast<std::uint32_t>(refused_),
                           .slot = 0,
                           .slots = 0,
                           .text_bytes = static_cast<std::uint32_t>(text_.size()),
                           .text = {}};
    text_.copy(reply.text, sizeof reply.text);
    (void)::send(peer.get(), &reply, offsetof(asio_pulse_reply, text) + text_.size(), MSG_NOSIGNAL);
  }

 private:
  socket_file socket_;
  asio_pulse_refusal refused_;
  std::string text_;
};

bool for_a_terminal(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); });
}

// The socket may be named by a variable of the environment, and be that of any program.
TEST(command, what_another_program_answers_is_safe_for_a_terminal) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  const auto answer_of = [&](asio_pulse_refusal refused, const std::string& text,
                             std::initializer_list<std::string> words) {
    impostor server(path, refused, text);
    return run(words, [&server] { server.pump(); });
  };
  const outcome refusal =
      answer_of(ASIO_PULSE_REFUSED_INTERNAL, "no \x1b[2J\x9b", {"status", "--socket", path});
  EXPECT_EQ(refusal.status, 1);
  EXPECT_EQ(refusal.output, "scx_pulse: no \\x1b[2J\\x9b\n");
  const std::string object = R"({"a\u001b[2J":"\u001b[3J\u009b","o":{"\u001b":"\u001b\u009b"}})";
  const outcome text = answer_of(ASIO_PULSE_OK, object, {"status", "--socket", path});
  EXPECT_EQ(text.status, 0) << text.output;
  EXPECT_TRUE(for_a_terminal(text.output)) << text.output;
  const std::string raw = "{\"a\":\"\x7f\xc2\x9b\"}";
  const outcome as_json = answer_of(ASIO_PULSE_OK, raw, {"status", "--json", "--socket", path});
  EXPECT_EQ(as_json.output, "{\"a\":\"\\u007f\\u009b\"}\n");
  const outcome no_json =
      answer_of(ASIO_PULSE_OK, "\x1b[2J", {"status", "--json", "--socket", path});
  EXPECT_EQ(no_json.status, 1);
  EXPECT_TRUE(for_a_terminal(no_json.output)) << no_json.output;
}

TEST_F(command_served, set_changes_and_is_refused_to_others) {
  hooks_.change = [this](const scx_pulse_settings& to, uid_t) { state_.settings = to; };
  start();
  const auto pump_it = [this] { pump(); };
  const outcome done =
      run({"set", "--slice-ms", "2.5", "--mode", "enforced", "--socket", options_.path}, pump_it);
  EXPECT_EQ(done.status, 0) << done.output;
  EXPECT_EQ(state_.settings.slice_ns, 2'500'000U);
  EXPECT_EQ(state_.settings.mode, ASIO_PULSE_MODE_ENFORCED);
  EXPECT_EQ(state_.settings.grace_ns, 100'000'000U);

  hooks_.may_change = [](uid_t) { return false; };
  stop();
  start();
  const outcome refused = run({"set", "--slice-ms", "7", "--socket", options_.path}, pump_it);
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.output, HasSubstr("may not change the settings"));
  EXPECT_EQ(state_.settings.slice_ns, 2'500'000U);
}

TEST_F(command_served, check_names_the_source_of_hints) {
  start();
  const outcome got = run({"check", "--json", "--socket", options_.path}, [this] { pump(); });
  const boost::json::value parsed = boost::json::parse(got.output);
  EXPECT_EQ(parsed.at("hint_source").as_string(), "scx_pulse");
}

TEST_F(command_served, a_second_scx_pulse_is_refused) {
  start();
  const outcome got = run({"--socket", options_.path}, [this] { pump(); });
  EXPECT_EQ(got.status, 1);
  EXPECT_THAT(got.output, HasSubstr("another scx_pulse serves"));
  EXPECT_TRUE(std::filesystem::is_socket(options_.path));
}

}  // namespace
}  // namespace bpf_test
