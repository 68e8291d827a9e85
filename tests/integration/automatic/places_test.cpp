// SPDX-License-Identifier: BSL-1.0

// Where a handler came from and who takes its rest out of the queue: it is suspended only where the
// rest comes back to its thread, and no other thread resumes it while that one may.

#include "automatic.hpp"
//
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/io_context_strand.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <latch>
#include <string>
#include <thread>
#include <tuple>

namespace {

using namespace automatic;
using asio_pulse::preemptible_handlers;
using asio_pulse::statistics;

asio_pulse::options all_preemptible() {
  auto o = eager();
  o.preemptible = preemptible_handlers::all;
  return o;
}

// ---- contexts that a handler runs

TEST(automatic_places,
     a_plain_context_in_a_handler_on_the_threads_stack_runs_a_handler_to_its_end) {
  asio_pulse::io_context io{eager()};
  bool done = false;
  asio::post(io, [&] {
    int others = 0;
    bool ended = false;
    asio::io_context inner;
    asio::post(io, [&] { ++others; });
    asio::post(inner, asio_pulse::preemptible([&] {
                 checked_loop();
                 ended = true;
               }));
    inner.run();
    EXPECT_TRUE(ended);
    EXPECT_EQ(others, 0);
    done = ended;
    io.stop();  // what is queued refers to this stack
  });
  io.run();
  EXPECT_TRUE(done);
  EXPECT_GE(io.stats().automatic_refused_place, 40U);
}

TEST(automatic_places, so_does_one_if_all_handlers_are_preemptible) {
  for (const bool plain : {true, false}) {
    asio_pulse::io_context io{all_preemptible()};
    asio_pulse::task t{io, unlimited("t")};
    bool done = false;
    int others = 0;
    // A handler of a task's executor runs on the thread's stack.
    asio::post(t.get_executor(), [&] {
      bool ended = false;
      const auto loops = [&] {
        checked_loop();
        ended = true;
      };
      asio::post(io, [&] { ++others; });
      if (plain) {
        asio::io_context inner;
        asio::post(inner, loops);
        inner.run();
      } else {
        asio_pulse::options off;
        off.enabled = false;
        asio_pulse::io_context inner{off};
        asio::post(inner, loops);
        inner.run();
      }
      EXPECT_TRUE(ended);
      EXPECT_EQ(others, 0);
      done = true;
    });
    io.run();
    EXPECT_TRUE(done);
    EXPECT_EQ(others, 1);
  }
}

// ---- strands

TEST(automatic_places, the_rest_stays_in_a_strand_of_an_erased_executor_on_a_younger_thread) {
  {
    asio_pulse::io_context first{
        all_preemptible()};  // makes the stacks of fibers, unless another test did
    asio::post(first, [] {});
    first.run();
  }
  // Its stack is below those of the fibers.
  std::thread([] {
    asio_pulse::io_context io{all_preemptible()};
    auto strand = asio::make_strand(asio::any_io_executor(io.get_executor()));
    bool ended = false;
    int others = 0;
    asio::post(strand, [&] {
      asio::post(io, [&] { ++others; });
      EXPECT_TRUE(checked_until_changed(others));
      EXPECT_TRUE(strand.running_in_this_thread());
      ended = true;
    });
    io.run();
    EXPECT_TRUE(ended);
  }).join();
}

// ---- executors

TEST(automatic_places, waits_if_the_rest_would_go_to_another_context) {
  asio_pulse::io_context io{eager()};
  bool ended = false;
  const pid_t here = gettid();
  // The system's executor runs the handler at once, in the context's thread.
  asio::post(io, asio_pulse::preemptible(asio::bind_executor(asio::system_executor(), [&] {
               checked_loop();
               EXPECT_EQ(gettid(), here);
               ended = true;
             })));
  io.run();
  EXPECT_TRUE(ended);
  EXPECT_EQ(io.stats().automatic_suspensions, 0U);
  EXPECT_GE(io.stats().automatic_refused_place, 40U);
}

TEST(automatic_places, a_handler_of_a_tasks_executor_is_suspended) {
  asio_pulse::io_context io{eager()};
  asio_pulse::task t{io, unlimited("t")};
  int others = 0;
  asio::post(t.get_executor(), asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));
             }));
  io.run();
  EXPECT_GE(io.stats().automatic_suspensions, 1U);
}

TEST(automatic_places, nothing_is_announced_where_the_handler_cannot_be_suspended) {
  asio_pulse::io_context io{eager()};
  int announced = 0;
  const auto handle =
      io.hooks().install({.yielded = [&](const asio_pulse::hooks::yield_event&) { ++announced; }});
  asio::io_context::strand strand(io);
  asio::post(strand, asio_pulse::preemptible([] { checked_loop(); }));
  io.run();
  EXPECT_EQ(announced, 0);
  EXPECT_EQ(io.stats().checkpoint_yields, 0U);
  EXPECT_GE(io.stats().automatic_refused_place, 40U);
}

// ---- another thread joins while the handler's thread is in a long handler

enum class queued_in { context, strand, bound_strand, bound_executor, task, task_executor };
enum class takes { run, poll, poll_one, base_run, run_in_another };

