// SPDX-License-Identifier: BSL-1.0

// Shards and moving sessions where something else happens at the wrong moment: a shard that gets stuck, the
// end, a cancel, a drain, a stop, a close, no memory.

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/use_future.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace shards_faults {
constinit thread_local int refused_allocations = 0;
}

// Asio's memory, from Boost 1.79 on.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  if (shards_faults::refused_allocations > 0) {
    --shards_faults::refused_allocations;
    return nullptr;
  }
  void* memory = nullptr;
  return ::posix_memalign(&memory, alignment, size) == 0 ? memory : nullptr;
}

namespace shards_faults {

using namespace pulse_test;
using namespace pulse_test::moving;
using asio_pulse::error;
using asio_pulse::sharded_acceptor;

/// Long enough for what must not happen.
constexpr auto a_while = 200ms;

/// What happens once, in the middle of the next move of a session that has a `crossing`.
std::atomic<std::function<void()>*> on_the_way{nullptr};

/// A timer of the program's own, which moves with a session.
class crossing {
 public:
  using clock_type = std::chrono::steady_clock;
  crossing() = default;
  /// A move makes it anew, before anything has changed.
  explicit crossing(const asio::io_context::executor_type&) {
    if (auto* const happens = on_the_way.exchange(nullptr)) (*happens)();
  }
  [[nodiscard]] clock_type::time_point expiry() const { return {}; }
  void expires_at(clock_type::time_point) {}
};

/// Holds the next move up until it is let go, and then makes it fail, if that is wanted.
class held_move {
 public:
  enum end { succeeds, fails };
  explicit held_move(end how) : how_(how) { on_the_way = &step_; }
  ~held_move() {
    on_the_way = nullptr;
    let_go();
  }
  held_move(const held_move&) = delete;
  held_move& operator=(const held_move&) = delete;
  void wait() { reached_.get_future().wait(); }
  void let_go() {
    if (!std::exchange(gone_, true)) go_.set_value();
  }

 private:
  end how_;
  bool gone_ = false;
  std::promise<void> reached_;
  std::promise<void> go_;
  std::function<void()> step_ = [this] {
    reached_.set_value();
    go_.get_future().wait();
    if (how_ == fails) throw std::bad_alloc();
  };
};

/// A handler that does not end.
class stuck_shard {
 public:
  stuck_shard(sharded_context& shards, std::size_t shard) {
    shards.post(shard, [this, go = go_.get_future().share()] {
      began_.set_value();
      go.wait();
    });
    began_.get_future().wait();
  }
  ~stuck_shard() { go_.set_value(); }
  stuck_shard(const stuck_shard&) = delete;
  stuck_shard& operator=(const stuck_shard&) = delete;

 private:
  std::promise<void> began_;
  std::promise<void> go_;
};

/// A socket of shard 0 that no acceptor has made, and its peer.
class pair {
 public:
  explicit pair(sharded_context& shards) : here(shards.shard(0)) {
    tcp::acceptor a(elsewhere_, {asio::ip::address_v4::loopback(), 0});
    there_.connect(a.local_endpoint());
    tcp::socket s = a.accept();
    here->assign(tcp::v4(), s.release());
  }
  [[nodiscard]] tcp::socket take() {
    tcp::socket s = std::move(*here);
    here.reset();  // it would need the shards
    return s;
  }
  void send() { asio::write(there_, asio::buffer("x", 1)); }

  std::optional<tcp::socket> here;

 private:
  asio::io_context elsewhere_;
  tcp::socket there_{elsewhere_};
};

/// A session of callbacks, which waits once. Nothing but its wait is work of a context.
class callback_session {
 public:
  callback_session(sharded_context& shards, pair& sockets) {
    asio::post(shards.shard(0), [this, &sockets] {
      here_.emplace(*sockets.here, way_);
      here_->async_idle([this](boost::system::error_code ec) {
        result = ec;
        here_.reset();
      });
      made_.set_value(here_->handle());
    });
    handle = made_.get_future().get();
  }
  callback_session(const callback_session&) = delete;
  callback_session& operator=(const callback_session&) = delete;
  movable_ref handle;
  std::optional<boost::system::error_code> result;

