// SPDX-License-Identifier: BSL-1.0

// Compensation: spare threads take over while every worker is stuck. The invariants S1 to S5 of
// detail/asio/spare_workers.hpp, and order within strands and tasks.

#include <support/stuck.hpp>
//
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>

#include <deque>
#include <random>
#include <stdexcept>
#include <string_view>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using testing::ElementsAreArray;

TEST(compensation, posts_timers_and_sockets_go_on_beside_a_hog) {
  compensated c;
  hog h;
  auto ran = c.worker();
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  EXPECT_TRUE(c.in_handler([&] { EXPECT_NE(std::this_thread::get_id(), h.thread); }));
  {
    asio::steady_timer timer(c.io, 1ms);
    std::promise<void> fired;
    auto f = fired.get_future();
    timer.async_wait([&](auto) { fired.set_value(); });
    EXPECT_TRUE(comes(f));
  }
  {
    asio::local::stream_protocol::socket a(c.io), b(c.io);
    asio::local::connect_pair(a, b);
    char bytes[5] = {};
    std::promise<void> received;
    auto f = received.get_future();
    asio::async_read(a, asio::buffer(bytes), [&](auto, std::size_t) { received.set_value(); });
    asio::write(b, asio::buffer("hello", 5));
    EXPECT_TRUE(comes(f));
    EXPECT_EQ(std::string_view(bytes, 5), "hello");
  }
  EXPECT_FALSE(h.ended);
  EXPECT_FALSE(is_there(ran));
  h.release();
  c.work.reset();
  EXPECT_GE(ran.get(), 4U);
}

TEST(compensation, only_when_all_workers_are_stuck) {
  compensated c;
  hog first, second;
  auto a = c.worker();
  auto b = c.worker();
  c.post(first);
  c.post(second);
  c.service().compensate(1);
  EXPECT_EQ(c.spares().active, 0U) << "one of two is free";
  ASSERT_TRUE(c.compensate(2));
  EXPECT_TRUE(c.in_handler([&] {
    EXPECT_NE(std::this_thread::get_id(), first.thread);
    EXPECT_NE(std::this_thread::get_id(), second.thread);
  }));
  first.release();
  second.release();
  c.work.reset();
  EXPECT_EQ(a.get() + b.get(), 3U);
}

TEST(compensation, only_when_something_else_waits) {
  // A handler that was put back once counts as two units of work, because of the driver.
  if (always_preempt()) GTEST_SKIP() << "every handler is put back once";
  compensated c;
  hog h;
  asio::post(c.io, h.handler());
  c.work.reset();
  auto ran = c.worker();
  h.wait_until_inside();
  for (int i = 0; i < 3; ++i) c.service().compensate(1);
  EXPECT_EQ(c.spares().active, 0U);
  asio::post(c.io, [] {});
  EXPECT_TRUE(c.compensate(1));
  h.release();
  EXPECT_EQ(ran.get(), 2U);
}

TEST(compensation, a_spare_that_is_stuck_itself_gets_the_next_one_up_to_the_cap) {
  compensated c{with_spares(3)};
  std::deque<hog> hogs(5);
  auto ran = c.worker();
  c.post(hogs[0]);
  for (std::size_t stuck = 1; stuck <= 3; ++stuck) {
    ASSERT_TRUE(c.compensate(stuck));
    c.post(hogs[stuck]);
  }
  asio::post(c.io, hogs[4].handler());
  std::this_thread::sleep_for(5ms);  // the spacing between starts is no reason to refuse
  for (int i = 0; i < 100; ++i) c.service().compensate(4);
  EXPECT_EQ(c.spares().active, 3U);
  EXPECT_EQ(c.spares().started, 3U);
  for (hog& h : hogs) h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), 5U);
}

TEST(compensation, a_series_of_stalls_takes_one_thread) {
  compensated c{with_spares(8)};
  for (int i = 0; i < 20; ++i) {
    c.restart();
    hog h;
    auto ran = c.worker();
    c.post(h);
    ASSERT_TRUE(c.compensate(1));
    ASSERT_TRUE(c.in_handler([] {}));
    for (int n = 0; n < 10; ++n) c.service().compensate(1);
    EXPECT_EQ(c.spares().active, 1U) << "the spare is free";
    h.release();
    c.relieved(0);
    c.work.reset();
    EXPECT_EQ(ran.get(), 2U);
    EXPECT_EQ(c.spares().active, 0U);
  }
  EXPECT_LE(c.spares().started, 2U) << "a second one may start only if the first one parked late";
}

