// SPDX-License-Identifier: BSL-1.0

// Nothing is lost and nothing is run twice: stop() and restart() with parked work, contexts
// destroyed with work of every kind, runs through a base-class reference, tasks whose handles are
// gone, tasks that outlive their context.

#include <support/handler_log.hpp>
#include <support/scenario.hpp>
//
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <gmock/gmock.h>

#include <memory>
#include <optional>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using testing::ElementsAreArray;

class lifetime : public testing::TestWithParam<std::size_t> {
 protected:
  std::size_t threads() const { return GetParam(); }
  handler_log l;
};
INSTANTIATE_TEST_SUITE_P(threads, lifetime, testing::Values(1, 2),
                         testing::PrintToStringParamName());

// ---- nothing lost

TEST_P(lifetime, every_posted_handler_of_a_storm_runs_once) {
  asio_pulse::io_context io{steady()};
  const offender a(io);
  const offender b(io);
  const auto strand = asio::make_strand(io);
  for (int i = 0; i < 1000; ++i) {
    asio_pulse::post(a, entry(l));
    asio_pulse::post(b, entry(l));
    const asio_pulse::task_scope scope(a);
    asio::post(strand, entry(l));
    asio::post(b.task.get_executor(), entry(l));
  }
  run_on(io, threads());
  EXPECT_EQ(l.ran, 4000);
  EXPECT_EQ(l.alive, 0);
  EXPECT_EQ(l.dropped, 0);
  EXPECT_EQ(io.stats().parked, 0U);
}

TEST_P(lifetime, stop_and_restart_with_parked_work_loses_nothing) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  const auto strand = asio::make_strand(io);
  std::atomic<int> stops{0};
  for (int i = 0; i < 500; ++i) {
    asio_pulse::post(hog, entry(l, [&, i] {
                       if (i % 50 == 7) {
                         ++stops;
                         io.stop();
                       }
                     }));
    const asio_pulse::task_scope scope(hog);
    asio::post(strand, entry(l, [&, i] {
                 if (i % 100 == 3) io.stop();
               }));
  }
  for (int rounds = 0; l.ran < 1000 && rounds < 1000; ++rounds) {
    io.restart();
    run_on(io, threads());
  }
  EXPECT_EQ(l.ran, 1000);
  EXPECT_EQ(stops, 10);
  EXPECT_EQ(l.dropped, 0);
}

TEST_P(lifetime, stop_from_outside_while_a_storm_is_parked) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  for (int i = 0; i < 2000; ++i) asio_pulse::post(hog, entry(l));
  std::atomic<bool> done{false};
  std::thread stopper([&] {
    // Each round runs at least one handler, so the rounds end on any machine.
    for (int seen = -1; !done; std::this_thread::yield()) {
      if (const int now = l.ran; now != seen) {
        seen = now;
        io.stop();
      }
    }
  });
  for (int rounds = 0; l.ran < 2000 && rounds <= 2001; ++rounds) {
    io.restart();
    run_on(io, threads());
  }
  done = true;
  stopper.join();
  EXPECT_EQ(l.ran, 2000);
  EXPECT_EQ(l.dropped, 0);
}

TEST_P(lifetime, work_posted_by_other_threads_during_a_storm) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  auto work = asio::make_work_guard(io);
  std::atomic<int> producing{2};
  const auto produce = [&] {
    for (int i = 0; i < 1000; ++i) asio_pulse::post(hog, entry(l));
    if (--producing == 0) work.reset();
  };
  std::thread one(produce);
  std::thread two(produce);
  run_on(io, threads());
  one.join();
  two.join();
  EXPECT_EQ(l.ran, 2000);
  EXPECT_EQ(l.alive, 0);
}

// ---- contexts destroyed with work

TEST(lifetime_of_a_context, with_parked_work) {
  handler_log l;
  {
    asio_pulse::io_context io{steady()};
    const offender hog(io);
    for (int i = 0; i < 100; ++i) asio_pulse::post(hog, entry(l));
    EXPECT_EQ(io.run_one(), 1U);
    EXPECT_EQ(io.run_one(), 1U);
    if (!always_preempt()) {
      EXPECT_GT(io.stats().parked, 50U);
    }
    EXPECT_EQ(l.alive, 98);
  }
  EXPECT_EQ(l.ran, 2);
  EXPECT_EQ(l.dropped, 98);
  EXPECT_EQ(l.alive, 0);
}

