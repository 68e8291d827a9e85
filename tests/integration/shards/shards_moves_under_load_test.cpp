// SPDX-License-Identifier: BSL-1.0

// Many moves while data flows: no byte is lost or reordered, and no request fails. By default 3000 moves;
// ASIO_PULSE_MOVES=100000 is the long version.

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <boost/asio/streambuf.hpp>

#include <cstdlib>
#include <random>

namespace {

using namespace pulse_test;
using namespace pulse_test::moving;

int wanted_moves() {
  const char* const text = std::getenv("ASIO_PULSE_MOVES");
  return text != nullptr ? std::atoi(text) : 3000;
}

// Returns everything that comes. It moves before each piece, and by order.
asio::awaitable<void> echo_and_move(tcp::socket socket, sharded_context& shards, handles& all,
                                    std::uint32_t seed) {
  movable here(socket);
  all.add(here.handle());
  std::minstd_rand random(seed);
  std::array<char, 700> buffer{};
  boost::system::error_code ec;
  for (;;) {
    switch (random() % 4) {
      case 0:
        co_await here.async_move_to(random() % shards.size(),
                                    asio::redirect_error(asio::use_awaitable, ec));
        break;
      case 1:
        co_await here.move_point();
        break;
      default:
        co_await here.idle();
    }
    const std::size_t n =
        co_await socket.async_read_some(asio::buffer(buffer, 1 + random() % buffer.size()),
                                        asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    if (shards.this_shard() != here.shard()) throw std::logic_error("on the wrong thread");
    co_await asio::async_write(socket, asio::buffer(buffer, n),
                               asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

TEST(moves_under_load, no_byte_is_lost_or_reordered) {
  constexpr std::size_t connections = 6;
  asio_pulse::shard_options o = unmoved();
  std::atomic<int> moves{0};
  std::atomic<int> failed{0};
  o.on_move = [&](const asio_pulse::move_record& m) { ++(m.failure ? failed : moves); };
  sharded_context shards(3, o);
  handles all;
  std::atomic<std::uint32_t> seed{1};
  asio_pulse::sharded_acceptor acceptor(
      shards, {asio::ip::address_v4::loopback(), 0},
      [&](tcp::socket s) {
        const auto ex = s.get_executor();
        asio::co_spawn(ex, echo_and_move(std::move(s), shards, all, seed++), asio::detached);
      },
      {.mode = asio_pulse::accept_mode::one_listener});
  runner r(shards);
  std::atomic<bool> ends{false};
  // Each connection: one coroutine sends a random sequence in random pieces, another one receives the
  // same sequence.
  std::thread clients([&] {
    asio::io_context io;
    struct connection {
      explicit connection(asio::io_context& c) : socket(c) {}
      tcp::socket socket;
      std::uint64_t sent = 0;
      std::uint64_t received = 0;
    };
    std::vector<std::unique_ptr<connection>> these;
    for (std::size_t i = 0; i != connections; ++i) {
      these.push_back(std::make_unique<connection>(io));
      connection& c = *these.back();
      c.socket.connect(acceptor.local_endpoint());
      asio::co_spawn(
          io,
          [](connection& to, std::uint32_t n, std::atomic<bool>& end) -> asio::awaitable<void> {
            std::mt19937 bytes(n);
            std::minstd_rand sizes(n + 100);
            std::vector<char> piece;
            while (!end) {
              piece.resize(1 + sizes() % 3000);
              for (char& b : piece) b = static_cast<char>(bytes());
              to.sent +=
                  co_await asio::async_write(to.socket, asio::buffer(piece), asio::use_awaitable);
            }
            to.socket.shutdown(tcp::socket::shutdown_send);
          }(c, static_cast<std::uint32_t>(i), ends),
          asio::detached);
      asio::co_spawn(
          io,
          [](connection& from, std::uint32_t n) -> asio::awaitable<void> {
            std::mt19937 bytes(n);
            std::array<char, 4096> buffer{};
            boost::system::error_code ec;
            for (;;) {
              const std::size_t got = co_await from.socket.async_read_some(
                  asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, ec));
              if (ec) break;
              for (std::size_t k = 0; k != got; ++k) {
                if (buffer[k] != static_cast<char>(bytes())) {
                  ADD_FAILURE() << "byte " << from.received + k << " of connection " << n;
                  co_return;
                }
              }
              from.received += got;
            }
            EXPECT_EQ(ec, asio::error::eof);
          }(c, static_cast<std::uint32_t>(i)),
          asio::detached);
    }
    io.run();
    for (const auto& c : these) {
      EXPECT_EQ(c->received, c->sent);
      EXPECT_GT(c->sent, 0U);
    }
  });
  const auto known = all.wait_for(connections);
  std::minstd_rand random(7);
  const auto give_up = std::chrono::steady_clock::now() + 10min;
  while (moves < wanted_moves() && std::chrono::steady_clock::now() < give_up) {
    // Orders from a thread that is no shard.
    const boost::system::error_code ec =
        known[random() % connections].move_to(random() % shards.size());
    if (ec && ec != asio_pulse::error::already_moving) {
      ADD_FAILURE() << ec.message();
      break;
    }
    // The thread that moves it may need this CPU.
    if (ec || random() % 8 == 0) std::this_thread::yield();
  }
  ends = true;
  clients.join();
  acceptor.close();
  shards.join();
  r.get();
  EXPECT_GE(moves, wanted_moves());
  EXPECT_EQ(failed, 0);
  for (std::size_t i = 0; i != shards.size(); ++i) EXPECT_EQ(shards.stats(i).movables, 0U);
}

}  // namespace