TEST(compensation, starts_are_spaced) {
  auto o = with_spares(64);
  compensated c{o};
  auto ran = c.worker();
  std::deque<hog> hogs(2);
  c.post(hogs[0]);
  // Reports all workers as stuck, again and again.
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) c.service().compensate(100);
  const auto took = std::chrono::steady_clock::now() - start;
  // 2 ms after the first, 4 ms after the second, ...
  std::size_t most = 1;
  for (auto t = 2ms, sum = t; sum <= took; sum += (t = std::min(2 * t, 100ms))) ++most;
  EXPECT_LE(c.spares().active, most);
  hogs[0].release();
  c.work.reset();
  EXPECT_EQ(ran.get(), 1U);
}

// ---- relief

TEST(compensation, a_spare_leaves_after_the_cooldown_and_is_taken_again) {
  compensated c{with_spares(1, 20ms)};
  auto ran = c.worker();
  for (std::uint64_t times = 1; times <= 3; ++times) {
    hog h;
    c.post(h);
    ASSERT_TRUE(c.compensate(1));
    std::this_thread::sleep_for(40ms);
    c.service().compensate(1);
    EXPECT_EQ(c.spares().active, 1U) << "no other worker is free";
    h.release();
    c.relieved(0);
    EXPECT_TRUE(c.all_parked());
    EXPECT_EQ(c.spares().activated, times);
    EXPECT_TRUE(c.in_handler([] {}));  // by the worker
  }
  c.work.reset();
  EXPECT_EQ(ran.get(), 6U);
}

TEST(compensation, a_spare_that_nobody_needs_ends) {
  compensated c{with_spares(1, 1ms)};
  auto ran = c.worker();
  for (std::uint64_t times = 1; times <= 2; ++times) {
    hog h;
    c.post(h);
    ASSERT_TRUE(c.compensate(1));
    h.release();
    c.relieved(0);
    EXPECT_TRUE(until([&] { return c.spares().alive == 0; }));
    EXPECT_EQ(c.spares().started, times);
  }
  c.work.reset();
  EXPECT_EQ(ran.get(), 2U);
}

// ---- counts

TEST(compensation_counts, a_thousand_handlers_with_stalls) {
  for (const std::size_t workers : {1U, 2U}) {
    compensated c{with_spares(3)};
    std::mt19937 random(static_cast<unsigned>(workers));
    constexpr std::size_t total = 1000;
    std::atomic<std::size_t> done{0};
    std::size_t posted_by_handlers = 0;
    for (std::size_t i = 0; i < total; ++i) {
      if (random() % 50 == 0) {
        // Stuck until others have run a few more.
        asio::post(c.io, [&] {
          c.stuck_until([&, wanted = std::min(done + 10, total - 50)] { return done >= wanted; });
          ++done;
        });
      } else if (random() % 3 == 0) {
        ++posted_by_handlers;
        asio::post(c.io, [&] { asio::post(c.io, [&] { ++done; }); });
      } else {
        asio::post(c.io, [&] { ++done; });
      }
    }
    c.work.reset();
    std::size_t ran = 0;
    {
      const compensated::watched watchdog(c);
      ran = run_on(c.io, workers);
    }
    EXPECT_EQ(done, total);
    EXPECT_EQ(ran, total + posted_by_handlers);
    EXPECT_GT(c.spares().activated, 0U);
    EXPECT_EQ(c.spares().active, 0U);
  }
}

TEST(compensation_counts, of_run_for_in_slices) {
  compensated c{with_spares(3)};
  constexpr std::size_t total = 200;
  std::atomic<std::size_t> done{0};
  for (std::size_t i = 0; i < total; ++i) {
    asio::post(c.io, [&, stuck = i % 20 == 0 && i + 20 < total] {
      if (stuck) c.stuck_until([&, wanted = done + 2] { return done >= wanted; });
      std::this_thread::sleep_for(100us);
      ++done;
    });
  }
  c.work.reset();
  std::size_t ran = 0;
  {
    const compensated::watched watchdog(c);
    while (!c.io.stopped()) {
      ran += c.io.run_for(3ms);
      EXPECT_EQ(c.spares().active, 0U) << "a handler ran outside run_for()";
      EXPECT_EQ(ran, done);
    }
  }
  EXPECT_EQ(ran, total);
}

TEST(compensation_counts, of_work_that_is_put_back) {
  compensated c{with_spares(2)};
  c.work.reset();
  const offender over_budget(c.io);
  c.restart();
  std::atomic<int> done{0};
  constexpr int total = 300;
  const auto post_all = [&](auto& io) {
    const auto strand = asio::make_strand(io);
    for (int i = 0; i < total; ++i) {
      if (i % 2 == 0) {
        asio::post(io, [&] { ++done; });
      } else {
        asio::post(strand, [&] { ++done; });
      }
    }
  };
  asio::io_context plain;
  post_all(plain);
  const std::size_t expected = plain.run();
  hog h;
  auto ran = c.worker();
  c.post(h);
  done = 0;
  {
    const asio_pulse::task_scope scope(over_budget);
    post_all(c.io);
  }
  ASSERT_TRUE(c.compensate(1));
  EXPECT_TRUE(until([&] { return done == total; }));
  h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), expected + 1);
  EXPECT_EQ(c.io.stats().parked, 0U);
  EXPECT_GT(c.io.stats().yields, 0U);
}

