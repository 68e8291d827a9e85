// SPDX-License-Identifier: BSL-1.0
//
// The loops of poll_path. They are in a file of their own, which uses only Asio, so that the
// compiled code depends on nothing else: ASIO_PULSE_DISABLE is compared with stock by instructions.

#include "poll_loops.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <array>
#include <chrono>

namespace bench {

namespace asio = boost::asio;

namespace {

using stream = asio::local::stream_protocol::socket;

/// A handler that posts itself again: the shortest poll there is.
template <class Executor>
struct chain {
  Executor executor;
  std::uint64_t* left;

  void operator()() {
    if (--*left > 0) asio::post(executor, chain{executor, left});
  }
};

template <class Executor>
std::uint64_t run_chain(io_context& io, const Executor& executor, std::uint64_t count) {
  std::uint64_t left = count;
  asio::post(executor, chain<Executor>{executor, &left});
  io.run();
  return count - left;
}

}  // namespace

std::uint64_t post_chain(io_context& io, std::uint64_t count) {
  return run_chain(io, io.get_executor(), count);
}

std::uint64_t strand_chain(io_context& io, std::uint64_t count) {
  return run_chain(io, asio::make_strand(io.get_executor()), count);
}

std::uint64_t any_strand_chain(io_context& io, std::uint64_t count) {
  return run_chain(io, asio::make_strand(asio::any_io_executor{io.get_executor()}), count);
}

void start_chain(io_context& io, std::uint64_t& left) {
  asio::post(io, chain<io_context::executor_type>{io.get_executor(), &left});
}

std::uint64_t co_await_post(io_context& io, std::uint64_t count) {
  std::uint64_t done = 0;
  const auto loop = [](std::uint64_t turns, std::uint64_t& result) -> asio::awaitable<void> {
    const auto executor = co_await asio::this_coro::executor;
    for (; result < turns; ++result) co_await asio::post(executor, asio::use_awaitable);
  };
  asio::co_spawn(io, loop(count, done), asio::detached);
  io.run();
  return done;
}

/// One byte there and back between two coroutines over a socket pair: four polls, four system calls
/// and the reactor.
std::uint64_t ping_pong(io_context& io, std::uint64_t count) {
  stream ping{io};
  stream pong{io};
  asio::local::connect_pair(ping, pong);
  std::uint64_t trips = 0;
  const auto player = [](stream& socket, std::uint64_t turns, bool serves,
                         std::uint64_t& result) -> asio::awaitable<void> {
    std::array<char, 1> ball{'o'};
    for (std::uint64_t turn = 0; turn < turns; ++turn) {
      if (serves) co_await socket.async_write_some(asio::buffer(ball), asio::use_awaitable);
      co_await socket.async_read_some(asio::buffer(ball), asio::use_awaitable);
      if (!serves) co_await socket.async_write_some(asio::buffer(ball), asio::use_awaitable);
      if (serves && ball[0] == 'o') ++result;
    }
  };
  asio::co_spawn(io, player(ping, count, true, trips), asio::detached);
  asio::co_spawn(io, player(pong, count, false, trips), asio::detached);
  io.run();
  return trips;
}

namespace {

/// Calls the reactor, as in a program that waits for events.
class pending_timer {
 public:
  explicit pending_timer(io_context& io) : timer_(io, std::chrono::hours{1}) {
    timer_.async_wait([](const boost::system::error_code&) {});
  }

 private:
  asio::steady_timer timer_;
};

}  // namespace

std::uint64_t idle_polls(io_context& io, std::uint64_t count) {
  std::uint64_t calls = 0;
  {
    const pending_timer timer(io);
    for (; calls < count; ++calls) {
      if (io.poll() != 0) break;
    }
  }
  io.poll();  // the timer's handler
  return calls;
}

std::uint64_t posts_and_polls(io_context& io, std::uint64_t count) {
  std::uint64_t ran = 0;
  {
    const pending_timer timer(io);
    for (std::uint64_t n = 0; n < count; ++n) {
      asio::post(io, [&ran] { ++ran; });
      io.poll();
    }
  }
  io.poll();
  return ran;
}

}  // namespace bench
