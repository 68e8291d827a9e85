// SPDX-License-Identifier: BSL-1.0

// Shards on plain Asio: the same messages, placement and counts.

#include <asio_pulse/sharded.hpp>
#include <asio_pulse/sharded_acceptor.hpp>
#include <asio_pulse/sharded_context.hpp>
//
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <gtest/gtest.h>

#include <cstddef>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

TEST(disabled_shards, a_message_is_counted_as_one_handler) {
  asio_pulse::sharded_context shards(2);
  asio_pulse::sharded<int> calls(shards);
  asio::post(shards.shard(0), [&] {
    for (int i = 0; i != 10; ++i) shards.post(1, [&] { ++calls.local(); });
  });
  shards.finish();
  EXPECT_EQ(shards.run(), 11U);
  EXPECT_EQ(calls.at(1), 10);
}

TEST(disabled_shards, requests_are_answered) {
  asio_pulse::sharded_context shards(2);
  asio_pulse::sharded<int> calls(shards);
  int answer = 0;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i != 10; ++i) {
          answer = co_await shards.on(1, [&] { return ++calls.local(); });
        }
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_EQ(answer, 10);
}

TEST(disabled_shards, connections_are_served) {
  asio_pulse::sharded_context shards(2);
  std::size_t served_on = 99;
  asio_pulse::sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                                        [&](tcp::socket) {
                                          served_on = shards.this_shard().value();
                                          shards.stop();
                                        },
                                        {.mode = asio_pulse::accept_mode::one_listener});
  asio::io_context client;
  tcp::socket socket(client);
  socket.connect(acceptor.local_endpoint());
  shards.run();
  EXPECT_LT(served_on, 2U);
}

}  // namespace
