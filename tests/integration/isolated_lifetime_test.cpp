// SPDX-License-Identifier: BSL-1.0

// Handlers on the isolation pool: nothing is lost and nothing is run twice when the home context is
// destroyed, stopped and restarted, or has nothing else to do.

#include <support/handler_log.hpp>
#include <support/scenario.hpp>
//
#include <latch>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;

class isolated_lifetime : public testing::Test {
 protected:
  static asio_pulse::task_options movable() {
    auto o = stingy("movable");
    o.isolatable = true;
    return o;
  }
  handler_log l;
};

TEST_F(isolated_lifetime, context_destroyed_with_isolated_work_queued) {
  std::latch inside(1);
  std::latch go_on(1);
  std::thread other;
  {
    asio_pulse::io_context io{steady_isolating()};
    const asio_pulse::task t{io, movable()};
    climb_to_isolate(io, t);
    asio_pulse::post(t, entry(l, [&] {
                       inside.count_down();
                       go_on.wait();
                     }));
    for (int i = 0; i < 50; ++i) asio_pulse::post(t, entry(l));
    inside.wait();
    // The destructor waits for the handler that runs, and destroys what is behind it.
    other = std::thread([&] {
      std::this_thread::yield();
      go_on.count_down();
    });
  }
  other.join();
  EXPECT_GE(l.ran, 1);
  EXPECT_EQ(l.ran + l.dropped, 51);
  EXPECT_EQ(l.alive, 0);
}

TEST_F(isolated_lifetime, run_does_not_return_while_isolated_work_runs) {
  asio_pulse::io_context io{steady_isolating()};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  for (int round = 0; round < 50; ++round) {
    asio_pulse::post(t, entry(l, [] { std::this_thread::yield(); }));
    io.restart();
    io.run();
    ASSERT_EQ(l.ran, round + 1);
    ASSERT_EQ(l.alive, 0);
  }
}

TEST_F(isolated_lifetime, isolated_storm_loses_nothing_on_stop_and_restart) {
  asio_pulse::io_context io{steady_isolating()};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  for (int i = 0; i < 500; ++i) {
    asio_pulse::post(t, entry(l, [&, i] {
                       if (i % 50 == 0) io.stop();
                     }));
  }
  for (int rounds = 0; l.ran < 500 && rounds < 100'000; ++rounds) {
    io.restart();
    io.run();
    std::this_thread::yield();
  }
  EXPECT_EQ(l.ran, 500);
  EXPECT_EQ(l.dropped, 0);
}

// The pool may finish all of the context's work before anybody runs the context. The context must
// not count as stopped because of that.
TEST_F(isolated_lifetime, a_context_whose_work_the_pool_did_meanwhile_is_not_stopped) {
  asio_pulse::io_context io{steady_isolating()};
  const asio_pulse::task t{io, movable()};
  climb_to_isolate(io, t);
  for (int round = 0; round < 300; ++round) {
    io.restart();
    std::latch done(1);
    asio_pulse::post(t, entry(l, [&] { done.count_down(); }));
    done.wait();
    for (int i = 0; i < round % 20; ++i) std::this_thread::yield();  // the pool lets go of it
    asio::post(io, entry(l));
    ASSERT_EQ(io.run(), 1U) << "in round " << round;
    ASSERT_EQ(l.ran, 2 * round + 2);
  }
  EXPECT_EQ(l.dropped, 0);
}

}  // namespace
