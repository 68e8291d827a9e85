// SPDX-License-Identifier: BSL-1.0

// Which task an operation belongs to: the one that its executor or spawn names, otherwise that of
// the scope, otherwise that of the handler that created it; and the rule for accepted connections.
// (tests/compat/hooks tests the same for every kind of handler and every Boost.)

#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/spawn.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>

#include <array>
#include <memory>
#include <optional>
#include <set>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio::ip::tcp;
using boost::system::error_code;
using testing::AllOf;
using testing::Each;
using testing::SizeIs;

class identity : public testing::TestWithParam<std::size_t> {
 protected:
  void note() {
    const std::lock_guard lock(mutex);
    seen.push_back(asio_pulse::this_task::id());
  }
  auto noting() {
    return [this](auto&&...) { note(); };
  }
  /// Runs the context beside another task's work; every note() must have been made as work of
  /// `work`.
  void expect_all_works(std::size_t count) {
    std::atomic<bool> others_right{true};
    for (int i = 0; i < 100; ++i) {
      asio_pulse::post(other, [&] {
        if (asio_pulse::this_task::id() != other.id()) others_right = false;
      });
    }
    run_on(io, GetParam());
    EXPECT_THAT(seen, AllOf(SizeIs(count), Each(work.id())));
    EXPECT_TRUE(others_right);
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
  }

  asio_pulse::io_context io{steady()};
  const asio_pulse::task work{io, unlimited("work")};
  const asio_pulse::task other{io, unlimited("other")};
  std::mutex mutex;
  std::vector<std::uint64_t> seen;
};
INSTANTIATE_TEST_SUITE_P(threads, identity, testing::Values(1, 2),
                         testing::PrintToStringParamName());

TEST_P(identity, none_outside) {
  EXPECT_EQ(asio_pulse::this_task::id(), 0U);
  asio::post(io, noting());
  run_on(io, GetParam());
  EXPECT_THAT(seen, testing::ElementsAre(0U));
}

TEST_P(identity, ids_are_unique_and_never_zero) {
  std::set<std::uint64_t> ids{work.id(), other.id()};
  for (int i = 0; i < 100; ++i) ids.insert(asio_pulse::task{io, {}}.id());
  EXPECT_EQ(ids.size(), 102U);
  EXPECT_FALSE(ids.contains(0));
}

TEST_P(identity, named_by_post_defer_and_dispatch) {
  asio_pulse::post(work, noting());
  asio_pulse::defer(work, noting());
  asio_pulse::dispatch(work, noting());
  expect_all_works(3);
}

TEST_P(identity, named_by_the_executor) {
  const auto ex = work.get_executor();
  asio::post(ex, noting());
  asio::defer(ex, noting());
  asio::dispatch(ex, noting());
  ex.execute(noting());
  asio::post(asio::any_io_executor(ex), noting());
  asio::post(asio::make_strand(ex), noting());
  {
    const asio_pulse::task_scope scope(other);  // the executor takes precedence
    asio::post(ex, noting());
  }
  expect_all_works(7);
}

TEST_P(identity, named_by_the_innermost_scope) {
  {
    const asio_pulse::task_scope outside(other);
    EXPECT_EQ(asio_pulse::this_task::id(), other.id());
    {
      const asio_pulse::task_scope scope(work);
      EXPECT_EQ(asio_pulse::this_task::id(), work.id());
      asio::post(io, noting());
    }
    EXPECT_EQ(asio_pulse::this_task::id(), other.id());
  }
  expect_all_works(1);
}

TEST_P(identity, inherited_through_posts_strands_and_timers) {
  const auto strand = asio::make_strand(io);
  asio::steady_timer timer(io);
  asio_pulse::post(work, [&] {
    asio::post(io, [&] {
      note();
      asio::post(strand, [&] {
        note();
        asio::dispatch(strand, noting());
        asio::defer(io, [&] {
          note();
          timer.expires_after(1ms);
          timer.async_wait([&](error_code) {
            note();
            timer.async_wait(asio::bind_executor(strand, noting()));
          });
        });
      });
    });
  });
  expect_all_works(6);
}

