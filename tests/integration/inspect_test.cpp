// SPDX-License-Identifier: BSL-1.0
//
// A process inspects another one, which is itself or a child.

#include <support/inspecting.hpp>
#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/inspect.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
using asio_pulse::inspector;
using asio_pulse::instrument_mode;
using pulse_test::raw_client;

const auto self = static_cast<std::uint64_t>(::getpid());

asio_pulse::options named(std::string name) {
  asio_pulse::options o;
  o.name = std::move(name);
  o.on_report = [](const asio_pulse::report&) {};
  return o;
}

/// A context whose worker always has something to do.
class busy_context {
 public:
  explicit busy_context(asio_pulse::options o) : io_(std::move(o)) {
    pulse_test::let_run(io_);
    asio::post(io_, [this] { go_on(); });
    worker_ = std::jthread([this] { io_.run(); });
  }
  ~busy_context() { stop_ = true; }

 private:
  void go_on() {
    if (!stop_) asio::post(io_, [this] { go_on(); });
  }

  asio_pulse::io_context io_;
  std::atomic<bool> stop_{false};
  std::jthread worker_;
};

std::vector<std::uint64_t> pids() {
  std::error_code ec;
  std::vector<std::uint64_t> all;
  for (const auto& p : asio_pulse::inspectable_processes(ec)) all.push_back(p.pid);
  EXPECT_FALSE(ec) << ec.message();
  return all;
}

bool contains(const std::vector<std::uint64_t>& all, std::uint64_t pid) {
  return std::find(all.begin(), all.end(), pid) != all.end();
}