using parameters = std::tuple<queued_in, takes>;
class automatic_joined : public testing::TestWithParam<parameters> {};
std::string name_of(const testing::TestParamInfo<parameters>& info) {
  const char* const origins[] = {"context",        "strand", "bound_strand",
                                 "bound_executor", "task",   "task_executor"};
  const char* const ways[] = {"run", "poll", "poll_one", "base_run", "run_in_another"};
  return std::string(origins[static_cast<int>(std::get<0>(info.param))]) + "_" +
         ways[static_cast<int>(std::get<1>(info.param))];
}
INSTANTIATE_TEST_SUITE_P(
    all, automatic_joined,
    testing::Combine(testing::Values(queued_in::context, queued_in::strand, queued_in::bound_strand,
                                     queued_in::bound_executor, queued_in::task,
                                     queued_in::task_executor),
                     testing::Values(takes::run, takes::poll, takes::poll_one, takes::base_run,
                                     takes::run_in_another)),
    name_of);

/// How often the thread has gone to sleep.
long sleeps_of_thread() {
  rusage r{};
  getrusage(RUSAGE_THREAD, &r);
  return r.ru_nvcsw;
}

constexpr auto joined_for = 40ms;

/// Takes what is ready, as the thread that joins. Returns what the run function has counted.
std::size_t take(asio_pulse::io_context& io, takes how) {
  asio::io_context& base = io;
  switch (how) {
    case takes::run:
      return io.run_for(joined_for);
    case takes::poll:
      return io.poll();
    case takes::poll_one:
      return io.poll_one();
    case takes::base_run:
      base.run_for(joined_for);
      return 0;
    case takes::run_in_another: {
      asio_pulse::io_context another{eager()};
      asio::post(another, [&] { base.run_for(joined_for); });
      another.run();
      return 0;
    }
  }
  return 0;
}

TEST_P(automatic_joined, the_handler_waits_for_its_thread) {
  const auto [origin, how] = GetParam();
  asio_pulse::io_context io{eager()};
  asio_pulse::task t{io, unlimited("t")};
  const pid_t mine = gettid();
  int long_ones = 0, moved = 0;
  bool ended = false;
  std::size_t counted = 0;
  std::chrono::nanoseconds cpu{0};
  long sleeps = 0;
  const auto suspended = [&] {
    asio::post(io, [&, how = how] {
      std::thread([&] {
        const auto cpu_before = thread_cpu();
        const long sleeps_before = sleeps_of_thread();
        counted = take(io, how);
        sleeps = sleeps_of_thread() - sleeps_before;
        cpu = thread_cpu() - cpu_before;
      }).join();
      ++long_ones;
    });
    const auto give_up = std::chrono::steady_clock::now() + 60s;
    while (long_ones == 0 && std::chrono::steady_clock::now() < give_up) {
      burn(2us);
      check();
      moved += gettid() != mine ? 1 : 0;
    }
    ended = true;
  };
  const auto strand = asio::make_strand(io);
  switch (origin) {
    case queued_in::context:
      asio::post(io, asio_pulse::preemptible(suspended));
      break;
    case queued_in::strand:
      asio::post(strand, asio_pulse::preemptible(suspended));
      break;
    case queued_in::bound_strand:
      asio::post(io, asio_pulse::preemptible(asio::bind_executor(strand, suspended)));
      break;
    case queued_in::bound_executor:
      asio::post(asio_pulse::preemptible(asio::bind_executor(io.get_executor(), suspended)));
      break;
    case queued_in::task:
      asio_pulse::post(t, asio_pulse::preemptible(suspended));
      break;
    case queued_in::task_executor:
      asio::post(t.get_executor(), asio_pulse::preemptible(suspended));
      break;
  }
  io.run();
  EXPECT_TRUE(ended);
  EXPECT_EQ(moved, 0);
  EXPECT_EQ(long_ones, 1);
  EXPECT_EQ(counted, 0U);
  EXPECT_GE(io.stats().automatic_suspensions, 1U);
  if (!sanitized) {
    // Where each sleep takes much CPU time, it is the sleeps that tell.
    EXPECT_TRUE(cpu < joined_for / 2 || sleeps >= 20)
        << "it spins: " << cpu.count() << " ns, " << sleeps << " sleeps";
  }
}

// A worker that was alone in a context, and has left it, is not taken for the one that rests there.
TEST(automatic_places, a_thread_that_leaves_another_context_takes_no_pins_along) {
  const auto elsewhere = [](auto f) { std::thread(f).join(); };
  asio_pulse::io_context first{eager()}, second{eager()};
  int others = 0;
  asio::post(first, asio_pulse::preemptible([&] {
               asio::post(first, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));  // while it is alone
               elsewhere([&] { first.poll(); });            // now there are two
             }));
  first.run();
  std::latch rested{1}, over{1};
  std::thread rests([&] {
    first.poll();
    rested.count_down();
    over.wait();  // it does not come back
  });
  rested.wait();
  const pid_t mine = gettid();
  bool ended = false;
  int moved = 0, long_ones = 0;
  asio::post(second, asio_pulse::preemptible([&] {
               asio::post(second, [&] {
                 elsewhere([&] { first.poll(); });
                 elsewhere([&] { second.run_for(10ms); });
                 ++long_ones;
               });
               const auto give_up = std::chrono::steady_clock::now() + 60s;
               while (long_ones == 0 && std::chrono::steady_clock::now() < give_up) {
                 burn(2us);
                 check();
                 moved += gettid() != mine ? 1 : 0;
               }
               ended = true;
             }));
  second.run();
  EXPECT_TRUE(ended);
  EXPECT_EQ(moved, 0);
  over.count_down();
  rests.join();
}

}  // namespace
