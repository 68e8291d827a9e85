// SPDX-License-Identifier: BSL-1.0

// Interaction with the rest of Asio: legacy strands, completion tokens, cancellation, other
// contexts and pools, forks, and contexts without locks.

#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <boost/asio/io_context_strand.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>

#include <future>
#include <optional>
#include <set>
#include <stdexcept>

#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using boost::system::error_code;
using testing::AllOf;
using testing::Each;
using testing::ElementsAreArray;
using testing::SizeIs;

class interplay : public testing::TestWithParam<std::size_t> {
 protected:
  asio_pulse::io_context io{steady()};
};
INSTANTIATE_TEST_SUITE_P(threads, interplay, testing::Values(1, 2),
                         testing::PrintToStringParamName());

// ---- legacy strands

TEST_P(interplay, legacy_strand_keeps_order_excludes_and_inherits) {
  const offender hog(io);
  asio::io_context::strand strand(io);
  std::vector<int> order;
  std::vector<std::uint64_t> whose;
  std::atomic<int> inside{0};
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 1000; ++i) {
      asio::post(strand, [&, i] {
        const alone here(inside);
        order.push_back(i);
        whose.push_back(asio_pulse::this_task::id());
      });
    }
  }
  for (int i = 0; i < 200; ++i) asio_pulse::post(hog, [] {});
  run_on(io, GetParam());
  EXPECT_THAT(order, ElementsAreArray(counting_to(1000)));
  EXPECT_THAT(whose, AllOf(SizeIs(1000), Each(hog.task.id())));
}

TEST_P(interplay, legacy_strand_wrap_and_dispatch_inside_it) {
  const offender hog(io);
  asio::io_context::strand strand(io);
  int ran = 0;
  std::atomic<int> inside{0};
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 200; ++i) {
      asio::post(io, asio::bind_executor(strand, [&] {
                   const alone here(inside);
                   EXPECT_TRUE(strand.running_in_this_thread());
                   bool inline_ran = false;
                   asio::dispatch(strand, [&] { inline_ran = true; });
                   EXPECT_TRUE(inline_ran);
                   asio::post(io, [] {});
                   ++ran;
                 }));
    }
  }
  run_on(io, GetParam());
  EXPECT_EQ(ran, 200);
}

TEST_P(interplay, nested_poll_inside_a_legacy_strand) {
  const offender hog(io);
  asio::io_context::strand strand(io);
  int ran = 0;
  std::atomic<int> others{0};
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 20; ++i) {
      asio::post(strand, [&] {
        for (int n = 0; n < 5; ++n) asio::post(io, [&] { ++others; });
        io.poll();
        ++ran;
      });
    }
  }
  run_on(io, GetParam());
  EXPECT_EQ(ran, 20);
  EXPECT_EQ(others, 100);
}

// ---- tokens

TEST_P(interplay, co_spawn_with_every_kind_of_token) {
  const offender hog(io);
  const asio_pulse::task& t = hog;
  const auto answer = [this](int n) -> asio::awaitable<int> {
    co_await asio::post(io, asio::use_awaitable);
    if (n < 0) throw std::runtime_error("negative");
    co_return n;
  };
  const auto nothing = [this]() -> asio::awaitable<void> {
    co_await asio::post(io, asio::use_awaitable);
  };
  int called = 0;
  std::future<int> value = asio_pulse::co_spawn(t, answer(1), asio::use_future);
  std::future<int> failed = asio_pulse::co_spawn(t, answer(-1), asio::use_future);
  std::future<void> none = asio_pulse::co_spawn(t, nothing, asio::use_future);
  asio_pulse::co_spawn(t, answer(2), asio::detached);
  std::atomic<int> got{0};
  asio_pulse::co_spawn(t, answer(3), [&](std::exception_ptr e, int n) {
    EXPECT_FALSE(e);
    EXPECT_EQ(n, 3);
    EXPECT_EQ(asio_pulse::this_task::id(), t.id());
    ++got;
  });
  asio_pulse::co_spawn(t, answer(-3), [&](std::exception_ptr e, int) {
    EXPECT_TRUE(e);
    ++got;
  });
  asio_pulse::co_spawn(
      t, [&] { return answer(4); },
      [&](std::exception_ptr, int n) {
        EXPECT_EQ(n, 4);
        ++got;
      });
  asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<void> {
        called = co_await asio_pulse::co_spawn(t, answer(5), asio::use_awaitable);
        called += co_await asio_pulse::co_spawn(
            t, [&] { return answer(6); }, asio::use_awaitable);
        co_await asio_pulse::post(t, asio::use_awaitable);
        co_await asio_pulse::dispatch(t, asio::use_awaitable);
        co_await asio_pulse::defer(t, asio::use_awaitable);
      },
      asio::detached);
  std::future<void> posted = asio_pulse::post(t, asio::use_future);
  run_on(io, GetParam());
  EXPECT_EQ(value.get(), 1);
  EXPECT_THROW(failed.get(), std::runtime_error);
  none.get();
  posted.get();
  EXPECT_EQ(got, 3);
  EXPECT_EQ(called, 11);
}

