// SPDX-License-Identifier: BSL-1.0

// A typical stall: an HTTP server on Beast whose handler looks up a name with a blocking call. This
// file is built with -O2 -g, as servers are.

#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
#include <support/stalls.hpp>
//
#include <asio_pulse/stack_trace.hpp>

#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/version.hpp>

#include <algorithm>
#include <latch>
#include <mutex>

namespace price_server {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

/// The function to blame.
[[gnu::noinline]] bool upstream_is_known(asio::any_io_executor executor) {
  tcp::resolver resolver(executor);
  boost::system::error_code error;
  resolver.resolve("upstream.asio-pulse.test", "80", error);  // blocks
  return !error;
}

std::string answer_to(const std::string& target, const tcp::socket& socket,
                      const stalls::slow_name_server& names) {
  if (target != "/price") return "alive";
  names.serve_this_thread();
  return upstream_is_known(const_cast<tcp::socket&>(socket).get_executor()) ? "42" : "unknown";
}

asio::awaitable<void> serve(tcp::socket socket, const stalls::slow_name_server& names) {
  boost::beast::flat_buffer buffer;
  for (;;) {
    http::request<http::string_body> request;
    co_await http::async_read(socket, buffer, request, asio::use_awaitable);
    http::response<http::string_body> response(http::status::ok, request.version());
    response.keep_alive(request.keep_alive());
    response.body() = answer_to(std::string(request.target()), socket, names);
    response.prepare_payload();
    co_await http::async_write(socket, response, asio::use_awaitable);
  }
}

asio::awaitable<void> listen(tcp::acceptor& acceptor, const stalls::slow_name_server& names) {
  for (;;) {
    tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
    asio::co_spawn(acceptor.get_executor(), serve(std::move(socket), names), asio::detached);
  }
}

}  // namespace price_server

namespace {

using namespace pulse_test;
namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

/// A browser, on a thread and a context of its own.
class client {
 public:
  explicit client(std::uint16_t port) : socket_(io_) {
    socket_.connect({asio::ip::address_v4::loopback(), port});
  }
  std::string get(const std::string& target) {
    http::request<http::empty_body> request(http::verb::get, target, 11);
    request.set(http::field::host, "localhost");
    http::write(socket_, request);
    http::response<http::string_body> response;
    http::read(socket_, buffer_, response);
    return response.body();
  }

 private:
  asio::io_context io_;
  tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
};

struct seen_stall {
  std::string site;
  asio_pulse::stall_cause cause{};
  std::string system_call;
  asio_pulse::stack_trace stack;
};

TEST(blocked_server, is_named_by_its_line_while_others_are_answered) {
  const stalls::slow_name_server names;
  std::mutex mutex;
  std::vector<seen_stall> reports;
  auto o = steady();
  o.stall_threshold = 5ms;
  o.spare_workers = 1;
  o.on_report = [&](const asio_pulse::report& r) {
    if (r.kind != asio_pulse::report_kind::stall) return;
    const std::lock_guard lock(mutex);
    reports.push_back({std::string(r.site), r.cause, std::string(r.system_call),
                       asio_pulse::stack_trace(r.stack.begin(), r.stack.end())});
  };
  asio_pulse::io_context io(o);
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  const std::uint16_t port = acceptor.local_endpoint().port();
  asio::co_spawn(io, price_server::listen(acceptor, names), asio::detached);
  std::thread server([&io] { io.run(); });

  client fast(port);
  EXPECT_EQ(fast.get("/alive"), "alive");
  std::atomic<bool> answered{false};
  std::string price;
  std::thread slow([&] {
    client c(port);
    price = c.get("/price");
    answered = true;
  });
  // Waits for the report, and then for fifty answers, all while the only server thread waits for a
  // name server that does not answer.
  const auto reported = [&] {
    const std::lock_guard lock(mutex);
    return !reports.empty();
  };
  while (!reported()) std::this_thread::sleep_for(1ms);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(fast.get("/alive"), "alive");
  EXPECT_FALSE(answered);
  while (!answered) names.answer(10ms);  // answers all further queries
  slow.join();
  EXPECT_EQ(price, "unknown");
  io.stop();
  server.join();

  const std::lock_guard lock(mutex);
  const seen_stall& first = reports.front();
  EXPECT_NE(first.cause, asio_pulse::stall_cause::spinning);
  if (asio_pulse::stack_support() != asio_pulse::stack_detail::full) return;
#if !defined(PULSE_TEST_TSAN)
  const auto trace = asio_pulse::format(first.stack);
  const std::size_t at = asio_pulse::blamed_frame(first.stack);
  ASSERT_NE(at, asio_pulse::no_frame) << trace;
  EXPECT_TRUE(first.stack[at].function.starts_with("price_server::upstream_is_known(")) << trace;
  EXPECT_TRUE(first.stack[at].file.ends_with("blocked_server_test.cpp")) << trace;
  EXPECT_GT(first.stack[at].line, 0U) << trace;
  EXPECT_TRUE(std::any_of(first.stack.begin(), first.stack.end(), [](const auto& f) {
    return f.function.starts_with("price_server::serve(");
  })) << trace;
#endif
}

}  // namespace
