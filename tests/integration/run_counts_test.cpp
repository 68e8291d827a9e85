// SPDX-License-Identifier: BSL-1.0

// What the run functions return, compared with a plain io_context for the same work. With
// asio-pulse the work belongs to a task over its budget, so that operations are parked and strand
// batches broken.

#include <support/scenario.hpp>
//
#include <boost/asio/defer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <latch>
#include <optional>
#include <thread>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using counts = std::vector<std::size_t>;

/// Runs the scenario on plain Asio and in a task over budget, and compares all that it counted.
template <class Scenario>
void expect_same_counts(Scenario scenario, bool puts_back = true) {
  counts plain;
  {
    asio::io_context io;
    asio::steady_timer reactor(io);
    scenario(io, plain);
  }
  counts pulse;
  asio_pulse::options o = steady();
  o.min_slice = 1us;  // the storms are short, and the reactor has to get a turn during them
  asio_pulse::io_context io{o};
  asio::steady_timer reactor(io);  // a storm is held back in favour of this task
  const offender hog(io);
  const auto before = io.stats();
  {
    const asio_pulse::task_scope scope(hog);
    scenario(io, pulse);
  }
  EXPECT_EQ(pulse, plain);
  const auto after = io.stats();
  if (puts_back) {
    EXPECT_GT(after.yields + after.strand_breaks, before.yields + before.strand_breaks)
        << "nothing was put back: this tests nothing";
  }
  EXPECT_EQ(after.parked, 0U);
}

constexpr int many = 25;

template <class Executor>
void post_many(
    Executor& ex, std::function<void()> f = [] {}) {
  for (int i = 0; i < many; ++i) asio::post(ex, f);
}

TEST(run_counts, run) {
  expect_same_counts([](auto& io, counts& n) {
    post_many(io);
    n.push_back(io.run());
    n.push_back(io.run());
    io.restart();
    n.push_back(io.run());
  });
}

TEST(run_counts, run_one_runs_one_handler) {
  expect_same_counts([](auto& io, counts& n) {
    std::size_t ran = 0;
    post_many(io, [&] { ++ran; });
    for (int i = 0; i <= many; ++i) {
      n.push_back(io.run_one());
      n.push_back(ran);
    }
  });
}

TEST(run_counts, poll) {
  expect_same_counts([](auto& io, counts& n) {
    post_many(io);
    n.push_back(io.poll());
    n.push_back(io.poll());
  });
}

TEST(run_counts, poll_one_runs_one_handler) {
  expect_same_counts([](auto& io, counts& n) {
    std::size_t ran = 0;
    post_many(io, [&] { ++ran; });
    for (int i = 0; i <= many; ++i) {
      n.push_back(io.poll_one());
      n.push_back(ran);
    }
  });
}

TEST(run_counts, run_for_and_run_until) {
  expect_same_counts([](auto& io, counts& n) {
    post_many(io);
    n.push_back(io.run_for(1h));
    io.restart();
    post_many(io);
    n.push_back(io.run_until(std::chrono::steady_clock::now() + 1h));
    n.push_back(io.run_for(1h));
    io.restart();
    post_many(io);
    n.push_back(io.run_until(std::chrono::system_clock::now() + 1h));
  });
}

TEST(run_counts, run_one_for_and_run_one_until) {
  expect_same_counts([](auto& io, counts& n) {
    std::size_t ran = 0;
    post_many(io, [&] { ++ran; });
    for (int i = 0; i <= many; ++i) {
      n.push_back(i % 2 == 0 ? io.run_one_for(1h)
                             : io.run_one_until(std::chrono::steady_clock::now() + 1h));
      n.push_back(ran);
    }
  });
}

TEST(run_counts, timed_functions_come_back_with_nothing_to_run) {
  expect_same_counts([](auto& io, counts& n) {
    const auto work = asio::make_work_guard(io);
    // On a busy machine the time may run out before all handlers have run, or after that.
    std::size_t ran = 0;
    std::size_t counted = 0;
    post_many(io, [&] { ++ran; });
    while (ran < static_cast<std::size_t>(many)) counted += io.run_for(20ms);
    n.push_back(counted);
    n.push_back(io.run_for(1ms));
    n.push_back(io.run_one_for(1ms));
    n.push_back(io.run_one_until(std::chrono::steady_clock::now() - 1s));
    n.push_back(io.run_until(std::chrono::steady_clock::now() - 1s));
    n.push_back(io.poll());
    n.push_back(io.poll_one());
  });
}

