// SPDX-License-Identifier: BSL-1.0

// Sessions that move between shards: by order, from a handler and from outside; what moves with them;
// and what is refused, with the session where it was.

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <asio_pulse/task_group.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <optional>
#include <stdexcept>
#include <thread>

namespace {

using namespace pulse_test;
using namespace pulse_test::moving;
using asio_pulse::error;

/// Runs `f(shards, i)` as a coroutine on shard 0, until all work is done.
template <class F>
void on_shard_zero(sharded_context& shards, F f) {
  std::exception_ptr thrown;
  asio::co_spawn(shards.shard(0), std::move(f), [&](std::exception_ptr e) { thrown = e; });
  shards.finish();
  shards.run();
  if (thrown) std::rethrow_exception(thrown);
}

/// Two connected sockets of shard 0 and of another context.
struct sockets_of_shard {
  explicit sockets_of_shard(sharded_context& shards) : here(shards.shard(0)), there(elsewhere) {
    tcp::acceptor a(elsewhere, {asio::ip::address_v4::loopback(), 0});
    there.connect(a.local_endpoint());
    here = tcp::socket(shards.shard(0));
    tcp::socket s = a.accept();
    here.assign(tcp::v4(), s.release());
  }
  asio::io_context elsewhere;
  tcp::socket here;
  tcp::socket there;
};

TEST(shards_move, a_session_moves_itself_and_back) {
  sharded_context shards(3, unmoved());
  sockets_of_shard p(shards);
  std::vector<std::size_t> seen;
  on_shard_zero(shards, [&]() -> asio::awaitable<void> {
    tcp::socket socket = std::move(p.here);
    asio::steady_timer timer(socket.get_executor(), asio::steady_timer::time_point(1h));
    movable here(socket, timer);
    for (const std::size_t to : {1U, 2U, 2U, 0U, 1U}) {
      co_await here.move_to(to);
      seen.push_back(shards.this_shard().value());
      EXPECT_EQ(here.shard(), to);
      const auto ex = co_await asio::this_coro::executor;
      EXPECT_TRUE(ex == shards.shard(to).get_executor());
      EXPECT_TRUE(socket.get_executor() == ex);
      EXPECT_TRUE(timer.get_executor() == ex);
      EXPECT_EQ(timer.expiry().time_since_epoch(), 1h);
      // Both ways work there.
      char c = static_cast<char>('a' + to);
      asio::write(p.there, asio::buffer(&c, 1));
      char got = 0;
      co_await asio::async_read(socket, asio::buffer(&got, 1), asio::use_awaitable);
      EXPECT_EQ(got, c);
      co_await asio::async_write(socket, asio::buffer(&got, 1), asio::use_awaitable);
      asio::read(p.there, asio::buffer(&c, 1));
      EXPECT_EQ(got, c);
      asio::steady_timer short_one(ex, 1ms);
      co_await short_one.async_wait(asio::use_awaitable);
      EXPECT_EQ(shards.this_shard(), to);
    }
  });
  EXPECT_THAT(seen, testing::ElementsAre(1, 2, 2, 0, 1));
  constexpr auto ordered = static_cast<std::size_t>(move_reason::ordered);
  EXPECT_EQ(shards.stats(0).moved_out[ordered], 2U);
  EXPECT_EQ(shards.stats(1).moved_in[ordered], 2U);
  EXPECT_EQ(shards.stats(2).moved_in[ordered], 1U);
  EXPECT_EQ(shards.stats(1).movables, 0U) << "the session has ended";
}

TEST(shards_move, an_idle_session_is_moved_by_order_at_once) {
  sharded_context shards(2, unmoved());
  handles all;
  auto acceptor = accepting(shards, all);
  runner r(shards);
  client c(acceptor.local_endpoint());
  const movable_ref session = all.wait_for(1)[0];
  std::uint32_t number = 0;
  const std::uint32_t first = c.ask(number++);
  for (std::uint32_t to = 1 - first, n = 0; n != 50; ++n, to = 1 - to) {
    boost::system::error_code ec;
    while ((ec = session.move_to(to)) == error::already_moving) std::this_thread::yield();
    ASSERT_FALSE(ec) << ec.message();
    // It may have been between idle() and idle(): then it has answered one more there.
    while (c.ask(number++) != to) {
    }
    EXPECT_EQ(session.shard(), to);
  }
  c.close();
  acceptor.close();
  shards.join();
  r.get();
  EXPECT_FALSE(session.shard());
  EXPECT_EQ(session.move_to(0), error::session_ended);
  EXPECT_FALSE(session.cancel());
}

TEST(shards_move, what_was_sent_before_the_move_arrives_after_it) {
  sharded_context shards(2, unmoved());
  sockets_of_shard p(shards);
  on_shard_zero(shards, [&]() -> asio::awaitable<void> {
    tcp::socket socket = std::move(p.here);
    movable here(socket);
    const std::string text(10000, 'x');
    asio::write(p.there, asio::buffer(text));
    char head[10];
    co_await asio::async_read(socket, asio::buffer(head), asio::use_awaitable);
    co_await here.move_to(1);
    co_await here.idle();  // there is something to read already
    std::string rest(text.size() - sizeof head, '-');
    co_await asio::async_read(socket, asio::buffer(rest), asio::use_awaitable);
    EXPECT_EQ(rest, text.substr(sizeof head));
  });
}

TEST(shards_move, refused_moves_leave_the_session_where_it_was) {
  sharded_context shards(3, unmoved());
  sockets_of_shard p(shards);
  bool drained = false;
  on_shard_zero(shards, [&]() -> asio::awaitable<void> {
    tcp::socket socket = std::move(p.here);
    movable here(socket);
    const movable_ref session = here.handle();
    const auto refused = [&](std::size_t to) -> asio::awaitable<boost::system::error_code> {
      boost::system::error_code ec;
      co_await here.async_move_to(to, asio::redirect_error(asio::use_awaitable, ec));
      EXPECT_EQ(shards.this_shard(), 0U);
      EXPECT_EQ(here.shard(), 0U);
      co_return ec;
    };
    EXPECT_EQ(co_await refused(3), error::no_such_shard);
    EXPECT_EQ(session.move_to(3), error::no_such_shard);
    shards.drain(1, [&](boost::system::error_code ec) { drained = !ec; });
    EXPECT_EQ(co_await refused(1), error::shard_drained);
    EXPECT_EQ(session.move_to(1), error::shard_drained);
    {
      const movable::stay stays(here);
      EXPECT_EQ(co_await refused(2), error::move_forbidden);
      EXPECT_EQ(session.move_to(2), error::move_forbidden);
    }
    EXPECT_FALSE(session.move_to(0)) << "it is there already";
    EXPECT_FALSE(session.move_to(2)) << "at the next quiet point";
    EXPECT_EQ(session.move_to(0), error::already_moving);
    EXPECT_TRUE(here.wanted());
    co_await here.move_point();
    EXPECT_EQ(shards.this_shard(), 2U);
    EXPECT_FALSE(here.wanted());
    co_await here.move_point();
    EXPECT_EQ(shards.this_shard(), 2U);
    boost::system::error_code thrown;
    try {
      co_await here.move_to(7);
    } catch (const boost::system::system_error& e) {
      thrown = e.code();
    }
    EXPECT_EQ(thrown, error::no_such_shard);
    shards.undrain(1);
    co_await here.move_to(1);
    EXPECT_EQ(shards.this_shard(), 1U);
    // It still is connected.
    char c = 'x';
    asio::write(p.there, asio::buffer(&c, 1));
    co_await asio::async_read(socket, asio::buffer(&c, 1), asio::use_awaitable);
  });
  EXPECT_TRUE(drained || !shards.draining(1));
}

TEST(shards_move, a_coroutine_on_a_strand_is_not_movable) {
  sharded_context shards(2, unmoved());
  sockets_of_shard p(shards);
  boost::system::error_code moved, idle;
  auto strand = asio::make_strand(shards.shard(0));
  asio::co_spawn(
      strand,
      [&]() -> asio::awaitable<void> {
        movable here(p.here);
        co_await here.async_move_to(1, asio::redirect_error(asio::use_awaitable, moved));
        co_await here.async_idle(asio::redirect_error(asio::use_awaitable, idle));
        EXPECT_EQ(shards.this_shard(), 0U);
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_EQ(moved, error::not_movable);
  EXPECT_EQ(idle, error::not_movable);
}

TEST(shards_move, callbacks_move_too_unless_they_are_bound_to_an_executor) {
  sharded_context shards(2, unmoved());
  sockets_of_shard p(shards);
  std::optional<movable> here;
  std::vector<std::size_t> seen;
  boost::system::error_code bound;
  asio::post(shards.shard(0), [&] {
    here.emplace(p.here);
    here->async_move_to(
        1, asio::bind_executor(shards.shard(0).get_executor(), [&](boost::system::error_code ec) {
          bound = ec;
          here->async_move_to(1, [&](boost::system::error_code e) {
            EXPECT_FALSE(e);
            seen.push_back(shards.this_shard().value());
            here->async_idle([&](boost::system::error_code) {
              seen.push_back(shards.this_shard().value());
              here.reset();
            });
            asio::write(p.there, asio::buffer("x", 1));
          });
        }));
  });
  shards.finish();
  shards.run();
  EXPECT_EQ(bound, error::not_movable);
  EXPECT_THAT(seen, testing::ElementsAre(1, 1));
}

TEST(shards_move, a_limit_that_was_not_reached_is_no_work) {
  movable_ref outlives;
  {
    sharded_context shards(2, unmoved());
    sockets_of_shard p(shards);
    const auto began = std::chrono::steady_clock::now();
    on_shard_zero(shards, [&]() -> asio::awaitable<void> {
      tcp::socket socket = std::move(p.here);
      movable here(socket);
      outlives = here.handle();
      asio::steady_timer canceller(shards.shard(0), 1ms);
      canceller.async_wait([&](boost::system::error_code) { EXPECT_TRUE(outlives.cancel()); });
      boost::system::error_code ec;
      co_await here.async_idle(began + 1h, asio::redirect_error(asio::use_awaitable, ec));
      EXPECT_EQ(ec, asio::error::operation_aborted);
    });
    EXPECT_LT(std::chrono::steady_clock::now(), began + 30min);
  }
  EXPECT_FALSE(outlives.shard());
}

TEST(shards_move, a_session_is_cancelled_while_it_moves_all_the_time) {
  sharded_context shards(2, unmoved());
  sockets_of_shard p(shards);
  std::promise<movable_ref> made;
  std::atomic<bool> ends{false};
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        tcp::socket socket = std::move(p.here);
        movable here(socket);
        made.set_value(here.handle());
        boost::system::error_code ec;
        while (!ends) co_await here.async_idle(asio::redirect_error(asio::use_awaitable, ec));
        EXPECT_EQ(ec, asio::error::operation_aborted);
      },
      asio::detached);
  runner r(shards);
  const movable_ref session = made.get_future().get();
  std::thread moves([&] {
    for (std::size_t to = 0; session.shard(); to = 1 - to) (void)session.move_to(to);
  });
  std::this_thread::sleep_for(5ms);
  ends = true;
  while (session.shard() && !session.cancel()) std::this_thread::yield();  // it is about to wait
  shards.join();
  r.get();
  moves.join();
}

TEST(shards_move, a_session_in_a_request_to_another_shard_is_destroyed_with_the_shards) {
  std::atomic<int> destroyed{0};
  struct counts {
    std::atomic<int>& of;
    ~counts() { ++of; }
  };
  {
    sharded_context shards(2, unmoved());
    sockets_of_shard p(shards);
    std::promise<void> sent;
    std::promise<void> go;
    shards.post(1, [&] { go.get_future().wait(); });
    asio::co_spawn(
        shards.shard(0),
        [&]() -> asio::awaitable<void> {
          tcp::socket socket = std::move(p.here);
          const counts at_the_end{destroyed};
          movable here(socket);
          asio::post(shards.shard(0), [&] { sent.set_value(); });
          co_await shards.on(
              1, [] {}, asio::use_awaitable);
          ADD_FAILURE() << "shard 1 was stopped before";
        },
        asio::detached);
    runner r(shards);
    sent.get_future().wait();
    shards.stop();
    go.set_value();
    r.get();
  }
  EXPECT_EQ(destroyed, 1);
}

TEST(shards_move, idle_ends_by_time_also_on_another_shard_and_by_cancel) {
  sharded_context shards(2, unmoved());
  sockets_of_shard p(shards);
  on_shard_zero(shards, [&]() -> asio::awaitable<void> {
    co_await shards.on(1, [] {});  // its thread runs
    tcp::socket socket = std::move(p.here);
    movable here(socket);
    const movable_ref session = here.handle();
    boost::system::error_code ec;
    const auto until = std::chrono::steady_clock::now() + 3s;
    asio::steady_timer mover(shards.shard(1), 5ms);
    mover.async_wait([&](boost::system::error_code) { EXPECT_FALSE(session.move_to(1)); });
    co_await here.async_idle(until, asio::redirect_error(asio::use_awaitable, ec));
    EXPECT_EQ(ec, asio::error::timed_out);
    EXPECT_EQ(shards.this_shard(), 1U);
    EXPECT_GE(std::chrono::steady_clock::now(), until);
    mover.expires_after(5ms);
    mover.async_wait([&](boost::system::error_code) { EXPECT_TRUE(session.cancel()); });
    co_await here.async_idle(asio::redirect_error(asio::use_awaitable, ec));
    EXPECT_EQ(ec, asio::error::operation_aborted);
    // And it goes on after both.
    asio::write(p.there, asio::buffer("x", 1));
    co_await here.idle_for(1h);
    char c = 0;
    co_await asio::async_read(socket, asio::buffer(&c, 1), asio::use_awaitable);
    EXPECT_EQ(c, 'x');
  });
}

TEST(shards_move, two_sockets_and_their_options_move_together) {
  sharded_context shards(2, unmoved());
  sockets_of_shard a(shards);
  sockets_of_shard b(shards);
  on_shard_zero(shards, [&]() -> asio::awaitable<void> {
    tcp::socket client = std::move(a.here);
    tcp::socket upstream = std::move(b.here);
    tcp::socket closed(shards.shard(0));
    client.set_option(asio::socket_base::linger(true, 7));
    client.non_blocking(true);
    movable here(client, upstream, closed);
    co_await here.move_to(1);
    EXPECT_TRUE(client.non_blocking());
    EXPECT_FALSE(upstream.non_blocking());
    asio::socket_base::linger l;
    client.get_option(l);
    EXPECT_TRUE(l.enabled());
    EXPECT_EQ(l.timeout(), 7);
    EXPECT_FALSE(closed.is_open());
    asio::write(b.there, asio::buffer("y", 1));
    char c = 0;
    co_await asio::async_read(upstream, asio::buffer(&c, 1), asio::use_awaitable);
    co_await asio::async_write(client, asio::buffer(&c, 1), asio::use_awaitable);
    asio::read(a.there, asio::buffer(&c, 1));
    EXPECT_EQ(c, 'y');
  });
}

TEST(shards_move, a_task_goes_on_with_its_name_budget_tier_group_and_figures) {
  asio_pulse::shard_options o = unmoved();
  o.context.accepted = {.name = "conn", .budget = 200us, .per = 10s};
  sharded_context shards(2, o);
  const asio_pulse::task_group top(shards.shard(0), {.name = "top", .weight = 300});
  const asio_pulse::task_group tenant(shards.shard(0),
                                      {.name = "tenant", .weight = 7, .parent = top});
  std::promise<void> done;
  asio_pulse::sharded_acceptor acceptor(
      shards, {asio::ip::address_v4::loopback(), 0},
      [&](tcp::socket s) {
        const auto ex = s.get_executor();
        asio::co_spawn(
            ex,
            [](tcp::socket socket, sharded_context& all, const asio_pulse::task_group& group,
               std::promise<void>& ended) -> asio::awaitable<void> {
              movable here(socket);
              asio_pulse::this_task::join(group);
              const auto figures = [&](std::size_t shard) {
                asio_pulse::context_metrics m = all.shard(shard).metrics({});
                std::optional<asio_pulse::task_metrics> found;
                for (auto& t : m.tasks) {
                  if (t.id == asio_pulse::this_task::id()) found = t;
                }
                return found;
              };
              for (int i = 0; i != 50; ++i) {
                burn(300us);
                co_await asio::post(asio::use_awaitable);
              }
              const auto before = figures(0);
              EXPECT_TRUE(before.has_value());
              co_await here.move_to(1);
              co_await asio::post(asio::use_awaitable);
              const auto after = figures(1);
              EXPECT_TRUE(after.has_value());
              if (before && after) {
                EXPECT_EQ(after->name, "conn");
                EXPECT_EQ(after->level, before->level);
                EXPECT_GE(after->level, asio_pulse::tier::yield);
                EXPECT_GE(after->cpu, before->cpu);
                EXPECT_GE(after->polls, before->polls);
              }
              // The groups of the other shard are made like those of the first one.
              asio_pulse::context_metrics m = all.shard(1).metrics({});
              EXPECT_EQ(m.groups.size(), 2U);
              for (const auto& g : m.groups) {
                if (g.name == "tenant") {
                  EXPECT_EQ(g.weight, 7U);
                }
                if (g.name == "top") {
                  EXPECT_EQ(g.weight, 300U);
                }
              }
              ended.set_value();
            }(std::move(s), shards, tenant, done),
            asio::detached);
      },
      {.mode = asio_pulse::accept_mode::one_listener});
  // Round robin begins with the listener's own number: shard 0.
  runner r(shards);
  client c(acceptor.local_endpoint());
  done.get_future().wait();
  c.close();
  acceptor.close();
  shards.join();
  r.get();
}

TEST(shards_move, a_session_made_elsewhere_is_refused) {
  asio::io_context io;
  tcp::socket s(io);
  EXPECT_THROW(movable{s}, std::logic_error);
}

TEST(shards_move, sessions_that_wait_are_destroyed_with_the_shards) {
  std::atomic<int> alive{0};
  struct living {
    std::atomic<int>& n;
    explicit living(std::atomic<int>& a) : n(a) { ++n; }
    ~living() { --n; }
  };
  {
    sharded_context shards(2, unmoved());
    std::vector<std::unique_ptr<sockets_of_shard>> pairs;
    std::atomic<int> waiting{0};
    for (int i = 0; i != 4; ++i) {
      pairs.push_back(std::make_unique<sockets_of_shard>(shards));
      asio::co_spawn(
          shards.shard(0),
          [](sockets_of_shard& p, std::atomic<int>& count, std::atomic<int>& waits,
             int n) -> asio::awaitable<void> {
            const living mine(count);
            tcp::socket socket = std::move(p.here);
            movable here(socket);
            if (n % 2 != 0) co_await here.move_to(1);
            ++waits;
            co_await here.idle();
          }(*pairs.back(), alive, waiting, i),
          asio::detached);
    }
    runner r(shards);
    while (waiting != 4) std::this_thread::yield();
    shards.stop();
    r.get();
    EXPECT_EQ(alive, 4);
  }
  EXPECT_EQ(alive, 0);
}

}  // namespace
