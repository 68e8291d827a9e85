// SPDX-License-Identifier: BSL-1.0

// options::order: which handlers may be put behind others. The results are compared with plain
// Asio.

#include <support/scenario.hpp>
//
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <latch>
#include <memory>
#include <random>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio::ip::tcp;
using boost::system::error_code;
using testing::ElementsAreArray;

asio_pulse::options ordered(asio_pulse::handler_order order) {
  asio_pulse::options o = steady();
  o.order = order;
  o.accepted = stingy("connection");
  return o;
}

// ---- accepted connections, one thread: Asio's order

/// A connection that reads in a loop, uses much CPU time, and is ended by another handler.
struct connection {
  explicit connection(tcp::socket s) : socket(std::move(s)) {}
  void read() {
    socket.async_read_some(asio::buffer(bytes), [this](error_code ec, std::size_t) {
      if (*gone) {
        ++*after_its_end;
        return;
      }
      burn(50us);
      if (!ec) read();
    });
  }

  tcp::socket socket;
  std::array<char, 64> bytes{};
  std::shared_ptr<bool> gone = std::make_shared<bool>(false);
  int* after_its_end = nullptr;
};

/// Another handler cancels, closes, and posts a handler that stands for the deletion of a
/// connection. Returns how many handlers of `rounds` connections ran after that.
template <class Context>
int handlers_after_the_end(Context& io, int rounds) {
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  // The objects that stand for deleted ones live until the end, so that they can be counted.
  std::vector<std::unique_ptr<connection>> connections;
  int after_its_end = 0;
  for (int round = 0; round < rounds; ++round) {
    tcp::socket client(io);
    acceptor.async_accept([&](error_code ec, tcp::socket s) {
      ASSERT_FALSE(ec);
      connections.push_back(std::make_unique<connection>(std::move(s)));
      connections.back()->after_its_end = &after_its_end;
      connections.back()->read();
    });
    client.connect(acceptor.local_endpoint());
    asio::steady_timer janitor(io);
    std::function<void(int)> feed = [&](int left) {
      asio::write(client, asio::buffer("x", 1));
      if (left > 0) {
        asio::post(io, [&feed, left] { feed(left - 1); });
        return;
      }
      // One more byte, which is read but not yet seen by the handler, then the end.
      janitor.expires_after(0ms);
      janitor.async_wait([&](error_code) {
        connection& c = *connections.back();
        error_code ignored;
        c.socket.cancel(ignored);
        c.socket.close(ignored);
        asio::post(io, [gone = c.gone] { *gone = true; });
      });
    };
    asio::post(io, [&feed] { feed(60); });
    io.restart();
    io.run();
  }
  return after_its_end;
}

TEST(order_of_connections, nothing_runs_after_the_deletion_that_was_posted_after_the_end) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  asio::io_context plain;
  ASSERT_EQ(handlers_after_the_end(plain, 10), 0);
  asio_pulse::io_context io{ordered(asio_pulse::handler_order::automatic)};
  EXPECT_EQ(handlers_after_the_end(io, 10), 0);
  EXPECT_GT(io.stats().promotions, 0U) << "no connection was over its budget: this tests nothing";
  EXPECT_EQ(io.stats().yields, 0U);
}

// ---- the same sequence as on plain Asio

/// A random program of posts, timers, strands and sockets; the sequence in which it runs. Handlers
/// of `tasks` classes, of which some use CPU time.
template <class Context, class InTask>
std::vector<int> sequence_of(Context& io, unsigned seed, InTask in_task) {
  std::mt19937 random(seed);
  std::vector<int> order;
  int next = 0;
  auto strand = asio::make_strand(io);
  asio::steady_timer reactor(io);  // so that the reactor takes part
  reactor.expires_after(0ms);
  reactor.async_wait([](error_code) {});
  std::function<void(unsigned)> post = [&](unsigned task) {
    const int mine = next++;
    const bool through_strand = random() % 4 == 0;
    const unsigned children = mine < 1500 ? static_cast<unsigned>(random() % 3) : 0;
    const bool long_one = random() % 16 == 0;
    const auto handler = [&, mine, task, children, long_one] {
      order.push_back(mine);
      if (long_one) burn(100us);
      for (unsigned n = 0; n < children; ++n) post((task + n) % 4);
    };
    in_task(task, [&] { through_strand ? asio::post(strand, handler) : asio::post(io, handler); });
  };
  for (unsigned n = 0; n < 40; ++n) post(n % 4);
  io.run();
  return order;
}

class sequences : public testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(seeds, sequences, testing::Range(0U, 6U));