TEST_P(interplay, the_same_tokens_on_an_isolatable_tasks_executor) {
  auto o = unlimited("movable");
  o.isolatable = true;
  const asio_pulse::task t{io, o};
  const auto answer = [&](int n) -> asio::awaitable<int> {
    asio::steady_timer timer(co_await asio::this_coro::executor, 100us);
    co_await timer.async_wait(asio::use_awaitable);
    EXPECT_TRUE(t.get_executor().running_in_this_thread());
    co_return n;
  };
  std::future<int> value = asio_pulse::co_spawn(t, answer(1), asio::use_future);
  int sum = 0;
  asio_pulse::co_spawn(t, answer(2), [&](std::exception_ptr, int n) { sum += n; });
  asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<void> {
        sum += co_await asio_pulse::co_spawn(t, answer(3), asio::use_awaitable);
      },
      asio::detached);
  run_on(io, GetParam());
  EXPECT_EQ(value.get(), 1);
  EXPECT_EQ(sum, 5);
}

// ---- cancellation

TEST_P(interplay, timers_whose_completions_are_parked_can_be_cancelled_and_destroyed) {
  const offender hog(io);
  std::atomic<int> ran{0};
  std::atomic<int> cancelled{0};
  std::vector<std::unique_ptr<asio::steady_timer>> timers;
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 100; ++i) {
      timers.push_back(std::make_unique<asio::steady_timer>(io, i % 2 == 0 ? 0ns : 1h));
      timers.back()->async_wait([&](error_code ec) {
        ++ran;
        cancelled += ec == asio::error::operation_aborted;
      });
    }
  }
  // Expired ones are queued or parked by then; the others complete as cancelled.
  for (int i = 0; i < 3; ++i) io.poll_one();
  for (auto& t : timers) t->cancel();
  timers.clear();
  run_on(io, GetParam());
  EXPECT_EQ(ran, 100);
  EXPECT_GE(cancelled, 50);
}

TEST_P(interplay, cancellation_signals_reach_operations_of_a_parked_task) {
  const offender hog(io);
  asio::cancellation_signal signal;
  asio::steady_timer timer(io, 1h);
  std::atomic<int> aborted{0};
  {
    const asio_pulse::task_scope scope(hog);
    timer.async_wait(asio::bind_cancellation_slot(signal.slot(), [&](error_code ec) {
      EXPECT_EQ(asio_pulse::this_task::id(), hog.task.id());
      aborted += ec == asio::error::operation_aborted;
    }));
  }
  asio::post(io, [&] { signal.emit(asio::cancellation_type::all); });
  run_on(io, GetParam());
  EXPECT_EQ(aborted, 1);
}

TEST_P(interplay, a_coroutine_of_a_parked_task_is_cancelled) {
  const offender hog(io);
  asio::cancellation_signal signal;
  std::exception_ptr result;
  bool waiting = false;
  asio_pulse::co_spawn(
      hog,
      [&]() -> asio::awaitable<void> {
        asio::steady_timer timer(io, 1h);
        // On one thread, so this is run when the coroutine waits.
        asio::post(io, [&] {
          waiting = true;
          signal.emit(asio::cancellation_type::all);
        });
        co_await timer.async_wait(asio::use_awaitable);
      },
      asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e) { result = e; }));
  io.run();
  EXPECT_TRUE(waiting);
  EXPECT_TRUE(result);
}

TEST_P(interplay, sockets_of_a_parked_task_keep_results_and_bytes) {
  const offender hog(io);
  constexpr std::size_t size = 20'000;
  asio::local::stream_protocol::socket near(io);
  asio::local::stream_protocol::socket far(io);
  asio::local::connect_pair(near, far);
  std::string sent;
  for (std::size_t i = 0; i < size; ++i) sent += static_cast<char>('a' + i % 26);
  std::string received;
  asio_pulse::co_spawn(
      hog,
      [&]() -> asio::awaitable<void> {
        char some[37];
        for (;;) {
          const auto [ec, n] = co_await near.async_read_some(
              asio::buffer(some), asio::experimental::as_tuple(asio::use_awaitable));
          received.append(some, n);
          if (ec) {
            EXPECT_EQ(ec, asio::error::eof);
            co_return;
          }
        }
      },
      asio::detached);
  asio_pulse::co_spawn(
      hog,
      [&]() -> asio::awaitable<void> {
        for (std::size_t at = 0; at < size; at += 100) {
          co_await asio::async_write(far, asio::buffer(sent.data() + at, 100), asio::use_awaitable);
        }
        far.close();
      },
      asio::detached);
  run_on(io, GetParam());
  EXPECT_EQ(received, sent);
}

