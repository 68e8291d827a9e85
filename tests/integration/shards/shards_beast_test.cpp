// SPDX-License-Identifier: BSL-1.0

// A Beast session on a tcp_stream that moves, with its time-outs.

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <asio_pulse/movable_beast.hpp>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace {

using namespace pulse_test;
using namespace pulse_test::moving;
namespace beast = boost::beast;
namespace http = beast::http;

asio::awaitable<void> beast_session(beast::tcp_stream stream, sharded_context& shards,
                                    std::atomic<int>& timeouts) {
  movable here(stream);
  beast::flat_buffer buffer;
  boost::system::error_code ec;
  for (std::size_t n = 0;; ++n) {
    co_await here.idle(buffer.size());
    // The time-out is set on one shard, and counts on the next one.
    stream.expires_after(n < 20 ? std::chrono::seconds(60) : std::chrono::milliseconds(30));
    co_await here.move_to(n % shards.size());
    http::request<http::string_body> request;
    co_await http::async_read(stream, buffer, request,
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec == beast::error::timeout) {
      EXPECT_EQ(shards.this_shard(), n % shards.size());
      ++timeouts;
      co_return;
    }
    if (ec) co_return;
    http::response<http::string_body> answer{http::status::ok, request.version()};
    answer.body() = request.body();
    answer.prepare_payload();
    co_await http::async_write(stream, answer, asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

TEST(shards_beast, a_tcp_stream_moves_with_its_time_outs) {
  sharded_context shards(2, unmoved());
  std::atomic<int> timeouts{0};
  asio_pulse::sharded_acceptor acceptor(
      shards, {asio::ip::address_v4::loopback(), 0},
      [&](tcp::socket s) {
        const auto ex = s.get_executor();
        asio::co_spawn(ex, beast_session(beast::tcp_stream(std::move(s)), shards, timeouts),
                       asio::detached);
      },
      {.mode = asio_pulse::accept_mode::one_listener});
  runner r(shards);
  asio::io_context io;
  tcp::socket c(io);
  c.connect(acceptor.local_endpoint());
  beast::flat_buffer buffer;
  for (int i = 0; i != 20; ++i) {
    http::request<http::string_body> request{http::verb::post, "/", 11};
    request.body() = std::to_string(i);
    request.prepare_payload();
    http::write(c, request);
    http::response<http::string_body> answer;
    http::read(c, buffer, answer);
    EXPECT_EQ(answer.body(), std::to_string(i));
  }
  asio::write(c, asio::buffer("POST", 4));  // and nothing more: the time-out ends it
  char byte = 0;
  boost::system::error_code ec;
  asio::read(c, asio::buffer(&byte, 1), ec);
  EXPECT_TRUE(ec);
  acceptor.close();
  shards.join();
  r.get();
  EXPECT_EQ(timeouts, 1);
}

}  // namespace
