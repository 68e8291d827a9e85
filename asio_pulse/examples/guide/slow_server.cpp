// SPDX-License-Identifier: BSL-1.0
//
// The server of docs/guide.md, on one thread, in eight states. GUIDE_STEP is 0: plain Boost.Asio,
// 1: asio-pulse, 2: a named task, 3: checkpoints, 4: preemptible(), 5: isolatable, 6: checkpoints
// and a spare worker, 7: checkpoints and async_resolve(), with which the guide ends.
//
//   slow_server PORT   until SIGINT or SIGTERM
//
// A request is a line: "ping" is answered at once, "report" computes for about 80 ms, "lookup NAME"
// asks a name server.

#include "report.hpp"

#if GUIDE_STEP > 0
#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/preemptible.hpp>
#endif

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <charconv>
#include <chrono>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>

using asio::ip::tcp;
using namespace std::chrono_literals;

namespace chat {

class server {
 public:
  explicit server(unsigned short port) : acceptor_(io, {asio::ip::address_v4::loopback(), port}) {}

  asio::awaitable<void> listen() {
    for (;;) {
      tcp::socket peer = co_await acceptor_.async_accept(asio::use_awaitable);
      asio::co_spawn(io, session(std::move(peer)), asio::detached);
    }
  }

#if GUIDE_STEP == 0
  //! [stock]
  boost::asio::io_context io;
  //! [stock]
#elif GUIDE_STEP == 6
  //! [spare]
  asio_pulse::io_context io{asio_pulse::options{.spare_workers = 1}};
  //! [spare]
#else
  //! [pulse]
  asio_pulse::io_context io;
  //! [pulse]
#endif

 private:
  //! [session]
  asio::awaitable<void> session(tcp::socket peer) {
    std::string in;
    for (;;) {
      const std::size_t size = co_await asio::async_read_until(peer, asio::dynamic_buffer(in, 1000),
                                                               '\n', asio::use_awaitable);
      const std::string line = in.substr(0, size - 1);
      in.erase(0, size);
      std::string answer = "unknown request";
      if (line == "ping") answer = "pong";
      if (line == "report") answer = co_await make_report();
      if (line.starts_with("lookup ")) answer = co_await lookup(line.substr(7));
      co_await asio::async_write(peer, asio::buffer(answer += '\n'), asio::use_awaitable);
    }
  }
  //! [session]

#if GUIDE_STEP < 2
  //! [make_report]
  asio::awaitable<std::string> make_report() { co_return co_await report(document_); }
  //! [make_report]
#elif GUIDE_STEP == 4
  asio::awaitable<std::string> make_report() { return async_report(reports_, document_); }
#else
  //! [make_named]
  asio::awaitable<std::string> make_report() {
    return asio::co_spawn(reports_.get_executor(), report(document_), asio::use_awaitable);
  }
  //! [make_named]
#endif

#if GUIDE_STEP == 7
  //! [async_resolve]
  asio::awaitable<std::string> lookup(std::string name) {
    boost::system::error_code ec;
    const auto found = co_await tcp::resolver(io).async_resolve(
        name, "", asio::redirect_error(asio::use_awaitable, ec));
    co_return ec ? ec.message() : found.begin()->endpoint().address().to_string();
  }
  //! [async_resolve]
#else
  //! [resolve]
  asio::awaitable<std::string> lookup(std::string name) {
    boost::system::error_code ec;
    const auto found = tcp::resolver(io).resolve(name, "", ec);
    co_return ec ? ec.message() : found.begin()->endpoint().address().to_string();
  }
  //! [resolve]
#endif

  tcp::acceptor acceptor_;
  document document_ = document(4000, 42);
#if GUIDE_STEP == 5
  //! [isolatable]
  asio_pulse::task reports_{io, {.name = "reports", .isolatable = true}};
  //! [isolatable]
#elif GUIDE_STEP >= 2
  //! [task]
  asio_pulse::task reports_{io, {.name = "reports", .budget = 2ms, .per = 10ms}};
  //! [task]
#endif
};

}  // namespace chat

int main(int argc, char** argv) try {
  const std::string_view port = argc == 2 ? argv[1] : "";
  unsigned short number = 0;
  const auto end = std::from_chars(port.data(), port.data() + port.size(), number);
  if (port.empty() || end.ec != std::errc() || end.ptr != port.data() + port.size()) {
    std::cerr << "usage: slow_server PORT (0 to 65535)\n";
    return 2;
  }
  chat::server server(number);
  asio::signal_set signals(server.io, SIGINT, SIGTERM);
  signals.async_wait([&](auto, auto) { server.io.stop(); });
  asio::co_spawn(server.io, server.listen(), asio::detached);
  server.io.run();
  return 0;
} catch (const std::exception& e) {
  std::cerr << "slow_server: " << e.what() << '\n';
  return 1;
}