// ---- other contexts and pools

TEST_P(interplay, a_task_that_a_thread_pool_works_for) {
  const offender hog(io);
  asio::thread_pool pool(2);
  std::atomic<int> there{0};
  std::atomic<int> back{0};
  std::atomic<bool> right{true};
  auto work = asio::make_work_guard(io);
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 500; ++i) {
      asio::post(pool, [&] {
        if (asio_pulse::this_task::id() != hog.task.id()) right = false;
        if (asio_pulse::should_yield()) right = false;
        ++there;
        asio::post(io, [&] {
          if (asio_pulse::this_task::id() != hog.task.id()) right = false;
          ++back;
        });
      });
    }
  }
  std::thread waiter([&] {
    pool.join();
    work.reset();
  });
  run_on(io, GetParam());
  waiter.join();
  EXPECT_EQ(there, 500);
  EXPECT_EQ(back, 500);
  EXPECT_TRUE(right) << "the task goes along, and nothing is asked of a pool that is not ours";
}

TEST_P(interplay, a_task_that_another_context_of_ours_works_for_is_charged_there_too) {
  asio_pulse::io_context other{steady()};
  const asio_pulse::task t{io, unlimited("visitor")};
  const asio_pulse::task hog{io, stingy("hog")};
  std::atomic<int> ran{0};
  for (int i = 0; i < 300; ++i) {
    const asio_pulse::task_scope scope(t);
    asio::post(io, [&] { ++ran; });
    asio::post(other, [&] { ++ran; });
  }
  for (int i = 0; i < 30; ++i) {
    const asio_pulse::task_scope scope(hog);
    asio::post(io, [&] {
      burn(100us);
      ++ran;
    });
    asio::post(other, [&] {
      burn(100us);
      ++ran;
    });
  }
  std::thread second([&] { run_on(other, GetParam()); });
  run_on(io, GetParam());
  second.join();
  EXPECT_EQ(ran, 660);
  EXPECT_EQ(t.stats().polls, 600U);
  EXPECT_EQ(hog.stats().polls, 60U);
  EXPECT_EQ(hog.current_tier(), asio_pulse::tier::yield);
}

TEST_P(interplay, contexts_run_inside_each_others_handlers) {
  asio_pulse::io_context other{steady()};
  asio::io_context plain;
  const asio_pulse::task a{io, unlimited("a")};
  const asio_pulse::task b{other, unlimited("b")};
  std::atomic<int> ran{0};
  for (int i = 0; i < 20; ++i) {
    asio_pulse::post(a, [&, i] {
      asio_pulse::post(b, [&] { ++ran; });
      asio::post(plain, [&] { ++ran; });
      if (GetParam() == 1) {
        EXPECT_EQ(other.poll(), 1U) << i;
        other.restart();
        EXPECT_EQ(plain.poll(), 1U) << i;
        plain.restart();
      }
      EXPECT_EQ(asio_pulse::this_task::id(), a.id());
    });
  }
  run_on(io, GetParam());
  other.restart();
  other.run();
  plain.restart();
  plain.run();
  EXPECT_EQ(ran, 40);
  // With one thread, what a's handlers posted to the plain context ran inside them, as a's.
  EXPECT_EQ(a.stats().polls, GetParam() == 1 ? 40U : 20U);
  EXPECT_EQ(b.stats().polls, 20U);
}

TEST_P(interplay, strand_over_a_thread_pool_of_a_task_under_measures) {
  const offender hog(io);
  asio::thread_pool pool(2);
  const auto strand = asio::make_strand(pool);
  std::vector<int> order;
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 500; ++i) asio::post(strand, [&order, i] { order.push_back(i); });
  }
  pool.join();
  EXPECT_THAT(order, ElementsAreArray(counting_to(500)));
}

TEST_P(interplay, many_contexts_on_their_own_threads) {
  std::atomic<int> ran{0};
  on_threads(4, [&](std::size_t) {
    asio_pulse::io_context own{steady()};
    const offender hog(own);
    for (int i = 0; i < 200; ++i) asio_pulse::post(hog, [&] { ++ran; });
    own.run();
  });
  EXPECT_EQ(ran, 800);
}

// ---- forks