std::vector<int> plain_sequence(unsigned seed) {
  asio::io_context io;
  return sequence_of(io, seed, [](unsigned, auto f) { f(); });
}

TEST_P(sequences, strict_runs_everything_as_plain_asio_does) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  asio_pulse::io_context io{ordered(asio_pulse::handler_order::strict)};
  std::vector<asio_pulse::task> tasks;
  for (int n = 0; n < 4; ++n) tasks.emplace_back(io, stingy("t"));
  const auto order = sequence_of(io, GetParam(), [&](unsigned task, auto f) {
    const asio_pulse::task_scope scope(tasks[task]);
    f();
  });
  EXPECT_EQ(order, plain_sequence(GetParam()));
  EXPECT_GT(io.stats().promotions, 0U);
  EXPECT_EQ(io.stats().yields + io.stats().strand_breaks, 0U);
}

TEST_P(sequences, automatic_runs_unnamed_work_as_plain_asio_does) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  auto o = ordered(asio_pulse::handler_order::automatic);
  o.unnamed = stingy("unnamed");
  asio_pulse::io_context io{o};
  const auto order = sequence_of(io, GetParam(), [](unsigned, auto f) { f(); });
  EXPECT_EQ(order, plain_sequence(GetParam()));
}

TEST_P(sequences, per_task_puts_declared_tasks_behind_others) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  asio_pulse::io_context io{ordered(asio_pulse::handler_order::per_task)};
  const offender hog(io);
  const auto order = sequence_of(io, GetParam(), [&](unsigned task, auto f) {
    if (task != 0) return f();
    const asio_pulse::task_scope scope(hog);
    f();
  });
  EXPECT_EQ(order.size(), plain_sequence(GetParam()).size());
  EXPECT_NE(order, plain_sequence(GetParam()));
}

// ---- two threads: there never was an order across handlers

TEST(order_of_connections, two_threads_hold_back_a_connection_in_favour_of_others) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  const auto held = [](std::size_t threads, asio_pulse::handler_order order) {
    asio_pulse::io_context io{ordered(order)};
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    tcp::socket client(io);
    std::optional<tcp::socket> server;
    std::array<char, 1> byte{};
    std::latch all(static_cast<std::ptrdiff_t>(threads));
    // Unnamed work waits all the time, and each turn of the connection uses CPU time.
    std::atomic<int> turns{300};
    std::function<void()> other = [&] {
      burn(20us);
      if (turns > 0) asio::post(io, other);
    };
    std::function<void()> again = [&] {
      burn(100us);
      if (--turns > 0) asio::post(io, again);
    };
    acceptor.async_accept([&](error_code ec, tcp::socket s) {
      ASSERT_FALSE(ec);
      server.emplace(std::move(s));
      server->async_read_some(asio::buffer(byte), [&](error_code, std::size_t) { again(); });
    });
    client.connect(acceptor.local_endpoint());
    asio::write(client, asio::buffer("x", 1));
    for (std::size_t n = 0; n < threads; ++n) {
      asio::post(io, [&] { all.arrive_and_wait(); });
      asio::post(io, other);
    }
    run_on(io, threads);
    return io.stats().yields;
  };
  EXPECT_EQ(held(1, asio_pulse::handler_order::automatic), 0U);
  // On a busy machine the two threads may run one after the other.
  EXPECT_TRUE(holds_in_one_of(60, [&]() -> testing::AssertionResult {
    if (held(2, asio_pulse::handler_order::automatic) != 0) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "nothing was held back";
  }));
  EXPECT_EQ(held(2, asio_pulse::handler_order::strict), 0U);
  EXPECT_GT(held(1, asio_pulse::handler_order::per_task), 0U);
}

TEST(order_of_tasks, nothing_is_held_back_where_the_base_class_is_run) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  asio_pulse::io_context io{ordered(asio_pulse::handler_order::automatic)};
  const offender hog(io);
  const auto before = io.stats().yields;
  std::vector<int> order;
  for (int n = 0; n < 50; ++n) {
    asio_pulse::post(hog, [&order, n] { order.push_back(2 * n); });
    asio::post(io, [&order, n] { order.push_back(2 * n + 1); });
  }
  static_cast<asio::io_context&>(io).run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(100)));
  EXPECT_EQ(io.stats().yields, before);
}

// ---- a task's own end

class ends_of_a_task : public testing::Test {
 protected:
  /// From now on unnamed work waits that uses less than the hog, so that the hog is held back.
  void keep_others_waiting(int turns) {
    asio::post(io, [this, turns] {
      if (turns > 0) keep_others_waiting(turns - 1);
    });
  }

