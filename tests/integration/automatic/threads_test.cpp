// SPDX-License-Identifier: BSL-1.0

// Automatic checkpoints with several threads, and with contexts that are destroyed: a handler goes
// on where it was, on the same thread, and comes to its end.

#include "automatic.hpp"
//
#include <asio_pulse/spawn.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace {

using namespace automatic;
using asio_pulse::statistics;

thread_local int of_this_thread = 0;
[[gnu::noinline]] int* address_of_mine() {
  asm volatile("");
  return &of_this_thread;
}

/// A handler that looks, after each check, whether it is still on its thread.
struct stays_on_its_thread {
  std::atomic<int>& moved;
  std::atomic<int>& ended;
  int rounds;
  void operator()() const {
    int* const kept = address_of_mine();
    const pid_t before = gettid();
    for (int i = 0; i < rounds; ++i) {
      burn(2us);
      check();
      if (gettid() != before || address_of_mine() != kept) ++moved;
    }
    ++ended;
  }
};

enum class from { context, strand, bound_strand, bound_executor, task, task_executor };

class automatic_threads : public testing::TestWithParam<from> {};
INSTANTIATE_TEST_SUITE_P(origins, automatic_threads,
                         testing::Values(from::context, from::strand, from::bound_strand,
                                         from::bound_executor, from::task, from::task_executor),
                         [](const auto& of) {
                           switch (of.param) {
                             case from::context:
                               return "context";
                             case from::strand:
                               return "strand";
                             case from::bound_strand:
                               return "bound_strand";
                             case from::bound_executor:
                               return "bound_executor";
                             case from::task:
                               return "task";
                             case from::task_executor:
                               return "task_executor";
                           }
                           return "";
                         });

TEST_P(automatic_threads, a_handler_stays_on_its_thread) {
  asio_pulse::io_context io{eager()};
  std::atomic<int> moved{0}, ended{0};
  constexpr int handlers = 8;
  std::vector<asio_pulse::task> tasks;
  for (int i = 0; i < handlers; ++i) {
    auto h = asio_pulse::preemptible(stays_on_its_thread{moved, ended, 100});
    switch (GetParam()) {
      case from::context:
        asio::post(io, h);
        break;
      case from::strand:
        asio::post(asio::make_strand(io), h);
        break;
      case from::bound_strand:
        asio::post(io, asio_pulse::preemptible(asio::bind_executor(
                           asio::make_strand(io), stays_on_its_thread{moved, ended, 100})));
        break;
      case from::bound_executor:
        asio::post(asio_pulse::preemptible(
            asio::bind_executor(io.get_executor(), stays_on_its_thread{moved, ended, 100})));
        break;
      case from::task:
        tasks.emplace_back(io, unlimited("t"));
        asio_pulse::post(tasks.back(), h);
        break;
      case from::task_executor:
        tasks.emplace_back(io, unlimited("t"));
        asio::post(tasks.back().get_executor(), h);
        break;
    }
  }
  run_on_two_threads(io);
  EXPECT_EQ(moved, 0);
  EXPECT_EQ(ended, handlers);
  const statistics s = io.stats();
  EXPECT_GE(s.automatic_checks, 800U);
  EXPECT_GE(s.automatic_suspensions, 1U);
}

// The other thread takes the handler's rest out of the queue again and again, and gives it back.
TEST(automatic_threads, a_handler_waits_for_its_thread_which_is_in_a_long_handler) {
  int waited = 0;
  for (int attempt = 0; attempt < 20; ++attempt) {
    asio_pulse::io_context io{eager()};
    std::atomic<bool> goes_on{false};
    std::atomic<pid_t> suspended_on{0};
    pid_t long_one_on = 0;
    std::latch together{2};
    const auto meet = [&] { together.arrive_and_wait(); };  // each thread is in one handler
    asio::post(io, asio_pulse::preemptible([&] {
                 suspended_on = gettid();
                 meet();
                 asio::post(io, [&] {
                   long_one_on = gettid();
                   burn(5ms);
                 });
                 for (int i = 0; i < 20; ++i) {
                   burn(2us);
                   check();
                   EXPECT_EQ(gettid(), suspended_on);
                 }
                 goes_on = true;
               }));
    asio::post(io, meet);
    std::thread other([&] { io.run(); });
    io.run();
    other.join();
    EXPECT_TRUE(goes_on);
    EXPECT_GE(io.stats().automatic_suspensions, 1U);
    waited += long_one_on == suspended_on ? 1 : 0;
  }
  RecordProperty("waited", waited);
}