TEST(lifetime_of_a_context, with_a_broken_strand) {
  handler_log l;
  {
    asio_pulse::io_context io{steady()};
    const offender hog(io);
    const auto strand = asio::make_strand(io);
    asio::steady_timer reactor(io);  // a batch is cut short in favour of this task
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 100; ++i) {
      asio::post(strand, [next = entry(l)]() mutable {
        burn(60us);  // longer than a slice: the reactor has waited for one
        next();
      });
    }
    for (int i = 0; i < 5; ++i) EXPECT_EQ(io.run_one(), 1U);
    EXPECT_GT(io.stats().strand_breaks, 0U);
  }
  EXPECT_EQ(l.ran + l.dropped, 100);
  EXPECT_GT(l.dropped, 50);
  EXPECT_EQ(l.alive, 0);
}

TEST(lifetime_of_a_context, with_work_queued_at_a_tasks_executor) {
  handler_log l;
  {
    asio_pulse::io_context io{steady()};
    const offender hog(io);
    const asio_pulse::task idle{io, unlimited("idle")};
    for (int i = 0; i < 100; ++i) {
      asio::post(hog.task.get_executor(), entry(l));
      asio::post(idle.get_executor(), entry(l));
    }
    EXPECT_EQ(io.run_one(), 1U);
  }
  EXPECT_EQ(l.ran + l.dropped, 200);
  EXPECT_GE(l.dropped, 90);
  EXPECT_EQ(l.alive, 0);
}

TEST(lifetime_of_a_context, with_nothing_run_at_all) {
  handler_log l;
  {
    asio_pulse::io_context io{steady()};
    const asio_pulse::task t{io, unlimited("t")};
    const auto strand = asio::make_strand(io);
    for (int i = 0; i < 10; ++i) {
      asio_pulse::post(t, entry(l));
      asio::post(t.get_executor(), entry(l));
      asio::post(strand, entry(l));
      asio::post(io, entry(l));
    }
  }
  EXPECT_EQ(l.dropped, 40);
  EXPECT_EQ(l.alive, 0);
}

TEST(lifetime_of_a_context, with_suspended_and_parked_coroutines) {
  handler_log l;
  {
    asio_pulse::io_context io{steady()};
    const offender hog(io);
    const auto body = [&io](handler_log& in) -> asio::awaitable<void> {
      const entry alive(in);
      for (;;) co_await asio::post(io, asio::use_awaitable);
    };
    for (int i = 0; i < 5; ++i) asio_pulse::co_spawn(hog, body(l), [](std::exception_ptr) {});
    for (int i = 0; i < 20; ++i) EXPECT_EQ(io.run_one(), 1U);
    EXPECT_EQ(l.alive, 5);
  }
  EXPECT_EQ(l.alive, 0);
}

// A destructor that uses the context and its tasks once more: Asio allows that during destruction.
TEST(lifetime_of_a_context, handlers_that_post_again_when_they_are_destroyed) {
  handler_log l;
  struct again {
    ~again() {
      asio_pulse::post(t, entry(*l));
      asio::post(executor, entry(*l));
      asio::post(t.get_executor(), entry(*l));
    }
    asio_pulse::task t;
    asio::any_io_executor executor;
    handler_log* l;
  };
  const auto make = [&](const asio_pulse::task& t, asio_pulse::io_context& io) {
    return std::unique_ptr<again>(new again{t, io.get_executor(), &l});
  };
  {
    asio_pulse::io_context io{steady()};
    const offender hog(io);
    const asio_pulse::task other{io, unlimited("other")};
    for (int i = 0; i < 3; ++i) {
      asio_pulse::post(hog, [keep = make(other, io)] {});
      asio::post(other.get_executor(), [keep = make(hog, io)] {});
      asio::post(io, [keep = make(other, io)] {});
    }
    asio::post(io, [&] { io.stop(); });
    io.run();
  }
  EXPECT_EQ(l.alive, 0);
}

// ---- run() through a base-class reference

TEST_P(lifetime, run_through_a_base_reference_parks_and_loses_nothing) {
  auto o = steady();
  o.order = asio_pulse::handler_order::per_task;  // otherwise nothing is held back in that thread
  asio_pulse::io_context io{o};
  const offender hog(io);
  const asio_pulse::task innocent{io, unlimited("innocent")};
  const auto strand = asio::make_strand(io);
  for (int i = 0; i < 300; ++i) {
    asio_pulse::post(hog, entry(l));
    asio_pulse::post(innocent, entry(l));
    asio::post(hog.task.get_executor(), entry(l));
    const asio_pulse::task_scope scope(hog);
    asio::post(strand, entry(l));
  }
  const auto before = io.stats();
  const auto polls = innocent.stats().polls;
  asio::io_context& base = io;
  on_threads(threads(), [&](std::size_t) { base.run(); });
  EXPECT_EQ(l.ran, 1200);
  EXPECT_EQ(l.alive, 0);
  EXPECT_GT(io.stats().yields, before.yields) << "nothing was put back";
  EXPECT_GT(innocent.stats().polls, polls) << "nothing was observed";
}

