// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/scenario.hpp>
//
#include <asio_pulse/movable.hpp>
#include <asio_pulse/sharded_acceptor.hpp>
#include <asio_pulse/sharded_context.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <future>
#include <mutex>
#include <vector>

/// \file
/// Sessions that move between shards, and their clients.

namespace pulse_test::moving {

namespace asio = boost::asio;
using asio::ip::tcp;
using asio_pulse::movable;
using asio_pulse::movable_ref;
using asio_pulse::move_reason;
using asio_pulse::sharded_context;

inline asio_pulse::shard_options unmoved() {
  asio_pulse::shard_options o;
  o.context = steady();
  o.balance = false;
  return o;
}

/// Runs shards on a thread. If the test has not waited for the end, as after an assertion that failed, the
/// destructor makes them end.
class runner {
 public:
  explicit runner(sharded_context& s)
      : shards_(s), done_(std::async(std::launch::async, [&s] { return s.run(); })) {}
  ~runner() {
    if (done_.valid()) shards_.stop();
  }
  runner(const runner&) = delete;
  runner& operator=(const runner&) = delete;
  std::size_t get() { return done_.get(); }
  /// Whether run() has not returned after that time.
  bool runs_for(std::chrono::milliseconds time) {
    return done_.wait_for(time) == std::future_status::timeout;
  }

 private:
  sharded_context& shards_;
  std::future<std::size_t> done_;
};

/// The handles of sessions, in the order in which they begin.
class handles {
 public:
  void add(movable_ref h) {
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(h));
  }
  std::vector<movable_ref> wait_for(std::size_t n) {
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (all_.size() >= n) return all_;
      }
      std::this_thread::yield();
    }
  }

 private:
  std::mutex mutex_;
  std::vector<movable_ref> all_;
};

/// What a server tells about a request: where it was served.
struct answer {
  std::uint32_t number = 0;
  std::uint32_t shard = 0;
};

/// Answers each number with itself and the shard.
inline asio::awaitable<void> serve(tcp::socket socket, sharded_context& shards, handles& all) {
  movable here(socket);
  all.add(here.handle());
  boost::system::error_code ec;
  for (;;) {
    answer a;
    co_await here.idle();
    co_await asio::async_read(socket, asio::buffer(&a.number, sizeof a.number),
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    a.shard = static_cast<std::uint32_t>(shards.this_shard().value());
    if (a.shard != here.shard()) throw std::logic_error("on the wrong thread");
    co_await asio::async_write(socket, asio::buffer(&a, sizeof a),
                               asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

/// A blocking client.
class client {
 public:
  explicit client(const tcp::endpoint& server) { socket_.connect(server); }
  /// Returns the shard that has answered.
  std::uint32_t ask(std::uint32_t n) {
    send(n);
    return receive(n);
  }
  void send(std::uint32_t n) { asio::write(socket_, asio::buffer(&n, sizeof n)); }
  std::uint32_t receive(std::uint32_t n) {
    answer a;
    asio::read(socket_, asio::buffer(&a, sizeof a));
    EXPECT_EQ(a.number, n);
    return a.shard;
  }
  void close() { socket_.close(); }

 private:
  asio::io_context io_;
  tcp::socket socket_{io_};
};

inline asio_pulse::sharded_acceptor accepting(sharded_context& shards, handles& all) {
  return {shards,
          {asio::ip::address_v4::loopback(), 0},
          [&](tcp::socket s) {
            const auto ex = s.get_executor();
            asio::co_spawn(ex, serve(std::move(s), shards, all), asio::detached);
          },
          {.mode = asio_pulse::accept_mode::one_listener}};
}

/// What a handler of the first turn has posted has had its turn by the end of the second: every session
/// of the shard waits.
inline void two_turns(sharded_context& shards, std::size_t shard) {
  for (int i = 0; i != 2; ++i) {
    const auto turn = [] {};
    shards.on(shard, turn, asio::use_future).get();
  }
}

}  // namespace pulse_test::moving
