// SPDX-License-Identifier: BSL-1.0
//
// A context under load, an Exposer, and a scraper that goes through a socket.

#include "support/cpu_work.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/prometheus.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/exposer.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

namespace asio_pulse {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace http = boost::beast::http;
using samples = std::map<std::string, double>;

// The samples of an exposition, by name and labels.
samples parse(const std::string& text) {
  samples result;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() == '#') continue;
    const auto space = line.rfind(' ');
    EXPECT_TRUE(result.emplace(line.substr(0, space), std::stod(line.substr(space + 1))).second)
        << "twice: " << line;
  }
  return result;
}

// The sum of all samples whose names begin with this text.
double total(const samples& all, const std::string& beginning) {
  double sum = 0;
  for (const auto& [name, value] : all) {
    if (name.starts_with(beginning)) sum += value;
  }
  return sum;
}

// A context with a task of long polls, a task with a hostile name, and a worker; and its exposer.
class scraped_context {
 public:
  scraped_context() {
    for (const std::string name : {"greedy", "bad\xff\x1b[31m\"name\\\n"}) {
      step(std::make_shared<task>(io_, task_options{.name = name}));
    }
    exposer_.RegisterCollectable(metrics_);
    worker_ = std::thread([this] { io_.run(); });
  }
  ~scraped_context() {
    stopping_ = true;
    guard_.reset();
    io_.stop();
    worker_.join();
  }

  void wait_for_steps(unsigned more) const {
    const unsigned wanted = steps_ + more;
    const auto give_up = std::chrono::steady_clock::now() + 20s;
    while (steps_ < wanted && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::sleep_for(5ms);
    }
    ASSERT_GE(steps_, wanted);
  }

  [[nodiscard]] std::string scrape() const {
    asio::io_context client;
    asio::ip::tcp::socket socket(client);
    const auto port = static_cast<std::uint16_t>(exposer_.GetListeningPorts().at(0));
    socket.connect({asio::ip::address_v4::loopback(), port});
    http::request<http::empty_body> request(http::verb::get, "/metrics", 11);
    request.set(http::field::host, "localhost");
    request.keep_alive(false);
    http::write(socket, request);
    boost::beast::flat_buffer buffer;
    http::response<http::string_body> response;
    http::read(socket, buffer, response);
    EXPECT_EQ(response.result(), http::status::ok);
    return response.body();
  }

 private:
  void step(const std::shared_ptr<task>& t) {
    post(*t, [this, t] {
      pulse_test::burn(1ms);
      ++steps_;
      if (!stopping_) step(t);
    });
  }

  io_context io_{options{
      .on_report = [](const report&) {}, .name = "under \"load\"", .metrics = instrument_mode::on}};
  asio::executor_work_guard<asio::io_context::executor_type> guard_{io_.get_executor()};
  std::atomic<unsigned> steps_{0};
  std::atomic<bool> stopping_{false};
  std::shared_ptr<prometheus_collectable> metrics_ = std::make_shared<prometheus_collectable>();
  prometheus::Exposer exposer_{"127.0.0.1:0"};
  std::thread worker_;
};

constexpr const char* context_label = R"(context="under \\\"load\\\"")";

TEST(prometheus_scrape_test, serves_what_the_context_did) {
  const scraped_context server;
  server.wait_for_steps(30);
  const std::string text = server.scrape();
  const samples all = parse(text);
  const auto value = [&](const std::string& name) {
    return total(all, "asio_pulse_" + name + "{" + context_label);
  };
  EXPECT_EQ(total(all, "asio_pulse_up"), 1);
  EXPECT_EQ(value("collecting"), 1);
  EXPECT_GE(value("polls_total"), 30);
  EXPECT_GE(value("cpu_seconds_total"), 0.03);
  EXPECT_EQ(value("tasks"), 2);
  EXPECT_GE(value("poll_duration_seconds_count"), 30);
  EXPECT_GE(value("poll_duration_seconds_sum"), 0.03);
  EXPECT_GE(value("worker_polls_total"), 30);
  EXPECT_GE(value("site_polls_total"), 30);
  EXPECT_GE(value("workers"), 1);
  EXPECT_THAT(text, ::testing::HasSubstr("task=\"greedy\""));
  EXPECT_THAT(text, ::testing::HasSubstr(R"(task="bad\\xff\\x1b[31m\\\"name\\\\\\n")"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(prometheus_scrape_test, lets_no_counter_fall) {
  const scraped_context server;
  samples before;
  for (int round = 0; round != 5; ++round) {
    server.wait_for_steps(10);
    const samples now = parse(server.scrape());
    for (const auto& [name, value] : before) {
      const std::string bare = name.substr(0, name.find('{'));
      if (!bare.ends_with("_total") && !bare.ends_with("_bucket") && !bare.ends_with("_count")) {
        continue;
      }
      const auto later = now.find(name);
      EXPECT_TRUE(later == now.end() || later->second >= value) << name;
    }
    before = now;
  }
  EXPECT_GE(total(before, "asio_pulse_polls_total"), 50);
}

// Buckets are cumulative, and the last one is the count.
TEST(prometheus_scrape_test, serves_whole_histograms) {
  const scraped_context server;
  server.wait_for_steps(30);
  std::istringstream lines(server.scrape());
  const std::string bucket = "asio_pulse_poll_duration_seconds_bucket{";
  const std::string count = "asio_pulse_poll_duration_seconds_count{";
  double last = 0;
  int buckets = 0;
  double counted = -1;
  for (std::string line; std::getline(lines, line);) {
    const double value = line.starts_with("asio_pulse_poll_duration_seconds_")
                             ? std::stod(line.substr(line.rfind(' ') + 1))
                             : 0;
    if (line.starts_with(bucket)) {
      EXPECT_GE(value, last) << line;
      last = value;
      ++buckets;
    } else if (line.starts_with(count)) {
      counted = value;
    }
  }
  EXPECT_EQ(buckets, 23);
  EXPECT_EQ(last, counted);
  EXPECT_GE(counted, 30);
}

TEST(prometheus_scrape_test, passes_prometheus_own_parser_and_linter) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "no promtool on this machine (Debian: prometheus)";
  }
  const scraped_context server;
  server.wait_for_steps(10);
  const std::string file =
      ::testing::TempDir() + "asio_pulse_scrape." +
      std::to_string(std::chrono::steady_clock::now().time_since_epoch().count());
  const std::string text = server.scrape();
  ASSERT_THAT(text, ::testing::HasSubstr("asio_pulse_site_cpu_seconds_total{"));
  std::ofstream(file) << text;
  const std::string command = "promtool check metrics < '" + file + "' 2>&1";
  std::string said;
  FILE* const output = ::popen(command.c_str(), "r");
  ASSERT_NE(output, nullptr);
  for (int c = std::fgetc(output); c != EOF; c = std::fgetc(output)) said += static_cast<char>(c);
  EXPECT_EQ(::pclose(output), 0) << said;
  EXPECT_EQ(said, "");
  std::remove(file.c_str());
}

}  // namespace
}  // namespace asio_pulse
