// SPDX-License-Identifier: BSL-1.0
//
// A Beast server on shards: one context with one thread for each of two shards, and a counter that
// each shard has for itself. A connection that waits for a request may move to another shard. The clients
// run in the same program and add the counters up at the end.

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/movable.hpp>
#include <asio_pulse/sharded.hpp>
#include <asio_pulse/sharded_acceptor.hpp>
#include <asio_pulse/sharded_context.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <cstddef>
#include <iostream>
#include <string>
#include <thread>
#include <utility>

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

using counters = asio_pulse::sharded<std::size_t>;

// [movable]
asio::awaitable<void> serve(tcp::socket socket, const counters& requests) {
  asio_pulse::movable here(socket);
  boost::beast::flat_buffer buffer;
  boost::system::error_code ec;
  for (;;) {
    http::request<http::string_body> request;
    co_await here.idle(buffer.size());  // the only place where the session may move
    co_await http::async_read(socket, buffer, request,
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    ++requests.local();  // this shard's own: no lock, no atomic
    // [movable]
    http::response<http::string_body> answer{http::status::ok, request.version()};
    answer.body() = "hello\n";
    answer.prepare_payload();
    co_await http::async_write(socket, answer, asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

constexpr int connections = 32;
constexpr int requests_each = 50;

void load(const tcp::endpoint& server) {
  asio::io_context theirs;
  for (int i = 0; i != connections; ++i) {
    asio::co_spawn(
        theirs,
        [&]() -> asio::awaitable<void> {
          tcp::socket socket(theirs);
          co_await socket.async_connect(server, asio::use_awaitable);
          boost::beast::flat_buffer buffer;
          for (int n = 0; n != requests_each; ++n) {
            http::request<http::string_body> request{http::verb::get, "/", 11};
            co_await http::async_write(socket, request, asio::use_awaitable);
            http::response<http::string_body> answer;
            co_await http::async_read(socket, buffer, answer, asio::use_awaitable);
          }
        },
        asio::detached);
  }
  theirs.run();
}

int main() {
  // [server]
  asio_pulse::sharded_context shards(2);
  const counters requests(shards);
  asio_pulse::sharded_acceptor acceptor(
      shards, {asio::ip::address_v4::loopback(), 0}, [&](tcp::socket socket) {
        const auto executor = socket.get_executor();  // of the shard that has the connection
        asio::co_spawn(executor, serve(std::move(socket), requests), asio::detached);
      });
  // [server]
  if (!acceptor.why().empty()) std::cout << acceptor.why() << '\n';

  std::size_t total = 0;
  std::thread clients([&] {
    load(acceptor.local_endpoint());
    // [ask]
    asio::co_spawn(
        shards.shard(0),
        [&]() -> asio::awaitable<void> {
          for (std::size_t i = 0; i != shards.size(); ++i) {
            const std::size_t n = co_await shards.on(i, [&] { return requests.local(); });
            std::cout << "shard " << i << ": " << n << " requests\n";
            total += n;
          }
          acceptor.close();
          shards.finish();
        },
        asio::detached);
    // [ask]
  });
  shards.run();
  clients.join();
  return total == connections * requests_each ? 0 : 1;
}