TEST(compensation_counts, are_not_added_by_run_one_and_poll) {
  compensated c;
  auto ran = std::async(std::launch::async, [&] {
    EXPECT_THROW(c.io.run(), std::runtime_error);
    // What the spare ran is still to be counted, since run() did not return.
    asio::post(c.io, [] {});
    EXPECT_EQ(c.io.run_one(), 1U);
    asio::post(c.io, [] {});
    EXPECT_EQ(c.io.poll_one(), 1U);
    asio::post(c.io, [] {});
    EXPECT_EQ(c.io.poll(), 1U);
    c.work.reset();
    return c.io.run();
  });
  hog h;
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(c.in_handler([] {}));
  hog second;
  c.post(second);  // no spare may run the handlers that follow
  asio::post(c.io, [] { throw std::runtime_error("ends run()"); });
  h.release();
  ASSERT_TRUE(until([&] { return c.spares().active == 1 && h.ended; }));
  second.release();
  EXPECT_EQ(ran.get(), 8U);
}

// ---- no handler outside run()

TEST(compensation_end, stop_returns_when_the_stuck_handler_ends) {
  compensated c;
  hog h;
  auto ran = c.worker();
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  ASSERT_TRUE(c.in_handler([] {}));
  c.io.stop();
  EXPECT_TRUE(c.all_parked()) << "the spare does not wait";
  for (int i = 0; i < 3; ++i) c.service().compensate(1);
  EXPECT_EQ(c.spares().active, 0U) << "the context is stopped";
  EXPECT_FALSE(is_there(ran));
  h.release();
  EXPECT_TRUE(comes(ran));
  EXPECT_EQ(ran.get(), 2U);
}

TEST(compensation_end, the_last_run_to_return_waits_for_handlers_on_spares) {
  compensated c;
  hog on_worker, on_spare;
  auto ran = c.worker();
  c.post(on_worker);
  ASSERT_TRUE(c.compensate(1));
  c.post(on_spare);
  c.io.stop();
  on_worker.release();
  ASSERT_TRUE(until([&] { return on_worker.ended.load(); }));
  EXPECT_FALSE(is_there(ran));
  on_spare.release();
  EXPECT_EQ(ran.get(), 2U);
  EXPECT_TRUE(on_spare.ended);
  EXPECT_EQ(c.spares().active, 0U);
}

TEST(compensation_end, another_run_to_return_does_not) {
  compensated c;
  hog a, b, on_spare;
  auto first = c.worker();
  auto second = c.worker();
  asio::post(c.io, [run = a.handler()]() mutable {
    run();
    throw std::runtime_error("ends run()");
  });
  a.wait_until_inside();
  c.post(b);
  ASSERT_TRUE(c.compensate(2));
  c.post(on_spare);
  a.release();
  EXPECT_TRUE(until([&] { return is_there(first) || is_there(second); }));
  EXPECT_FALSE(on_spare.ended);
  on_spare.release();
  b.release();
  c.work.reset();
  std::size_t ran = 0;
  int threw = 0;
  for (auto* f : {&first, &second}) {
    try {
      ran += f->get();
    } catch (const std::runtime_error&) {
      ++threw;
    }
  }
  EXPECT_EQ(threw, 1);
  EXPECT_EQ(ran, 2U);
}

TEST(compensation_end, an_idle_spare_keeps_no_run_alive) {
  compensated c;
  hog h;
  auto ran = c.worker();
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  c.work.reset();
  h.release();
  EXPECT_TRUE(comes(ran));
  EXPECT_EQ(ran.get(), 1U);
  EXPECT_TRUE(c.io.stopped());
}

TEST(compensation_end, restart_and_run_again) {
  compensated c;
  for (int i = 0; i < 50; ++i) {
    c.restart();
    hog h;
    auto ran = c.worker();
    c.post(h);
    ASSERT_TRUE(c.compensate(1));
    std::atomic<int> more{0};
    for (int n = 0; n < 5; ++n) asio::post(c.io, [&] { ++more; });
    c.work.reset();
    h.release();
    EXPECT_EQ(ran.get(), 6U);
    EXPECT_EQ(more, 5);
    // No thread stops the context between restart() and run().
    c.io.restart();
    asio::post(c.io, [&] { ++more; });
    EXPECT_FALSE(c.io.stopped());
    EXPECT_EQ(c.io.run(), 1U);
  }
}