/// The thread that answers releases the name only after a while.
bool vanishes() {
  const auto patience = std::chrono::steady_clock::now() + 20s;
  while (contains(pids(), self)) {
    if (std::chrono::steady_clock::now() > patience) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

TEST(inspect, a_process_is_found_while_it_has_a_context) {
  {
    asio_pulse::io_context io(named("found"));
    pulse_test::let_run(io);
    EXPECT_TRUE(contains(pids(), self));
  }
  EXPECT_TRUE(vanishes());
  asio_pulse::io_context io(named("found again"));
  pulse_test::let_run(io);
  EXPECT_TRUE(contains(pids(), self));
}

TEST(inspect, a_context_can_decline) {
  auto o = named("hidden");
  o.inspectable = false;
  asio_pulse::io_context hidden(o);
  pulse_test::let_run(hidden);
  EXPECT_TRUE(vanishes());
  asio_pulse::io_context seen(named("seen"));
  pulse_test::let_run(seen);
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  ASSERT_FALSE(ec) << in.detail();
  const auto p = in.fetch({}, ec);
  ASSERT_FALSE(ec) << in.detail();
  ASSERT_EQ(p.contexts.size(), 1U);
  EXPECT_EQ(p.contexts[0].name, "seen");
}

TEST(inspect, what_is_fetched_is_what_the_process_would_say_itself) {
  busy_context busy(named("busy"));
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  ASSERT_FALSE(ec) << in.detail();
  asio_pulse::process_metrics p;
  const auto patience = std::chrono::steady_clock::now() + 20s;
  do {
    p = in.fetch({.top_tasks = 5, .top_sites = 3}, ec);
    ASSERT_FALSE(ec) << in.detail();
    ASSERT_EQ(p.contexts.size(), 1U);
  } while ((p.contexts[0].poll_duration.count == 0 || p.contexts[0].queue_delay.count == 0) &&
           std::chrono::steady_clock::now() < patience);
  EXPECT_EQ(p.pid, self);
  EXPECT_EQ(p.program, asio_pulse::collect().program);
  const auto& c = p.contexts[0];
  EXPECT_EQ(c.name, "busy");
  EXPECT_TRUE(c.collecting);
  EXPECT_GT(c.poll_duration.count, 0U);
  EXPECT_GT(c.queue_delay.count, 0U);
  ASSERT_EQ(c.workers.size(), 1U);
  EXPECT_NE(c.workers[0].thread, 0U);
  ASSERT_FALSE(c.sites.empty());
  EXPECT_LE(c.sites.size(), 3U);
}

TEST(inspect, a_trace_has_what_the_workers_did_meanwhile) {
  busy_context busy(named("busy"));
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  ASSERT_FALSE(ec) << in.detail();
  auto r = in.trace(200ms, ec);
  // On a busy machine the worker may not get the CPU for as long.
  const auto patience = std::chrono::steady_clock::now() + 20s;
  while (!ec && (r.workers.size() != 1 || r.workers[0].events.size() <= 100) &&
         std::chrono::steady_clock::now() < patience) {
    r = in.trace(200ms, ec);
  }
  ASSERT_FALSE(ec) << in.detail();
  EXPECT_EQ(r.pid, self);
  ASSERT_EQ(r.workers.size(), 1U);
  EXPECT_GT(r.workers[0].events.size(), 100U);
  EXPECT_GE(r.length, 190ms);
  EXPECT_TRUE(std::is_sorted(r.workers[0].events.begin(), r.workers[0].events.end(),
                             [](const auto& a, const auto& b) { return a.start() < b.start(); }));
  for (const auto& e : r.workers[0].events) ASSERT_LE(e.start(), r.length);
  // The connection is still good.
  (void)in.fetch({}, ec);
  EXPECT_FALSE(ec) << in.detail();
}

TEST(inspect, nobody_is_there) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  inspector in;
  std::error_code ec;
  in.connect(static_cast<std::uint64_t>(child), ec);
  EXPECT_EQ(ec, std::errc::no_such_process);
  EXPECT_NE(in.detail().find(std::to_string(child)), std::string::npos) << in.detail();
  EXPECT_FALSE(in.connected());
  (void)in.fetch({}, ec);
  EXPECT_EQ(ec, std::errc::not_connected);
}

TEST(inspect, nonsense_is_refused_in_a_sentence_and_the_next_client_is_served) {
  asio_pulse::io_context io(named("asked"));
  pulse_test::let_run(io);
  for (const std::string_view nonsense :
       {"\n", "hello\n", "asio-pulse/2 metrics 1 1\n", "asio-pulse/3 metrics\n",
        "asio-pulse/3 metrics 1 1 99999999999999999999\n", "asio-pulse/3 metrics -1 1 1\n",
        "asio-pulse/3 metrics 1 1\n", "asio-pulse/3 metrics 1 1 1001\n",
        "asio-pulse/3 metrics 1 1 1 1\n", "asio-pulse/3 trace 9999999 0\n",
        "asio-pulse/3 trace 1 777\n", "asio-pulse/3 fly\n"}) {
    const raw_client client(self);
    ASSERT_TRUE(client.connected());
    client.say(nonsense);
    const std::string answer = client.hear();
    EXPECT_TRUE(answer.starts_with("asio-pulse/3 error ")) << nonsense << answer;
    EXPECT_TRUE(answer.ends_with('\n'));
  }
  {
    const raw_client client(self);
    client.say(std::string(5000, 'x'));
    EXPECT_TRUE(client.hear().starts_with("asio-pulse/3 error "));
  }
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  (void)in.fetch({}, ec);
  EXPECT_FALSE(ec) << in.detail();
}

TEST(inspect, clients_that_say_nothing_do_not_keep_others_away) {
  asio_pulse::io_context io(named("asked"));
  pulse_test::let_run(io);
  std::vector<std::unique_ptr<raw_client>> silent;
  for (int i = 0; i < 20; ++i) silent.push_back(std::make_unique<raw_client>(self));
  silent.clear();
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  ASSERT_FALSE(ec) << in.detail();
  (void)in.fetch({}, ec, 15s);
  EXPECT_FALSE(ec) << in.detail();
}

TEST(inspect, contexts_come_and_go_while_they_are_looked_at) {
  asio_pulse::io_context always(named("always"));
  pulse_test::let_run(always);
  std::atomic<bool> stop{false};
  std::jthread looker([&] {
    inspector in;
    while (!stop) {
      std::error_code ec;
      if (!in.connected()) in.connect(self, ec);
      const auto p = in.fetch({}, ec);
      ASSERT_FALSE(ec) << in.detail();
      ASSERT_GE(p.contexts.size(), 1U);
      (void)in.trace(1ms, ec);
      ASSERT_FALSE(ec) << in.detail();
    }
  });
  for (int i = 0; i < 40; ++i) {
    busy_context busy(named("busy"));
    std::this_thread::sleep_for(5ms);
  }
  stop = true;
}

#if !defined(PULSE_TEST_TSAN)  // it does not follow threads into a fork
TEST(inspect, a_process_that_ends_while_it_is_looked_at) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    // A new context in the child is visible only after notify_fork(), since before that no threads
    // are started.
    asio_pulse::io_context io(named("child"));
    pulse_test::let_run(io);
    io.notify_fork(asio::execution_context::fork_child);
    const char yes = 'y';
    (void)!::write(ready[1], &yes, 1);
    auto work = asio::make_work_guard(io);
    io.run();
    ::_exit(0);
  }
  ::close(ready[1]);
  char answer = 0;
  ASSERT_EQ(::read(ready[0], &answer, 1), 1);
  inspector in;
  std::error_code ec;
  in.connect(static_cast<std::uint64_t>(child), ec);
  ASSERT_FALSE(ec) << in.detail();
  const auto p = in.fetch({}, ec);
  EXPECT_FALSE(ec) << in.detail();
  EXPECT_EQ(p.pid, static_cast<std::uint64_t>(child));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  (void)in.fetch({}, ec);
  EXPECT_TRUE(ec);
  EXPECT_FALSE(in.detail().empty());
  EXPECT_FALSE(in.connected());
  ::close(ready[0]);
}