#if defined(__linux__)
int exit_code_of_child(const std::function<bool()>& f) {
  const pid_t child = fork();
  if (child == 0) _exit(f() ? 0 : 1);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(fork_test, parent_and_child_go_on_with_parked_work) {
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer does not follow forks";
#endif
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  int ran = 0;
  for (int i = 0; i < 100; ++i) asio_pulse::post(hog, [&] { ++ran; });
  for (int i = 0; i < 10; ++i) io.run_one();
  io.notify_fork(asio::io_context::fork_prepare);
  const int code = exit_code_of_child([&] {
    io.notify_fork(asio::io_context::fork_child);
    io.run();
    asio::steady_timer timer(io, 1ms);
    timer.async_wait([&](error_code) { ++ran; });
    asio_pulse::post(hog, [&] { ++ran; });
    io.restart();
    io.run();
    return ran == 102;
  });
  io.notify_fork(asio::io_context::fork_parent);
  EXPECT_EQ(code, 0);
  EXPECT_EQ(ran, 10);
  io.run();
  EXPECT_EQ(ran, 100);
}

TEST(fork_test, inside_a_handler) {
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer does not follow forks";
#endif
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  int code = -1;
  asio_pulse::post(t, [&] {
    io.notify_fork(asio::io_context::fork_prepare);
    code = exit_code_of_child([&] {
      io.notify_fork(asio::io_context::fork_child);
      int ran = 0;
      for (int i = 0; i < 10; ++i) asio_pulse::post(t, [&] { ++ran; });
      return io.poll() == 10 && ran == 10 && asio_pulse::this_task::id() == t.id();
    });
    io.notify_fork(asio::io_context::fork_parent);
  });
  EXPECT_EQ(io.run(), 1U);
  EXPECT_EQ(code, 0);
}

TEST(fork_test, the_isolation_pool_works_in_the_child) {
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer does not follow forks";
#endif
  asio_pulse::io_context io{steady_isolating()};
  auto o = stingy("movable");
  o.isolatable = true;
  const asio_pulse::task t{io, o};
  climb_to_isolate(io, t);
  const auto away = [&] {
    std::thread::id where;
    asio_pulse::post(t, [&] { where = std::this_thread::get_id(); });
    io.restart();
    io.run();
    return where != std::thread::id{} && where != std::this_thread::get_id();
  };
  EXPECT_TRUE(away());
  io.notify_fork(asio::io_context::fork_prepare);
  const int code = exit_code_of_child([&] {
    io.notify_fork(asio::io_context::fork_child);
    return away() && away();
  });
  io.notify_fork(asio::io_context::fork_parent);
  EXPECT_EQ(code, 0);
  EXPECT_TRUE(away());
}
#endif

// ---- concurrency hints

TEST(concurrency_hints, each_one_parks_breaks_strands_and_loses_nothing) {
  for (const int hint : {1, 2, -1, BOOST_ASIO_CONCURRENCY_HINT_UNSAFE,
                         BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO, BOOST_ASIO_CONCURRENCY_HINT_SAFE}) {
    asio_pulse::options o = steady();
    o.min_slice = 1us;  // so short that a batch of a hundred handlers does not end within a slice
    asio_pulse::io_context io{o, hint};
    const offender hog(io);
    const auto strand = asio::make_strand(io);
    std::vector<int> order;
    std::vector<int> in_strand;
    std::vector<int> queued;
    for (int i = 0; i < 100; ++i) {
      asio_pulse::post(hog, [&, i] { order.push_back(i); });
      asio::post(hog.task.get_executor(), [&, i] { queued.push_back(i); });
      const asio_pulse::task_scope scope(hog);
      asio::post(strand, [&, i] { in_strand.push_back(i); });
    }
    asio::steady_timer timer(io, 1ms);
    bool fired = false;
    timer.async_wait([&](error_code) { fired = true; });
    io.run();
    EXPECT_THAT(order, ElementsAreArray(counting_to(100))) << hint;
    EXPECT_THAT(in_strand, ElementsAreArray(counting_to(100))) << hint;
    EXPECT_THAT(queued, ElementsAreArray(counting_to(100))) << hint;
    EXPECT_TRUE(fired) << hint;
    EXPECT_GT(io.stats().strand_breaks, 0U) << hint;
    EXPECT_EQ(io.stats().parked, 0U) << hint;
  }
}

// ---- drop-in

void takes_the_base(asio::io_context& io, std::vector<int>& order) {
  const asio::executor_work_guard<asio::io_context::executor_type> work(io.get_executor());
  static_assert(
      std::is_same_v<asio_pulse::io_context::executor_type, asio::io_context::executor_type>);
  asio::post(io, [&] { order.push_back(1); });
  asio::post(io.get_executor(), [&] { order.push_back(2); });
  io.get_executor().execute([&] { order.push_back(3); });
  EXPECT_EQ(&asio::query(io.get_executor(), asio::execution::context), &io);
}

TEST(drop_in, code_written_against_the_base_class) {
  asio_pulse::io_context io;
  std::vector<int> order;
  takes_the_base(io, order);
  EXPECT_EQ(io.run(), 3U);
  EXPECT_THAT(order, testing::ElementsAre(1, 2, 3));
  EXPECT_TRUE(io.stopped());
}

}  // namespace