 private:
  std::promise<movable_ref> made_;
  crossing way_;
  std::optional<movable> here_;
};

TEST(shards_faults, a_session_that_has_come_to_a_stuck_shard_waits_there_and_leaves_again) {
  sharded_context shards(3, unmoved());
  handles all;
  auto acceptor = accepting(shards, all);
  runner r(shards);
  client c(acceptor.local_endpoint());
  const movable_ref session = all.wait_for(1)[0];
  ASSERT_EQ(c.ask(0), 0U);
  two_turns(shards, 0);
  const stuck_shard stuck(shards, 1);
  ASSERT_FALSE(session.move_to(1));
  EXPECT_EQ(session.shard(), 1U);
  ASSERT_FALSE(session.move_to(2)) << "it is not in the queue behind the handler";
  EXPECT_EQ(c.ask(1), 2U);
  c.close();
  acceptor.close();
}

TEST(shards_faults, a_session_in_a_stuck_shard_is_taken_over_also_if_it_came_meanwhile) {
  asio_pulse::shard_options o = unmoved();
  o.balance = true;
  sharded_context shards(2, o);
  handles all;
  auto acceptor = accepting(shards, all);
  runner r(shards);
  client c(acceptor.local_endpoint());
  const movable_ref session = all.wait_for(1)[0];
  ASSERT_EQ(c.ask(0), 0U);
  two_turns(shards, 0);
  const stuck_shard stuck(shards, 1);
  const boost::system::error_code ec = session.move_to(1);
  EXPECT_FALSE(ec) << ec.message();
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (session.shard() != 0U && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  ASSERT_EQ(session.shard(), 0U);
  EXPECT_EQ(c.ask(1), 0U);
  c.close();
  acceptor.close();
}

TEST(shards_faults, stopping_the_contexts_of_shards_does_not_end_run) {
  for (const std::size_t count : {1U, 2U}) {
    std::atomic<bool> ended{false};
    sharded_context shards(count, unmoved());
    runner r(shards);
    const auto stop_often = [&] {
      for (int n = 0; n != 20; ++n) {
        for (std::size_t i = 0; i != count; ++i) shards.shard(i).stop();
        std::this_thread::sleep_for(1ms);
      }
    };
    two_turns(shards, 0);
    stop_often();
    ASSERT_TRUE(r.runs_for(10ms));
    // Also while it finishes, with work left.
    asio::steady_timer timer(shards.shard(0), 1h);
    timer.async_wait([&](boost::system::error_code) { ended = true; });
    shards.finish();
    stop_often();
    ASSERT_TRUE(r.runs_for(10ms));
    asio::post(shards.shard(0), [&] { timer.cancel(); });
    shards.join();
    r.get();
    EXPECT_TRUE(ended);
  }
}

TEST(shards_faults, the_destructor_waits_for_who_moves_a_session) {
  auto shards = std::make_unique<sharded_context>(2, unmoved());
  pair sockets(*shards);
  std::promise<movable_ref> made;
  asio::co_spawn(
      shards->shard(0),
      [&]() -> asio::awaitable<void> {
        tcp::socket socket = sockets.take();
        crossing way;
        movable here(socket, way);
        made.set_value(here.handle());
        co_await here.idle();
        ADD_FAILURE() << "nothing was sent";
      },
      asio::detached);
  runner r(*shards);
  const movable_ref session = made.get_future().get();
  two_turns(*shards, 0);
  held_move held(held_move::succeeds);
  auto moved = std::async(std::launch::async, [&] { return session.move_to(1); });
  held.wait();
  auto destroyed = std::async(std::launch::async, [&] { shards.reset(); });
  r.get();
  EXPECT_EQ(destroyed.wait_for(a_while), std::future_status::timeout);
  held.let_go();
  EXPECT_FALSE(moved.get());
  destroyed.get();
  EXPECT_EQ(session.move_to(0), error::session_ended);
  EXPECT_FALSE(session.cancel());
  EXPECT_FALSE(session.shard());
}

TEST(shards_faults, join_waits_for_a_session_of_callbacks_that_moves) {
  std::promise<void> told;
  std::promise<void> go;
  asio_pulse::shard_options o = unmoved();
  o.on_move = [&](const asio_pulse::move_record&) {
    told.set_value();
    go.get_future().wait();
  };
  sharded_context shards(2, o);
  pair sockets(shards);
  runner r(shards);
  callback_session session(shards, sockets);
  shards.finish();
  auto moved = std::async(std::launch::async, [&] { return session.handle.move_to(1); });
  told.get_future().wait();
  // The old wait was ended, and no other one has begun.
  EXPECT_TRUE(r.runs_for(a_while));
  go.set_value();
  EXPECT_FALSE(moved.get());
  sockets.send();
  shards.join();
  r.get();
  EXPECT_EQ(session.result, boost::system::error_code());
}

TEST(shards_faults, join_waits_for_a_session_of_callbacks_whose_move_fails) {
  sharded_context shards(2, unmoved());
  pair sockets(shards);
  runner r(shards);
  callback_session session(shards, sockets);
  shards.finish();
  held_move held(held_move::fails);
  auto moved = std::async(std::launch::async, [&] { return session.handle.move_to(1); });
  held.wait();
  sockets.send();  // its wait is over while it is taken
  EXPECT_TRUE(r.runs_for(a_while));
  held.let_go();
  EXPECT_EQ(moved.get(), asio::error::no_memory);
  shards.join();
  r.get();
  EXPECT_EQ(session.result, boost::system::error_code());
}

TEST(shards_faults, cancelled_waits_leave_nothing_behind) {
  sharded_context shards(2, unmoved());
  pair sockets(shards);
  long left = -1;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        tcp::socket socket = sockets.take();
        movable here(socket);
        for (int i = 0; i != 100; ++i) {
          asio::post(shards.shard(0), [h = here.handle()] { EXPECT_TRUE(h.cancel()); });
          boost::system::error_code ec;
          co_await here.async_idle(asio::redirect_error(asio::use_awaitable, ec));
          EXPECT_EQ(ec, asio::error::operation_aborted);
        }
        left = asio_pulse::detail::outstanding_work(
            asio::use_service<asio_pulse::detail::scheduler_type>(shards.shard(0)));
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_GE(left, 1);
  EXPECT_LT(left, 50);
}

TEST(shards_faults, an_order_is_kept_over_another_move) {
  sharded_context shards(3, unmoved());
  pair sockets(shards);
  std::vector<std::size_t> seen;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        tcp::socket socket = sockets.take();
        movable here(socket);
        const movable_ref session = here.handle();
        EXPECT_FALSE(session.move_to(2)) << "at the next quiet point";
        co_await here.move_to(1);
        seen.push_back(here.shard());
        EXPECT_TRUE(here.wanted());
        co_await here.move_point();
        seen.push_back(here.shard());
        EXPECT_FALSE(here.wanted());
        // It does not block later ones.
        EXPECT_FALSE(session.move_to(0));
        co_await here.move_to(0);
        EXPECT_FALSE(here.wanted());
        EXPECT_FALSE(session.move_to(1));
        sockets.send();
        co_await here.idle();
        seen.push_back(here.shard());
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_EQ(seen, (std::vector<std::size_t>{1, 2, 1}));
}

TEST(shards_faults, a_drain_waits_for_a_session_that_another_shard_fails_to_take) {
  asio_pulse::shard_options o = unmoved();
  o.balance = true;
  sharded_context shards(2, o);
  pair sockets(shards);
  std::promise<movable_ref> made;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        tcp::socket socket = sockets.take();
        crossing way;
        movable here(socket, way);
        made.set_value(here.handle());
        co_await here.idle();
      },
      asio::detached);
  runner r(shards);
  const movable_ref session = made.get_future().get();
  two_turns(shards, 0);
  held_move held(held_move::fails);
  {
    const stuck_shard stuck(shards, 0);
    held.wait();  // shard 1 is about to take it over
  }
  std::promise<boost::system::error_code> ended;
  auto drained = ended.get_future();
  shards.drain(0, asio::bind_executor(asio::system_executor(),
                                      [&](boost::system::error_code ec) { ended.set_value(ec); }));
  EXPECT_EQ(drained.wait_for(a_while), std::future_status::timeout);
  held.let_go();
  EXPECT_FALSE(drained.get());
  EXPECT_EQ(session.shard(), 1U);
  sockets.send();
  shards.join();
  r.get();
}