TEST(run_counts, dispatch_inside_a_handler_is_part_of_it) {
  expect_same_counts([](auto& io, counts& n) {
    std::size_t inner = 0;
    post_many(io, [&] {
      asio::dispatch(io, [&] { ++inner; });
      asio::defer(io, [&] { ++inner; });
    });
    n.push_back(io.run());
    n.push_back(inner);
  });
}

TEST(run_counts, chain_of_posts) {
  expect_same_counts(
      [](auto& io, counts& n) {
        int left = many;
        std::function<void()> again = [&] {
          if (--left > 0) asio::post(io, again);
        };
        asio::post(io, again);
        n.push_back(io.poll_one());
        n.push_back(io.run_one());
        n.push_back(io.run());
      },
      false);  // no other work waits
}

// Asio's own: the first handler is a turn of its own, the others are the batch of the second.
TEST(run_counts, a_strands_batch_is_one_turn) {
  expect_same_counts([](auto& io, counts& n) {
    const auto strand = asio::make_strand(io);
    std::size_t ran = 0;
    post_many(strand, [&] {
      ++ran;
      burn(20us);  // so that the reactor waits for longer than a slice
    });
    n.push_back(io.run());
    n.push_back(ran);
  });
}

TEST(run_counts, strand_batches_among_posts) {
  expect_same_counts([](auto& io, counts& n) {
    const auto a = asio::make_strand(io);
    const auto b = asio::make_strand(io);
    std::size_t ran = 0;
    const auto count = [&] { ++ran; };
    post_many(a, count);
    post_many(io, count);
    post_many(b, count);
    n.push_back(io.poll());
    n.push_back(ran);
  });
}

TEST(run_counts, strand_handlers_that_post_to_their_strand) {
  expect_same_counts(
      [](auto& io, counts& n) {
        const auto strand = asio::make_strand(io);
        std::size_t ran = 0;
        asio::post(strand, [&] {
          ++ran;
          asio::post(strand, [&] { ++ran; });
        });
        asio::post(strand, [&] { ++ran; });
        n.push_back(io.run());
        n.push_back(ran);
      },
      false);  // two handlers do not last as long as a slice
}

TEST(run_counts, a_turn_that_ran_something_is_never_zero) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  const asio_pulse::task_scope scope(hog);
  const auto strand = asio::make_strand(io);
  int ran = 0;
  asio::post(strand, [&] { ++ran; });  // a turn of its own: see a_strands_batch_is_one_turn
  asio::post(strand, [&] {
    ++ran;
    io.stop();
  });
  asio::post(strand, [&] { ++ran; });
  // On plain Asio the batch is finished before the stop is seen; here it is cut.
  EXPECT_EQ(io.run(), 2U);
  EXPECT_GE(ran, 2);
  io.restart();
  io.run();
  EXPECT_EQ(ran, 3);
}

TEST(run_counts, run_one_until_a_strand_is_done_ends) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  const asio_pulse::task_scope scope(hog);
  const auto strand = asio::make_strand(io);
  int ran = 0;
  post_many(strand, [&] { ++ran; });
  std::size_t turns = 0;
  while (io.run_one() == 1) ++turns;
  EXPECT_EQ(ran, many);
  EXPECT_GE(turns, 1U);
  EXPECT_LE(turns, static_cast<std::size_t>(many));
}

TEST(run_counts, nested_poll_inside_a_handler) {
  expect_same_counts([](auto& io, counts& n) {
    asio::post(io, [&] {
      post_many(io);
      n.push_back(io.poll());
      n.push_back(io.poll());
    });
    post_many(io);
    n.push_back(io.run());
  });
}

TEST(run_counts, nested_poll_one_and_run_one) {
  expect_same_counts([](auto& io, counts& n) {
    asio::post(io, [&] {
      n.push_back(io.poll_one());
      n.push_back(io.run_one());
      n.push_back(io.run_one_for(1h));
    });
    post_many(io);
    n.push_back(io.run());
  });
}

TEST(run_counts, nested_poll_of_a_strands_batch) {
  expect_same_counts([](auto& io, counts& n) {
    const auto strand = asio::make_strand(io);
    asio::post(io, [&] {
      post_many(strand);
      n.push_back(io.poll());
    });
    asio::post(io, [] {});
    n.push_back(io.run());
  });
}