TEST_P(lifetime, base_reference_and_wrapped_run_side_by_side) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  for (int i = 0; i < 2000; ++i) asio_pulse::post(hog, entry(l));
  asio::io_context& base = io;
  on_threads(threads(), [&](std::size_t n) { n == 0 ? base.run() : io.run(); });
  EXPECT_EQ(l.ran, 2000);
  EXPECT_EQ(l.alive, 0);
}

TEST(lifetime_of_a_context, base_reference_polls_of_contexts_that_come_and_go) {
  handler_log l;
  for (int i = 0; i < 20; ++i) {
    asio_pulse::io_context io{steady()};
    asio::io_context& base = io;
    const asio_pulse::task t{io, unlimited("t")};
    asio_pulse::post(t, entry(l));
    asio::io_context plain;
    asio::post(plain, entry(l));
    base.poll();
    EXPECT_EQ(l.ran, 2 * i + 1);
    EXPECT_EQ(plain.poll(), 1U);
    EXPECT_EQ(t.stats().polls, 1U) << "observed through the base class";
  }
  EXPECT_EQ(l.alive, 0);
}

TEST(lifetime_of_a_context, base_reference_poll_inside_a_handler) {
  handler_log l;
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  asio::post(io, [&] {
    for (int i = 0; i < 20; ++i) asio_pulse::post(hog, entry(l));
    static_cast<asio::io_context&>(io).poll();
    EXPECT_EQ(l.ran, 40);
  });
  for (int i = 0; i < 20; ++i) asio_pulse::post(hog, entry(l));
  io.run();
  EXPECT_EQ(l.ran, 40);
}

// ---- tasks

TEST(lifetime_of_a_task, handle_dropped_while_work_is_pending_and_parked) {
  handler_log l;
  asio_pulse::io_context io{steady()};
  {
    const offender hog(io);
    for (int i = 0; i < 100; ++i) asio_pulse::post(hog, entry(l));
  }
  EXPECT_EQ(io.stats().tasks, 1U);
  io.run();
  EXPECT_EQ(l.ran, 100);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST(lifetime_of_a_task, handle_dropped_while_its_executor_has_work) {
  handler_log l;
  asio_pulse::io_context io{steady()};
  {
    const asio_pulse::task t{io, unlimited("t")};
    for (int i = 0; i < 100; ++i) asio::post(t.get_executor(), entry(l));
  }
  EXPECT_EQ(io.stats().tasks, 1U);
  io.run();
  EXPECT_EQ(l.ran, 100);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST(lifetime_of_a_task, a_task_outlives_its_context) {
  std::optional<asio_pulse::task> t;
  std::optional<asio_pulse::task> copy;
  {
    asio_pulse::io_context io{steady()};
    t.emplace(io, unlimited("survivor"));
    asio_pulse::post(*t, [] {});
    (void)t->get_executor();
    io.run();
    copy = t;
  }
  EXPECT_EQ(t->name(), "survivor");
  EXPECT_EQ(t->stats().polls, 1U);
  EXPECT_EQ(t->current_tier(), asio_pulse::tier::monitor);
  EXPECT_EQ(*t, *copy);
  const asio_pulse::task_scope scope(*t);
  EXPECT_EQ(asio_pulse::this_task::id(), t->id());
  t.reset();
  EXPECT_EQ(copy->name(), "survivor");
}

TEST(lifetime_of_a_task, its_executor_outlives_its_context) {
  std::optional<asio_pulse::task_executor> ex;
  {
    asio_pulse::io_context io{steady()};
    const asio_pulse::task t{io, unlimited("t")};
    ex.emplace(t.get_executor());
  }
  EXPECT_EQ(*ex, *ex);
  ex.reset();
}

TEST(lifetime_of_a_task, many_tasks_come_and_go_under_load) {
  handler_log l;
  asio_pulse::io_context io{steady()};
  const std::size_t before = io.stats().tasks;
  std::function<void(int)> generation = [&](int left) {
    const asio_pulse::task t{io, stingy("child")};
    asio_pulse::post(t, entry(l, [&, left] {
                       if (left > 0) generation(left - 1);
                     }));
    asio::post(t.get_executor(), entry(l));
  };
  for (int i = 0; i < 10; ++i) generation(100);
  run_on(io, 2);
  EXPECT_EQ(l.ran, 10 * 101 * 2);
  EXPECT_EQ(io.stats().tasks, before);
}

TEST(lifetime_of_a_task, a_foreign_context_is_refused_by_name) {
  asio::io_context plain;
  try {
    const asio_pulse::task t{plain, {}};
    FAIL() << "accepted";
  } catch (const std::invalid_argument& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("asio_pulse::io_context"));
  }
}

}  // namespace