// A child must not keep the parent's name in use.
TEST(inspect, a_child_does_not_answer_in_the_parents_name) {
  int hold[2];
  ASSERT_EQ(::pipe(hold), 0);
  pid_t child = 0;
  {
    asio_pulse::io_context io(named("parent"));
    pulse_test::let_run(io);
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    child = ::fork();
    if (child == 0) {
      const char yes = 'y';
      (void)!::write(ready[1], &yes, 1);
      ::close(hold[1]);
      char byte = 0;
      (void)!::read(hold[0], &byte, 1);
      ::_exit(0);
    }
    ::close(ready[1]);
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    EXPECT_TRUE(contains(pids(), self));
  }
  EXPECT_TRUE(vanishes());
  ::close(hold[1]);
  ::close(hold[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
}

#endif

TEST(inspect, a_stall_leaves_a_recording_behind_where_that_is_wanted) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("asio_pulse_" + std::to_string(self));
  std::filesystem::create_directory(folder);
  auto o = named("recorded");
  o.trace = instrument_mode::on;
  o.trace_folder = folder.string();
  o.stall_threshold = 5ms;
  std::filesystem::path file;
  {
    asio_pulse::io_context io(o);
    pulse_test::let_run(io);
    auto work = asio::make_work_guard(io);
    // Again and again: on a busy machine a stall can look like the kernel's doing.
    std::atomic<bool> found{false};
    std::function<void()> stall = [&] {
      const auto end = std::chrono::steady_clock::now() + 60ms;
      while (std::chrono::steady_clock::now() < end) {
      }
      if (!found) asio::post(io, stall);
    };
    std::jthread worker([&] { io.run(); });
    asio::post(io, stall);
    const auto patience = std::chrono::steady_clock::now() + 20s;
    while (file.empty() && std::chrono::steady_clock::now() < patience) {
      std::this_thread::sleep_for(5ms);
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() == ".pulse") file = entry.path();
      }
    }
    found = true;
    io.stop();
  }
  ASSERT_FALSE(file.empty());
  std::error_code ec;
  std::string why;
  const auto r = asio_pulse::read_recording(file.string(), ec, &why);
  EXPECT_FALSE(ec) << why;
  EXPECT_EQ(r.context, "recorded");
  EXPECT_GE(r.stalls.size(), 1U);
  std::filesystem::remove_all(folder);
}

TEST(inspect, a_signal_leaves_a_recording_behind) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("asio_pulse_signal_" + std::to_string(self));
  std::filesystem::create_directory(folder);
  auto o = named("signalled");
  o.trace = instrument_mode::on;
  o.trace_folder = folder.string();
  o.trace_signal = SIGUSR2;
  {
    asio_pulse::io_context io(o);
    pulse_test::let_run(io);
    ::kill(::getpid(), SIGUSR2);
    const auto patience = std::chrono::steady_clock::now() + 20s;
    bool there = false;
    while (!there && std::chrono::steady_clock::now() < patience) {
      std::this_thread::sleep_for(5ms);
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        there = there || entry.path().extension() == ".pulse";
      }
    }
    EXPECT_TRUE(there);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
