// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/fibers.hpp>
//
#include <asio_pulse/auto_checkpoint.h>

#include <boost/asio/post.hpp>

#include <chrono>
#include <cstdint>
#include <latch>
#include <thread>

/// \file
/// Common parts of the tests of automatic checkpoints. They call by hand what the compiler would
/// write into a loop.

namespace automatic {

using namespace pulse_test;
namespace asio = boost::asio;

/// A check that takes the slow path.
inline void check() { asio_pulse_out_of_fuel(); }

/// A loop with checks, in which it is time to yield from its second round on.
[[gnu::noinline]] inline void checked_loop(int rounds = 50) {
  for (int i = 0; i < rounds; ++i) {
    burn(2us);
    check();
  }
}

/// The same until `others` has changed. Returns false if it did not for a long time.
template <class Count>
[[gnu::noinline]] bool checked_until_changed(const Count& others) {
  const int before = others;
  const auto give_up = std::chrono::steady_clock::now() + 60s;
  while (others == before) {
    burn(2us);
    check();
    if (std::chrono::steady_clock::now() > give_up) return false;
  }
  return true;
}

/// Runs, on a fiber, `held` between two others: `before` and `after` find that the handler can be
/// suspended, and `held` that it cannot. Returns the context's counters.
template <class Held>
asio_pulse::statistics suspended_only_around(Held held) {
  asio_pulse::io_context io{eager()};
  int others = 0;
  bool before = false, after = false, done = false;
  int inside = 0;
  auto other = [&](auto& self) -> void {
    ++others;
    if (!done) asio::post(io, [&] { self(self); });
  };
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { other(other); });
               before = checked_until_changed(others);
               const int at_first = others;
               held([&] {
                 checked_loop();
                 inside = others - at_first;
               });
               after = checked_until_changed(others);
               done = true;
             }));
  io.run();
  EXPECT_TRUE(before);
  EXPECT_TRUE(after);
  EXPECT_EQ(inside, 0) << "it was suspended where that is not safe";
  EXPECT_TRUE(done);
  return io.stats();
}

/// Runs the context on this thread and on another one, which begin together.
inline void run_on_two_threads(asio_pulse::io_context& io) {
  std::latch together{2};
  const auto run = [&] {
    together.arrive_and_wait();
    io.run();
  };
  std::thread other(run);
  run();
  other.join();
}

}  // namespace automatic