TEST_P(identity, a_strand_shared_by_tasks_keeps_each_handlers_own) {
  const auto strand = asio::make_strand(io);
  std::vector<std::uint64_t> got;
  std::vector<std::uint64_t> expected;
  for (int i = 0; i < 200; ++i) {
    const asio_pulse::task& t = i % 2 == 0 ? work : other;
    expected.push_back(t.id());
    const asio_pulse::task_scope scope(t);
    asio::post(strand, [&] { got.push_back(asio_pulse::this_task::id()); });
  }
  run_on(io, GetParam());
  EXPECT_EQ(got, expected);
  EXPECT_EQ(work.stats().polls, 100U);
  EXPECT_EQ(other.stats().polls, 100U);
}

TEST_P(identity, inherited_through_sockets) {
  asio::local::stream_protocol::socket near(io);
  asio::local::stream_protocol::socket far(io);
  asio::local::connect_pair(near, far);
  std::array<char, 3> in{};
  {
    const asio_pulse::task_scope scope(work);
    asio::async_read(near, asio::buffer(in), noting());
    near.async_wait(asio::socket_base::wait_write, noting());
  }
  asio_pulse::post(other, [&] { asio::write(far, asio::buffer("abc", 3)); });
  expect_all_works(2);
}

TEST_P(identity, inherited_through_a_coroutine_and_its_children) {
  const auto child = [this]() -> asio::awaitable<int> {
    note();
    co_await asio::post(io, asio::use_awaitable);
    note();
    co_return 1;
  };
  asio_pulse::co_spawn(
      work,
      [&, this]() -> asio::awaitable<void> {
        note();
        int n = co_await child();
        note();
        asio::steady_timer timer(co_await asio::this_coro::executor, 1ms);
        co_await timer.async_wait(asio::use_awaitable);
        note();
        n += co_await asio::co_spawn(io, child(), asio::use_awaitable);
        note();
        EXPECT_EQ(n, 2);
      },
      asio::detached);
  expect_all_works(8);
}

TEST_P(identity, inherited_through_parallel_coroutines) {
  using namespace asio::experimental::awaitable_operators;
  const auto child = [this]() -> asio::awaitable<void> {
    asio::steady_timer timer(co_await asio::this_coro::executor, 1ms);
    co_await timer.async_wait(asio::use_awaitable);
    note();
  };
  asio_pulse::co_spawn(
      work,
      [&, this]() -> asio::awaitable<void> {
        co_await (child() && child());
        note();
      },
      asio::detached);
  expect_all_works(3);
}

TEST_P(identity, inherited_through_a_stackful_coroutine) {
#if defined(PULSE_TEST_TSAN)
  // If it is resumed on another thread, ThreadSanitizer's record of the calls moves with it.
  if (GetParam() > 1) GTEST_SKIP() << "Asio's own switches are unknown to ThreadSanitizer";
#endif
  asio_pulse::spawn(
      work,
      [this](asio::yield_context yield) {
        note();
        asio::steady_timer timer(io, 1ms);
        timer.async_wait(yield);
        note();
        asio::post(io, yield);
        note();
        ASIO_PULSE_PREEMPTION_BUDGET(1ms);
      },
      asio::detached);
  expect_all_works(3);
}

