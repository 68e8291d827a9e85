// SPDX-License-Identifier: BSL-1.0
//
// Two tenants share a server. One of them sends more requests than the server can answer; they are
// refused with 503, and the other tenant does not notice.

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/beast.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <chrono>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using namespace std::chrono_literals;

using tenants = std::map<std::string, asio_pulse::task_group, std::less<>>;

void work() {  // half a millisecond
  const auto end = std::chrono::steady_clock::now() + 500us;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// [guard]
asio::awaitable<void> serve(tcp::socket socket, const tenants& groups) {
  boost::beast::flat_buffer buffer;
  for (;;) {
    http::request<http::string_body> request;
    co_await http::async_read(socket, buffer, request, asio::use_awaitable);
    const asio_pulse::request_guard guard(groups.at(std::string(request["X-Tenant"])), request,
                                          {.always = {"/health"}});
    if (!guard) {
      co_await http::async_write(socket, guard.refusal(), asio::use_awaitable);
      continue;
    }
    work();
    http::response<http::string_body> answer{http::status::ok, request.version()};
    answer.body() = "done\n";
    answer.prepare_payload();
    co_await http::async_write(socket, answer, asio::use_awaitable);
  }
}
// [guard]

asio::awaitable<void> listen(tcp::acceptor& acceptor, const tenants& groups) {
  for (;;) {
    tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
    asio::co_spawn(acceptor.get_executor(), serve(std::move(socket), groups), asio::detached);
  }
}

struct client {
  std::string tenant;
  std::chrono::microseconds pause;  ///< between two requests
  int served = 0;
  int refused = 0;

  asio::awaitable<void> run(tcp::endpoint server) {
    tcp::socket socket(co_await asio::this_coro::executor);
    co_await socket.async_connect(server, asio::use_awaitable);
    asio::steady_timer timer(socket.get_executor());
    boost::beast::flat_buffer buffer;
    for (;;) {
      http::request<http::string_body> request{http::verb::get, "/", 11};
      request.set("X-Tenant", tenant);
      co_await http::async_write(socket, request, asio::use_awaitable);
      http::response<http::string_body> answer;
      co_await http::async_read(socket, buffer, answer, asio::use_awaitable);
      ++(answer.result() == http::status::ok ? served : refused);
      timer.expires_after(pause);
      co_await timer.async_wait(asio::use_awaitable);
    }
  }
};

int main() {
  // [groups]
  asio_pulse::io_context io{asio_pulse::options{
      .on_report = [](const asio_pulse::report&) {},
      .admission = {.target = 5ms, .interval = 50ms},
  }};
  const tenants groups{{"small", asio_pulse::task_group(io, {.name = "small"})},
                       {"flood", asio_pulse::task_group(io, {.name = "flood"})}};
  // [groups]
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  asio::co_spawn(io, listen(acceptor, groups), asio::detached);

  // The clients run on a thread of their own.
  std::vector<client> clients(65, client{.tenant = "flood", .pause = 1ms});
  clients.front() = client{.tenant = "small", .pause = 5ms};
  std::thread load([&] {
    asio::io_context theirs;
    for (client& c : clients) {
      asio::co_spawn(theirs, c.run(acceptor.local_endpoint()), asio::detached);
    }
    theirs.run_for(2s);
  });
  asio::steady_timer end(io, 2500ms);
  end.async_wait([&](boost::system::error_code) { io.stop(); });
  io.run();
  load.join();

  int served = 0;
  int refused = 0;
  for (std::size_t i = 1; i != clients.size(); ++i) {
    served += clients[i].served;
    refused += clients[i].refused;
  }
  const client& small = clients.front();
  std::cout << "small: " << small.served << " served, " << small.refused << " refused\n"
            << "flood: " << served << " served, " << refused << " refused\n";
  for (const auto& [name, group] : groups) {
    std::cout << name << " used " << group.stats().cpu / 1ms << " ms of CPU time\n";
  }
  return small.served > 0 && refused > 0 && small.refused * 20 <= small.served ? 0 : 1;
}