TEST(compensation_end, destroyed_with_work_left) {
  std::optional<compensated> c{std::in_place, with_spares(2)};
  const auto alive = std::make_shared<int>(0);
  {
    hog h, second;
    auto ran = c->worker();
    c->post(h);
    ASSERT_TRUE(c->compensate(1));
    c->post(second);
    for (int i = 0; i < 10; ++i) asio::post(c->io, [alive] {});
    c->io.stop();
    h.release();
    second.release();
    EXPECT_EQ(ran.get(), 2U);
  }
  EXPECT_EQ(alive.use_count(), 11);
  c.reset();
  EXPECT_EQ(alive.use_count(), 1);
}

// ---- order

TEST(compensation_order, within_a_strand_and_a_tasks_executor) {
  compensated c{with_spares(3)};
  const asio_pulse::task t{c.io, unlimited("ordered")};
  const auto strand = asio::make_strand(c.io);
  std::vector<int> in_strand;  // unguarded on purpose
  std::vector<int> in_task;
  std::atomic<int> done{0};
  constexpr int total = 500;
  for (int i = 0; i < total; ++i) {
    asio::post(strand, [&, i] {
      in_strand.push_back(i);
      ++done;
    });
    asio::post(t.get_executor(), [&, i] {
      in_task.push_back(i);
      // Stuck until the other half continues.
      if (i % 50 == 0) {
        c.stuck_until([&, wanted = std::min(done + 1, total)] { return done >= wanted; });
      }
    });
  }
  c.work.reset();
  {
    const compensated::watched watchdog(c);
    EXPECT_GT(c.io.run(), 0U);
  }
  EXPECT_THAT(in_strand, ElementsAreArray(counting_to(total)));
  EXPECT_THAT(in_task, ElementsAreArray(counting_to(total)));
}

TEST(compensation_end, others_go_on_while_run_for_waits_for_a_stuck_spare) {
  constexpr auto length = 100ms;  // time enough to begin, on a busy machine too
  compensated c{with_spares(2)};
  std::atomic<bool> release_worker{false};
  std::atomic<bool> progress{false};
  std::promise<void> inside;
  asio::post(c.io, [&] { c.stuck_until([&] { return release_worker.load(); }); });
  auto ran = std::async(std::launch::async, [&] { return c.io.run_for(length); });
  const compensated::watched watchdog(c);
  asio::post(c.io, [&] {
    inside.set_value();
    c.stuck_until([&] { return progress.load(); });
  });
  inside.get_future().wait();  // on the spare
  release_worker = true;
  std::this_thread::sleep_for(length);  // run_for() waits now; if not yet, it will
  asio::post(c.io, [&] { progress = true; });
  EXPECT_TRUE(comes(ran));
  EXPECT_EQ(ran.get(), 3U);
}

// ---- and with the watchdog itself

TEST(compensation_watched, one_worker_and_hogs_that_never_yield) {
  auto o = steady();
  o.watchdog = true;
  o.stall_threshold = 1ms;
  o.spare_workers = 1;
  asio_pulse::io_context io{o};
  std::atomic<int> probes{0};
  std::atomic<int> turns{0};
  // Each turn ends only after the probe has run beside it.
  std::function<void()> turn = [&] {
    const int seen = probes;
    while (probes < seen + 3) {
    }
    if (++turns < 10) asio::post(io, turn);
  };
  asio::steady_timer timer(io);
  std::function<void(boost::system::error_code)> nap = [&](auto) {
    ++probes;
    if (turns == 10) return;
    timer.expires_after(1ms);
    timer.async_wait(nap);
  };
  asio::post(io, turn);
  nap({});
  const auto ran = io.run();
  EXPECT_EQ(ran, static_cast<std::size_t>(turns + probes - 1));  // the first turn ran no handler
  EXPECT_EQ(io.stats().spares_started, 1U);
}

TEST(compensation_watched, stalls_by_the_dozen_lose_nothing) {
  auto o = steady();
  o.watchdog = true;
  o.stall_threshold = 1ms;
  o.spare_workers = 2;
  o.spare_cooldown = 5ms;
  asio_pulse::io_context io{o};
  constexpr int total = 2000;
  std::atomic<int> done{0};
  std::mt19937 random(7);
  for (int i = 0; i < total; ++i) {
    asio::post(io, [&, stall = random() % 100 == 0] {
      if (stall) std::this_thread::sleep_for(4ms);
      ++done;
    });
  }
  EXPECT_EQ(run_on(io, 2), static_cast<std::size_t>(total));
  EXPECT_EQ(done, total);
}

}  // namespace