  asio_pulse::io_context io{ordered(asio_pulse::handler_order::automatic)};
  asio::steady_timer reactor{io};
};

TEST_F(ends_of_a_task, what_was_aborted_and_what_was_parked_before_it_run_before_what_follows) {
  const offender hog(io);
  std::vector<int> order;
  asio::steady_timer timer(io);
  {
    const asio_pulse::task_scope scope(hog);
    timer.expires_after(1h);
    timer.async_wait([&](error_code ec) {
      EXPECT_EQ(ec, asio::error::operation_aborted);
      order.push_back(20);
    });
    for (int n = 0; n < 20; ++n) asio::post(io, [&order, n] { order.push_back(n); });
  }
  asio::post(io, [&] {
    timer.cancel();
    asio::post(io, [&order] { order.push_back(21); });
  });
  keep_others_waiting(100);
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(22)));
  EXPECT_GT(io.stats().yields, 0U);
}

TEST_F(ends_of_a_task, stop_strands_nothing_that_was_queued_before_it) {
  const offender hog(io);
  std::vector<int> order;
  for (int n = 0; n < 20; ++n) asio_pulse::post(hog, [&order, n] { order.push_back(n); });
  asio::post(io, [&] { io.stop(); });
  asio::post(io, [&] { order.push_back(99); });
  for (int n = 20; n < 25; ++n) asio_pulse::post(hog, [&order, n] { order.push_back(n); });
  EXPECT_EQ(io.run(), 21U);
  EXPECT_TRUE(io.stopped());
  EXPECT_THAT(order, ElementsAreArray(counting_to(20)));
  io.restart();
  EXPECT_EQ(io.run(), 6U);
  EXPECT_EQ(order.size(), 26U);
}

TEST_F(ends_of_a_task, run_one_hands_out_what_stop_overtook_one_by_one) {
  const offender hog(io);
  std::vector<int> order;
  for (int n = 0; n < 5; ++n) asio_pulse::post(hog, [&order, n] { order.push_back(n); });
  asio::post(io, [&] { io.stop(); });
  std::size_t ran = 0;
  while (io.run_one() != 0) ++ran;
  EXPECT_EQ(ran, 6U);
  EXPECT_THAT(order, ElementsAreArray(counting_to(5)));
  EXPECT_TRUE(io.stopped());
}

TEST_F(ends_of_a_task, a_handler_that_throws_after_stop_strands_nothing_either) {
  const offender hog(io);
  std::vector<int> order;
  for (int n = 0; n < 5; ++n) {
    asio_pulse::post(hog, [&order, n] {
      order.push_back(n);
      if (n == 2) throw n;
    });
  }
  asio::post(io, [&] { io.stop(); });
  EXPECT_THROW(io.run(), int);
  EXPECT_TRUE(io.stopped());
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(5)));
}

// ---- a task is not held back while no other work waits

TEST(held_alone, a_task_over_its_budget_runs_on_while_nobody_waits) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  asio_pulse::io_context io{ordered(asio_pulse::handler_order::per_task)};
  asio::steady_timer reactor(io);
  const offender hog(io);
  const auto before = io.stats().yields;
  int left = 1000;
  std::function<void()> again = [&] {
    if (--left > 0) asio_pulse::post(hog, again);
  };
  asio_pulse::post(hog, again);
  EXPECT_EQ(io.run(), 1000U);
  EXPECT_EQ(io.stats().yields, before);
}

TEST(held_alone, a_task_is_not_held_back_in_favour_of_one_that_used_more) {
  if (always_preempt()) GTEST_SKIP() << "everything is put back once in this build";
  EXPECT_TRUE(holds_in_one_of(5, []() -> testing::AssertionResult {
    asio_pulse::io_context io{ordered(asio_pulse::handler_order::per_task)};
    asio::steady_timer reactor(io);
    const offender modest(io);
    const auto before = io.stats().yields;
    // Work of no task uses forty times as much, and is never over a budget.
    int left = 100;
    std::function<void()> hog = [&] {
      burn(2ms);
      if (left > 0) asio::post(io, hog);
    };
    std::function<void()> again = [&] {
      burn(50us);
      if (--left > 0) asio_pulse::post(modest, again);
    };
    asio::post(io, hog);
    asio_pulse::post(modest, again);
    io.run();
    EXPECT_EQ(left, 0);
    // Until the first comparison nothing is known of the other.
    const auto held_back = io.stats().yields - before;
    if (held_back <= 3) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "it was held back " << held_back << " times";
  }));
}

}  // namespace