TEST_P(identity, each_end_of_a_channel_keeps_its_own) {
  using channel = asio::experimental::channel<void(error_code, int)>;
  channel c(io, 0);
  std::vector<std::uint64_t> sender;
  const auto strand = asio::make_strand(io);
  asio::co_spawn(
      strand, [&]() -> asio::awaitable<void> { co_return; }, asio::detached);
  {
    const asio_pulse::task_scope scope(work);
    asio::co_spawn(
        strand,
        [&, this]() -> asio::awaitable<void> {
          for (int i = 0; i < 20; ++i) {
            EXPECT_EQ(co_await c.async_receive(asio::use_awaitable), i);
            note();
          }
        },
        asio::detached);
  }
  {
    const asio_pulse::task_scope scope(other);
    asio::co_spawn(
        strand,
        [&]() -> asio::awaitable<void> {
          for (int i = 0; i < 20; ++i) {
            co_await c.async_send(error_code{}, i, asio::use_awaitable);
            sender.push_back(asio_pulse::this_task::id());
          }
        },
        asio::detached);
  }
  expect_all_works(20);
  EXPECT_THAT(sender, AllOf(SizeIs(20), Each(other.id())));
}

TEST_P(identity, inherited_through_deferred_and_futures) {
  std::future<void> done;
  {
    const asio_pulse::task_scope scope(work);
    done = asio::post(io, asio::use_future([this] { note(); }));
    asio::post(io, asio::deferred)(noting());
  }
  expect_all_works(2);
  done.get();
}

TEST_P(identity, kept_across_parking) {
  const offender hog(io);
  std::vector<std::uint64_t> got;
  std::mutex m;
  std::function<void(int)> down = [&](int left) {
    {
      const std::lock_guard lock(m);
      got.push_back(asio_pulse::this_task::id());
    }
    if (left > 0) asio::post(io, [&, left] { down(left - 1); });
  };
  asio_pulse::post(hog, [&] { down(100); });
  expect_all_works(0);
  EXPECT_THAT(got, AllOf(SizeIs(101), Each(hog.task.id())));
}

TEST_P(identity, a_nested_poll_gives_the_handler_its_task_back) {
  std::vector<std::uint64_t> got;
  for (int i = 0; i < 50; ++i) {
    asio_pulse::post(work, [&] {
      io.poll();
      note();
      io.poll_one();
      note();
    });
  }
  expect_all_works(100);
}

using identity_timing = identity;
INSTANTIATE_TEST_SUITE_P(threads, identity_timing, testing::Values(1, 2),
                         testing::PrintToStringParamName());

TEST_P(identity_timing, polls_and_cpu_are_charged_to_it) {
  // Repeated if a busy machine has disturbed it: a lap that the clock cannot vouch for is charged
  // with its wall time.
  EXPECT_TRUE(holds_in_one_of(20, [this]() -> testing::AssertionResult {
    const asio_pulse::task busy{io, unlimited("busy")};
    const asio_pulse::task idle{io, unlimited("idle")};
    for (int i = 0; i < 20; ++i) {
      asio_pulse::post(busy, [] { burn(500us); });
      asio_pulse::post(idle, [] {});
    }
    io.restart();
    run_on(io, GetParam());
    EXPECT_EQ(busy.stats().polls, 20U);
    EXPECT_EQ(idle.stats().polls, 20U);
    EXPECT_GE(busy.stats().cpu, 20 * 490us)
        << "at least the CPU time that was used, except for the error of the calibration";
    if (idle.stats().cpu < 20 * 490us) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "idle used " << idle.stats().cpu.count() << " ns";
  }));
}

// ---- accepted connections

struct listener_test {
  explicit listener_test(asio_pulse::options o) : io(std::move(o)) {}

