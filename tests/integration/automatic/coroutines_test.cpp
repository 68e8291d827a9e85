// SPDX-License-Identifier: BSL-1.0

// Automatic checkpoints in coroutines of asio_pulse::spawn(), which Asio resumes.

#include "automatic.hpp"
//
#include <asio_pulse/spawn.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>

#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#if defined(ASIO_PULSE_DETAIL_POOLED_SPAWN)

namespace {

using namespace automatic;

// The thread that Asio resumes it on has run no fiber before.
TEST(automatic_coroutines, one_that_asio_resumes_on_another_thread_is_suspended_there) {
  asio_pulse::io_context io{eager()};
  const asio_pulse::task t{io, unlimited("job")};
  pid_t begun = 0, resumed = 0;
  int others = 0;
  bool ended = false;
  asio_pulse::spawn(
      t,
      [&](auto yield) {
        begun = gettid();
        asio::steady_timer timer(io, 1ms);
        timer.async_wait(yield);
        resumed = gettid();
        asio::post(io, [&] { ++others; });
        EXPECT_TRUE(checked_until_changed(others));
        EXPECT_EQ(gettid(), resumed);
        ended = true;
      },
      asio::detached);
  EXPECT_EQ(io.run_one(), 1U);  // up to the timer
  EXPECT_EQ(begun, gettid());
  std::thread([&] { io.run(); }).join();
  EXPECT_NE(resumed, begun);
  EXPECT_TRUE(ended);
  EXPECT_GE(io.stats().automatic_suspensions, 1U);
}

TEST(automatic_coroutines, each_part_of_one_stays_on_its_thread) {
  asio_pulse::io_context io{eager()};
  constexpr int coroutines = 8;
  std::vector<asio_pulse::task> tasks;
  std::atomic<int> moved{0}, ended{0};
  for (int i = 0; i < coroutines; ++i) {
    asio_pulse::spawn(
        tasks.emplace_back(io, unlimited("job")),
        [&](auto yield) {
          asio::steady_timer timer(io);
          for (int part = 0; part < 10; ++part) {
            timer.expires_after(100us);
            timer.async_wait(yield);
            const pid_t here = gettid();
            for (int round = 0; round < 20; ++round) {
              burn(2us);
              check();
              if (gettid() != here) ++moved;
            }
          }
          ++ended;
        },
        asio::detached);
  }
  run_on_two_threads(io);
  EXPECT_EQ(moved, 0);
  EXPECT_EQ(ended, coroutines);
  EXPECT_GE(io.stats().automatic_suspensions, 1U);
}

TEST(automatic_coroutines, one_that_was_cancelled_is_suspended_while_it_computes) {
  asio_pulse::io_context io{eager()};
  const asio_pulse::task t{io, unlimited("job")};
  asio::cancellation_signal cancel;
  int others = 0;
  bool ended = false;
  asio_pulse::spawn(
      t,
      [&](auto yield) {
        yield.throw_if_cancelled(true);
        asio::post(io, [&] { cancel.emit(asio::cancellation_type::terminal); });
        for (int i = 0; i < 1000 && yield.cancelled() == asio::cancellation_type::none; ++i) {
          checked_loop(2);
        }
        EXPECT_NE(yield.cancelled(), asio::cancellation_type::none);
        asio::post(io, [&] { ++others; });
        checked_loop();
        EXPECT_EQ(others, 1);
        EXPECT_TRUE(yield.throw_if_cancelled()) << "as the program wants it";
        asio::steady_timer timer(io, 1h);
        EXPECT_THROW(timer.async_wait(yield), boost::system::system_error);
        yield.throw_if_cancelled(false);  // Asio's own last suspension would throw, too
        ended = true;
      },
      asio::bind_cancellation_slot(cancel.slot(), asio::detached));
  io.run();
  EXPECT_TRUE(ended);
  EXPECT_EQ(io.stats().automatic_refused_place, 0U);
}

}  // namespace

#endif