TEST(run_counts, poll_inside_poll_inside_poll) {
  expect_same_counts([](auto& io, counts& n) {
    std::function<void(int)> down = [&](int depth) {
      post_many(io);
      if (depth < 4) asio::post(io, [&, depth] { down(depth + 1); });
      n.push_back(io.poll());
    };
    asio::post(io, [&] { down(0); });
    n.push_back(io.run());
  });
}

TEST(run_counts, stop_in_a_handler) {
  expect_same_counts([](auto& io, counts& n) {
    for (int i = 0; i < many; ++i) {
      asio::post(io, [&io, i] {
        if (i % 10 == 5) io.stop();
      });
    }
    while (true) {
      n.push_back(io.run());
      if (n.back() == 0) break;
      io.restart();
    }
  });
}

TEST(run_counts, timers_and_sockets) {
  expect_same_counts([](auto& io, counts& n) {
    asio::local::stream_protocol::socket near(io);
    asio::local::stream_protocol::socket far(io);
    asio::local::connect_pair(near, far);
    std::size_t bytes = 0;
    char out[64] = {};
    char in[64];
    // One byte a read: as many completions as bytes, on any machine.
    int reads = 0;
    std::function<void()> read = [&] {
      far.async_read_some(asio::buffer(in, 1), [&](boost::system::error_code, std::size_t got) {
        bytes += got;
        if (++reads < 20) read();
      });
    };
    read();
    asio::async_write(near, asio::buffer(out, 20), [](boost::system::error_code, std::size_t) {});
    asio::steady_timer soon(io, 1ms);
    soon.async_wait([&](boost::system::error_code) { ++bytes; });
    asio::steady_timer never(io, 1h);
    never.async_wait([&](boost::system::error_code ec) { bytes += ec ? 100U : 0U; });
    asio::post(io, [&] { never.cancel(); });
    n.push_back(io.run());
    n.push_back(bytes);
  });
}

TEST(run_counts, deprecated_overloads_with_an_error_code) {
#if defined(BOOST_ASIO_NO_DEPRECATED)
  GTEST_SKIP() << "BOOST_ASIO_NO_DEPRECATED";
#else
  expect_same_counts([](auto& io, counts& n) {
    boost::system::error_code ec;
    post_many(io);
    n.push_back(io.run_one(ec));
    n.push_back(io.poll_one(ec));
    n.push_back(io.poll(ec));
    post_many(io);
    io.restart();
    n.push_back(io.run(ec));
  });
#endif
}

TEST(run_counts, two_threads_together_count_every_handler_once) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  std::atomic<int> ran{0};
  for (int i = 0; i < 2000; ++i) asio_pulse::post(hog, [&] { ++ran; });
  EXPECT_EQ(run_on(io, 2), 2000U);
  EXPECT_EQ(ran, 2000);
}

TEST(run_counts, two_threads_together_count_a_strands_batch_once) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  const auto strand = asio::make_strand(io);
  int ran = 0;  // guarded by the strand
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 500; ++i) asio::post(strand, [&] { ++ran; });
  }
  EXPECT_EQ(run_on(io, 2), 2U);  // see a_strands_batch_is_one_turn
  EXPECT_EQ(ran, 500);
}

/// Posts itself again, `left` times.
struct chain {
  asio_pulse::io_context& io;
  int left;

  void operator()() const {
    if (left > 1) asio::post(io, chain{io, left - 1});
  }
};

TEST(run_counts, a_second_thread_that_comes_and_goes_makes_no_task_lose_a_poll) {
  constexpr int rounds = 100;
  constexpr int each = 500;
  asio_pulse::io_context io;
  // A whole CPU each, so that nothing is held back.
  std::deque<asio_pulse::task> tasks;
  for (int i = 0; i < 4; ++i) {
    tasks.emplace_back(io, asio_pulse::task_options{.budget = 5ms, .per = 5ms});
  }
  for (int round = 0; round < rounds; ++round) {
    for (const asio_pulse::task& t : tasks) {
      const asio_pulse::task_scope scope(t);
      asio::post(io, chain{io, each});
    }
    io.restart();
    std::latch runs(1);
    asio::post(io, [&] { runs.count_down(); });  // on the thread that is alone until now
    std::thread second([&] {
      runs.wait();
      io.run();
    });
    io.run();
    second.join();
  }
  for (const asio_pulse::task& t : tasks) EXPECT_EQ(t.stats().polls, std::uint64_t{rounds} * each);
}

}  // namespace