  /// Accepts `count` connections; note what is current in each accept handler, and in what each
  /// session does afterwards.
  void run(int count) {
    asio_pulse::task_scope scope(listener);
    accept(count);
    for (int i = 0; i < count; ++i) {
      clients.push_back(std::make_unique<tcp::socket>(io));
    }
    asio_pulse::post(client, [this] {
      for (auto& c : clients) {
        c->async_connect(acceptor.local_endpoint(), [&, s = c.get()](error_code ec) {
          EXPECT_FALSE(ec) << ec.message();
          EXPECT_EQ(asio_pulse::this_task::id(), client.id());
          asio::async_write(*s, asio::buffer("x", 1), [](error_code, std::size_t) {});
        });
      }
    });
    io.run();
  }
  void accept(int left) {
    acceptor.async_accept([this, left](error_code ec, tcp::socket s) {
      EXPECT_FALSE(ec) << ec.message();
      in_accept.push_back(asio_pulse::this_task::id());
      auto session = std::make_shared<tcp::socket>(std::move(s));
      auto byte = std::make_shared<char>();
      session->async_read_some(
          asio::buffer(byte.get(), 1), [this, session, byte](error_code, std::size_t) {
            in_session.push_back(asio_pulse::this_task::id());
            asio::post(io, [this, session] { in_session.push_back(asio_pulse::this_task::id()); });
          });
      if (left > 1) accept(left - 1);
    });
  }

  asio_pulse::io_context io;
  const asio_pulse::task listener{io, unlimited("listener")};
  const asio_pulse::task client{io, unlimited("client")};
  tcp::acceptor acceptor{io, tcp::endpoint{asio::ip::address_v4::loopback(), 0}};
  std::vector<std::unique_ptr<tcp::socket>> clients;
  std::vector<std::uint64_t> in_accept;
  std::vector<std::uint64_t> in_session;
};

TEST(accept_rule, each_connection_is_a_task_of_its_own) {
  auto o = steady();
  o.accepted.name = "visitor";
  listener_test t(o);
  std::vector<std::pair<std::string, std::uint64_t>> spawned;
  const auto hook = t.io.hooks().install(
      {.task_spawned = [&](const auto& e) { spawned.emplace_back(e.task_name, e.parent_id); }});
  t.run(5);
  const std::set<std::uint64_t> tasks(t.in_accept.begin(), t.in_accept.end());
  EXPECT_EQ(tasks.size(), 5U);
  EXPECT_FALSE(tasks.contains(t.listener.id()));
  EXPECT_FALSE(tasks.contains(0));
  EXPECT_EQ(t.in_session.size(), 10U);
  for (const std::uint64_t id : tasks) {
    EXPECT_EQ(std::count(t.in_session.begin(), t.in_session.end(), id), 2) << "task " << id;
  }
  EXPECT_THAT(spawned, AllOf(SizeIs(5), Each(testing::Pair("visitor", t.listener.id()))));
  // All five accepts belonged to the listener, and none to a connection.
  EXPECT_EQ(t.listener.stats().polls, 5U);
  EXPECT_EQ(t.io.stats().tasks, 2U) << "closed connections have no tasks any more";
}

TEST(accept_rule, switched_off_connections_are_the_listeners) {
  auto o = steady();
  o.accept_rule = false;
  listener_test t(o);
  t.run(5);
  EXPECT_THAT(t.in_accept, AllOf(SizeIs(5), Each(t.listener.id())));
  EXPECT_THAT(t.in_session, AllOf(SizeIs(10), Each(t.listener.id())));
  EXPECT_EQ(t.io.stats().tasks, 2U);
}

TEST(accept_rule, a_listener_without_a_task) {
  asio_pulse::io_context io{steady()};
  tcp::acceptor acceptor{io, tcp::endpoint{asio::ip::address_v4::loopback(), 0}};
  std::vector<std::uint64_t> seen;
  std::uint64_t before_next = 1;
  std::vector<tcp::socket> open;  // the work of a closed connection belongs to no task
  acceptor.async_accept([&](error_code, tcp::socket s) {
    open.push_back(std::move(s));
    seen.push_back(asio_pulse::this_task::id());
    acceptor.async_accept(
        [&](error_code, tcp::socket) { seen.push_back(asio_pulse::this_task::id()); });
    asio::post(io, [&] { before_next = asio_pulse::this_task::id(); });
  });
  tcp::socket a(io);
  tcp::socket b(io);
  a.async_connect(acceptor.local_endpoint(), [](error_code) {});
  b.async_connect(acceptor.local_endpoint(), [](error_code) {});
  io.run();
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_NE(seen[0], 0U);
  EXPECT_NE(seen[1], 0U);
  EXPECT_NE(seen[0], seen[1]);
  EXPECT_EQ(before_next, seen[0]);
}