// A thread that has left its run function cannot resume anything.
TEST(automatic_threads, a_handler_whose_thread_has_left_goes_on_on_another_one) {
  asio_pulse::io_context io{eager()};
  bool ended = false;
  std::atomic<int> others{0};
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               checked_until_changed(others);
               ended = true;
             }));
  std::thread([&] {
    EXPECT_EQ(io.run_one(), 1U);  // up to the first suspension
    EXPECT_FALSE(ended);
  }).join();
  run_on_two_threads(io);
  EXPECT_TRUE(ended);
}

TEST(automatic_threads, a_thread_that_rests_between_two_polls_keeps_nothing_back) {
  asio_pulse::io_context io{eager()};
  std::atomic<bool> ended{false};
  std::atomic<int> others{0};
  auto work = asio::make_work_guard(io);
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               checked_until_changed(others);
               ended = true;
               work.reset();
             }));
  std::latch polled{1}, over{1};
  std::thread rests([&] {
    EXPECT_EQ(io.poll_one(), 1U);
    polled.count_down();
    over.wait();  // it does not come back
  });
  polled.wait();
  EXPECT_FALSE(ended);
  std::thread other([&] { io.run(); });
  io.run();
  other.join();
  EXPECT_TRUE(ended);
  over.count_down();
  rests.join();
}

// ---- the end of the context

struct at_exit {
  int& count;
  ~at_exit() { ++count; }
};

[[gnu::noinline]] void quiet_loop() noexcept { checked_loop(5); }

/// Starts a handler that is suspended in a noexcept function when its context is destroyed.
template <class Start>
void ends_with_its_context(Start start) {
  int destroyed = 0, ended = 0;
  {
    asio_pulse::io_context io{eager()};
    start(io, [&] {
      const at_exit counted{destroyed};
      io.stop();
      quiet_loop();
      quiet_loop();
      asio_pulse::this_fiber::checkpoint();
      ++ended;
    });
    io.run();
    EXPECT_EQ(ended, 0);
    EXPECT_EQ(destroyed, 0);
    EXPECT_EQ(io.stats().checkpoint_yields, 1U);
  }
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(destroyed, 1);
}

TEST(automatic_end, a_handler_comes_to_its_end_when_its_context_is_destroyed) {
  ends_with_its_context(
      [](auto& io, auto f) { asio::post(io, asio_pulse::preemptible(std::move(f))); });
}

TEST(automatic_end, so_does_one_in_a_strand) {
  ends_with_its_context([](auto& io, auto f) {
    asio::post(asio::make_strand(io), asio_pulse::preemptible(std::move(f)));
  });
}

TEST(automatic_end, so_does_one_with_an_executor_of_its_own) {
  ends_with_its_context([](auto& io, auto f) {
    asio::post(io,
               asio_pulse::preemptible(asio::bind_executor(asio::make_strand(io), std::move(f))));
  });
}

TEST(automatic_end, so_does_one_of_a_task) {
  std::optional<asio_pulse::task> t;
  ends_with_its_context([&](auto& io, auto f) {
    t.emplace(io, unlimited("job"));
    asio_pulse::post(*t, asio_pulse::preemptible(std::move(f)));
  });
}

TEST(automatic_end, so_does_a_stackful_coroutine) {
#if defined(ASIO_PULSE_DETAIL_POOLED_SPAWN)
  std::optional<asio_pulse::task> t;
  ends_with_its_context([&](auto& io, auto f) {
    t.emplace(io, unlimited("job"));
    asio_pulse::spawn(
        *t, [f](auto) { f(); }, asio::detached);
  });
#endif
}

TEST(automatic_end, it_may_use_the_context_until_its_end) {
  int fired = 0, handlers = 0;
  auto io = std::make_unique<asio_pulse::io_context>(eager());
  asio::post(*io, asio_pulse::preemptible([&fired, &handlers, io = io.get()] {
    io->stop();
    checked_loop(5);
    asio::steady_timer timer(*io, 1h);
    timer.async_wait([&fired](const auto&) { ++fired; });
    asio::post(*io, [&fired] { ++fired; });
    asio_pulse::task t{*io, unlimited("late")};
    asio_pulse::post(t, [&fired] { ++fired; });
    ++handlers;
    throw 1;  // nothing could catch it
  }));
  io->run();
  io.reset();
  EXPECT_EQ(handlers, 1);
  EXPECT_EQ(fired, 0);
}

TEST(automatic_end, several_suspended_handlers_all_come_to_their_ends) {
  int ended = 0;
  {
    asio_pulse::io_context io{eager()};
    for (int i = 0; i < 20; ++i) {
      asio::post(io, asio_pulse::preemptible([&] {
                   checked_loop(4);
                   ++ended;
                 }));
    }
    asio::post(io, [&] { io.stop(); });
    io.run();
    EXPECT_EQ(ended, 0);
  }
  EXPECT_EQ(ended, 20);
}

}  // namespace
