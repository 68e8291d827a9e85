// SPDX-License-Identifier: BSL-1.0

// A program that cannot define a macro for its whole build, because it links a library that was
// built on plain Boost.Asio. It uses asio-pulse in executor-only mode: work that goes through a
// task's executor is accounted for, and everything else runs as on plain Boost.Asio.

#include "library/word_count.hpp"

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING)
#error "the executor-only mode has no tracking definition"
#endif

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

std::string some_text(std::size_t lines) {
  std::string text;
  for (std::size_t i = 0; i < lines; ++i) text += "the quick brown fox jumps\n";
  return text;
}

class ExecutorOnly : public testing::Test {
 protected:
  // Asks the library's server from a thread of its own, with blocking calls.
  static std::string ask(unsigned short port, const std::string& line) {
    asio::io_context context;
    tcp::socket socket(context);
    socket.connect({asio::ip::address_v4::loopback(), port});
    asio::write(socket, asio::buffer(line + "\n"));
    std::string reply;
    asio::read_until(socket, asio::dynamic_buffer(reply), '\n');
    return reply;
  }

  asio_pulse::io_context io_;
  asio_pulse::task task_{io_, asio_pulse::task_options{.name = "word count"}};
};

TEST_F(ExecutorOnly, LibraryWorkThroughTheTasksExecutorIsAccountedFor) {
  std::size_t sum = 0;
  word_count::async_count(task_.get_executor(), some_text(100), 1,
                          [&sum](std::size_t n) { sum = n; });
  io_.run();
  EXPECT_EQ(sum, 500u);
  EXPECT_GE(task_.stats().polls, 100u);
  EXPECT_GT(task_.stats().cpu.count(), 0);
}

TEST_F(ExecutorOnly, LibraryWorkOnTheContextsExecutorRuns) {
  std::size_t sum = 0;
  word_count::async_count(io_.get_executor(), some_text(100), 1,
                          [&sum](std::size_t n) { sum = n; });
  io_.run();
  EXPECT_EQ(sum, 500u);
  EXPECT_EQ(task_.stats().polls, 0u);
}

TEST_F(ExecutorOnly, LibraryRunsAContextOfItsOwn) {
  std::size_t here = 0;
  word_count::async_count(task_.get_executor(), some_text(10), 1, [&](std::size_t n) {
    here = n + word_count::count_in_background(some_text(20), 2);
  });
  io_.run();
  EXPECT_EQ(here, 50u + 200u);
}

TEST_F(ExecutorOnly, SocketsOfTheLibraryOnATasksExecutor) {
  word_count::server server(task_.get_executor());
  std::array<std::string, 3> replies;
  std::thread client([&] {
    for (std::string& reply : replies) reply = ask(server.port(), "one two three");
    server.stop();
  });
  io_.run();
  client.join();
  EXPECT_THAT(replies, testing::Each("3\n"));
  // Per connection: accept, read, write, and the read that meets the end.
  EXPECT_GE(task_.stats().polls, 3u * 4u);
}

// A library that uses the CPU in many short turns. With the context's executor, a handler that
// posts itself again alternates with them. With the executor of a task over its budget, it gets far
// more turns than the library.
TEST_F(ExecutorOnly, AnOverBudgetTaskWaitsForTheOthers) {
  asio_pulse::task hog{io_, asio_pulse::task_options{.name = "hog",
                                                     .budget = std::chrono::microseconds{50},
                                                     .per = std::chrono::seconds{1}}};
  bool hogging = true;
  std::size_t turns = 0;
  word_count::async_count(hog.get_executor(), some_text(1000), 5,
                          [&hogging](std::size_t) { hogging = false; });
  const std::function<void()> polite = [&] {
    ++turns;
    if (hogging) asio::post(io_, polite);
  };
  asio::post(io_, polite);
  io_.run();
  EXPECT_FALSE(hogging);
  EXPECT_GE(hog.stats().polls, 5000u);
  EXPECT_GE(turns, 100u);
}

TEST_F(ExecutorOnly, OrderIsKeptAndNothingOverlapsOnTwoThreads) {
  const auto executor = task_.get_executor();
  std::vector<std::size_t> order;  // unguarded: only one handler of a task runs at a time
  constexpr std::size_t count = 10000;
  for (std::size_t i = 0; i < count; ++i) {
    asio::post(executor, [&order, i] { order.push_back(i); });
  }
  std::thread second([this] { io_.run(); });
  io_.run();
  second.join();
  std::vector<std::size_t> expected(count);
  std::iota(expected.begin(), expected.end(), std::size_t{0});
  EXPECT_EQ(order, expected);
  EXPECT_EQ(task_.stats().polls, count);
}

}  // namespace