TEST(accept_rule, in_a_coroutine_that_accepts_and_spawns) {
  asio_pulse::io_context io{steady()};
  const asio_pulse::task listener{io, unlimited("listener")};
  tcp::acceptor acceptor{io, tcp::endpoint{asio::ip::address_v4::loopback(), 0}};
  std::vector<std::uint64_t> sessions;
  std::vector<std::uint64_t> ends;
  asio_pulse::co_spawn(
      listener,
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 3; ++i) {
          tcp::socket s = co_await acceptor.async_accept(asio::use_awaitable);
          asio::co_spawn(
              io,
              [&sessions, &ends, peer = std::move(s)]() mutable -> asio::awaitable<void> {
                sessions.push_back(asio_pulse::this_task::id());
                char c = 0;
                co_await asio::async_read(peer, asio::buffer(&c, 1), asio::use_awaitable);
                ends.push_back(asio_pulse::this_task::id());
              },
              asio::detached);
        }
      },
      asio::detached);
  std::vector<std::unique_ptr<tcp::socket>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<tcp::socket>(io));
    clients.back()->async_connect(
        acceptor.local_endpoint(), [c = clients.back().get()](error_code) {
          asio::async_write(*c, asio::buffer("x", 1), [](error_code, std::size_t) {});
        });
  }
  io.run();
  EXPECT_EQ(std::set<std::uint64_t>(sessions.begin(), sessions.end()).size(), 3U);
  EXPECT_THAT(ends, testing::UnorderedElementsAreArray(sessions));
  EXPECT_THAT(sessions, Each(testing::Ne(listener.id())));
  // Its start, and three accepts.
  EXPECT_EQ(listener.stats().polls, 4U);
}

TEST(accept_rule, a_hogging_connection_leaves_the_others_and_the_listener_alone) {
  auto o = steady();
  // Far more than the others need and far less than the hog uses, also with a sanitizer. Almost
  // nothing is refilled meanwhile, however little of the CPU the test gets.
  o.accepted = {.name = "connection", .budget = 5ms, .per = 60s};
  asio_pulse::io_context io{o};
  const asio_pulse::task listener{io, unlimited("listener")};
  tcp::acceptor acceptor{io, tcp::endpoint{asio::ip::address_v4::loopback(), 0}};
  std::vector<asio_pulse::hooks::tier_event> changes;
  const auto hook =
      io.hooks().install({.tier_changed = [&](const auto& e) { changes.push_back(e); }});
  std::uint64_t hog_id = 0;
  asio_pulse::co_spawn(
      listener,
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 3; ++i) {
          auto s = co_await acceptor.async_accept(asio::use_awaitable);
          asio::co_spawn(
              io,
              [&, i, open = std::move(s)]() -> asio::awaitable<void> {
                if (i == 1) hog_id = asio_pulse::this_task::id();
                for (int n = 0; n < 10; ++n) {
                  if (i == 1) burn(3ms);
                  co_await asio::post(io, asio::use_awaitable);
                }
              },
              asio::detached);
        }
      },
      asio::detached);
  std::vector<std::unique_ptr<tcp::socket>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<tcp::socket>(io));
    clients.back()->async_connect(acceptor.local_endpoint(), [](error_code) {});
  }
  io.run();
  EXPECT_FALSE(changes.empty());
  for (const auto& e : changes) EXPECT_EQ(e.task_id, hog_id);
  EXPECT_EQ(listener.current_tier(), asio_pulse::tier::monitor);
}

}  // namespace