TEST(shards_faults, a_connection_that_was_accepted_is_served_after_close) {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
  GTEST_SKIP() << "an accept does not complete while it is started";
#endif
  sharded_context shards(1, unmoved());
  std::promise<void> inside;
  std::promise<void> closed;
  std::atomic<int> served{0};
  sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                            [&](tcp::socket s) {
                              if (++served == 1) {
                                inside.set_value();
                                closed.get_future().wait();
                              }
                              asio::write(s, asio::buffer("x", 1));
                            },
                            {.mode = asio_pulse::accept_mode::reuse_port});
  asio::io_context io;
  tcp::socket first(io);
  tcp::socket second(io);
  first.connect(acceptor.local_endpoint());
  second.connect(acceptor.local_endpoint());
  runner r(shards);
  // The second one was accepted before the handler of the first one was called, and its completion comes
  // into the queue when that returns: behind what closes the listener.
  inside.get_future().wait();
  acceptor.close();
  closed.set_value();
  for (tcp::socket* const s : {&first, &second}) {
    char c = 0;
    boost::system::error_code ec;
    asio::read(*s, asio::buffer(&c, 1), ec);
    EXPECT_FALSE(ec) << ec.message();
  }
  shards.join();
  r.get();
  EXPECT_EQ(served, 2);
}

TEST(shards_faults, a_listener_that_gets_no_memory_tries_again) {
  sharded_context shards(1, unmoved());
  std::promise<int> left;
  // Before the listener begins to listen, and after it.
  asio::post(shards.shard(0), [] { refused_allocations = 1; });
  sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                            [](tcp::socket s) { asio::write(s, asio::buffer("x", 1)); },
                            {.mode = asio_pulse::accept_mode::reuse_port});
  asio::post(shards.shard(0), [&] { left.set_value(std::exchange(refused_allocations, 0)); });
  runner r(shards);
  ASSERT_TRUE(r.runs_for(a_while)) << "the listener has thrown";
  asio::io_context io;
  tcp::socket s(io);
  s.connect(acceptor.local_endpoint());
  char c = 0;
  asio::read(s, asio::buffer(&c, 1));
  EXPECT_EQ(c, 'x');
  // An older Asio asks operator new.
  EXPECT_EQ(acceptor.failures(), left.get_future().get() == 0 ? 1U : 0U);
  acceptor.close();
  shards.join();
  r.get();
}

}  // namespace shards_faults
