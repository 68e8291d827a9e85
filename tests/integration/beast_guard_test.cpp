// SPDX-License-Identifier: BSL-1.0

// request_guard in a Boost.Beast server, with real clients.

#include <support/scenario.hpp>
//
#include <asio_pulse/beast.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <atomic>
#include <memory>

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using namespace pulse_test;
using asio_pulse::request_guard;
using asio_pulse::task_group;

using request_type = http::request<http::string_body>;
using response_type = http::response<http::string_body>;

/// Answers with "served" and the name of the task that serves.
class server {
 public:
  explicit server(const asio_pulse::options& o)
      : io(o), tenant(io, {.name = "tenant"}), other(io, {.name = "other"}) {
    asio::co_spawn(io, listen(), asio::detached);
    thread_ = std::thread([this] { io.run(); });
  }
  ~server() {
    io.stop();
    thread_.join();
  }

  [[nodiscard]] tcp::endpoint where() const { return acceptor_.local_endpoint(); }

  asio_pulse::io_context io;
  task_group tenant;
  task_group other;
  asio_pulse::guard_options guarded{.always = {"/health"}};
  /// A request for "/stuck" blocks its thread for as long as this is set.
  std::atomic<bool> is_stuck{false};

 private:
  asio::awaitable<void> listen() {
    for (;;) {
      tcp::socket socket = co_await acceptor_.async_accept(asio::use_awaitable);
      asio::co_spawn(io, serve(std::move(socket)), asio::detached);
    }
  }
  asio::awaitable<void> serve(tcp::socket socket) {
    boost::beast::flat_buffer buffer;
    for (;;) {
      request_type request;
      co_await http::async_read(socket, buffer, request, asio::use_awaitable);
      if (request.target() == "/stuck") is_stuck.wait(true);
      const bool of_other = request["X-Tenant"] == "other";
      const request_guard guard(of_other ? other : tenant, request, guarded);
      response_type answer =
          guard ? response_type{http::status::ok, request.version()} : guard.refusal();
      if (guard) {
        burn(500us);
        constexpr std::string_view text = "served";
        if (request.method() != http::verb::head) answer.body() = text;
        answer.keep_alive(request.keep_alive());
        answer.content_length(text.size());
      }
      co_await http::async_write(socket, answer, asio::use_awaitable);
      if (!request.keep_alive()) co_return;
    }
  }

  tcp::acceptor acceptor_{io, {asio::ip::address_v4::loopback(), 0}};
  std::thread thread_;
};

class client {
 public:
  explicit client(tcp::endpoint server) { socket_.connect(server); }

  void send(const char* target, bool keep_alive = true, http::verb method = http::verb::get,
            const char* tenant = nullptr) {
    request_type request{method, target, 11};
    request.keep_alive(keep_alive);
    if (tenant != nullptr) request.set("X-Tenant", tenant);
    http::write(socket_, request);
  }
  response_type receive() {
    response_type answer;
    http::read(socket_, buffer_, answer);
    return answer;
  }
  /// The answer to a HEAD request.
  http::response<http::empty_body> receive_head() {
    http::response_parser<http::empty_body> answer;
    answer.skip(true);
    http::read(socket_, buffer_, answer);
    return answer.release();
  }

 private:
  asio::io_context io_;
  tcp::socket socket_{io_};
  boost::beast::flat_buffer buffer_;
};

asio_pulse::options quick() {
  asio_pulse::options o = steady();
  o.admission = {.target = 2ms, .interval = 10ms};
  return o;
}

// More requests at once than the server has time for, and then health checks, which are served. Some of the
// requests are served, too, and the others are refused.
testing::AssertionResult some_are_refused(const server& s) {
  std::vector<std::unique_ptr<client>> clients;
  for (int i = 0; i != 40; ++i) clients.push_back(std::make_unique<client>(s.where()));
  int served = 0;
  int refused = 0;
  for (int round = 0; round != 10; ++round) {
    for (auto& c : clients) c->send("/work");
    for (auto& c : clients) {
      const response_type answer = c->receive();
      if (answer.result() == http::status::ok) {
        ++served;
        continue;
      }
      ++refused;
      EXPECT_EQ(answer.result(), http::status::service_unavailable);
      EXPECT_EQ(answer[http::field::retry_after], "1");
      EXPECT_TRUE(answer.keep_alive());
    }
  }
  for (auto& c : clients) c->send("/health?verbose", false);
  for (auto& c : clients) EXPECT_EQ(c->receive().result(), http::status::ok);
  return testing::AssertionResult(served > 0 && refused > 0)
         << served << " served, " << refused << " refused";
}

TEST(request_guard, an_admitted_request_is_a_task_of_its_group) {
  server s{quick()};
  client c{s.where()};
  std::uint64_t served = 0;
  // Where the server's thread gets little of the CPU, its queue is too long at times.
  for (int i = 0; i != 500 && served != 10; ++i) {
    c.send("/");
    const std::string body = c.receive().body();
    if (body == "served") {
      ++served;
    } else {
      EXPECT_EQ(body, "The server is overloaded.\n");
    }
  }
  EXPECT_EQ(served, 10U);
  EXPECT_EQ(s.tenant.stats().admitted, served);
  EXPECT_GE(s.tenant.stats().cpu, 9 * 500us);
  EXPECT_EQ(s.other.stats().cpu, 0ns);
}

TEST(request_guard, a_refused_request_is_answered_with_503_and_a_health_check_is_served) {
  if (asio_pulse::hooks::detail::always_preempt())
    GTEST_SKIP() << "what waits is parked, and makes the measured queue no longer";
  server s{quick()};
  // The queue is 40 requests long, unless the server gets so much more CPU time than this thread that it
  // serves each as it comes.
  EXPECT_TRUE(holds_in_one_of(20, [&] { return some_are_refused(s); }));
}

TEST(request_guard, a_header_names_the_group_that_is_charged) {
  server s{quick()};
  client c{s.where()};
  std::uint64_t served = 0;
  for (int i = 0; i != 500 && served != 10; ++i) {  // on a busy machine some are refused
    c.send("/", true, http::verb::get, "other");
    served += c.receive().result() == http::status::ok ? 1U : 0U;
  }
  EXPECT_EQ(served, 10U);
  EXPECT_EQ(s.other.stats().admitted, served);
  EXPECT_GE(s.other.stats().cpu, 9 * 500us);
  EXPECT_EQ(s.tenant.stats().admitted, 0U);
  EXPECT_EQ(s.tenant.stats().cpu, 0ns);
}

TEST(request_guard, refuses_and_serves_health_checks_while_the_only_worker_is_stuck) {
  if (asio_pulse::hooks::detail::always_preempt())
    GTEST_SKIP() << "what waits is parked, and makes the measured queue no longer";
  asio_pulse::options o = quick();
  o.stall_threshold = 5ms;
  o.spare_workers = 1;
  server s{o};
  s.is_stuck = true;
  client stuck{s.where()};
  stuck.send("/stuck");
  EXPECT_TRUE(holds_in_one_of(20, [&] { return some_are_refused(s); }));
  // All this was answered while the request before was not.
  EXPECT_TRUE(s.is_stuck);
  EXPECT_GT(s.io.stats().spares_started, 0U);
  s.is_stuck = false;
  s.is_stuck.notify_all();
  const http::status at_last = stuck.receive().result();
  EXPECT_TRUE(at_last == http::status::ok || at_last == http::status::service_unavailable);
}

// What follows the header of such an answer would be taken for the beginning of the next one.
TEST(request_guard, a_refused_head_request_is_answered_without_a_body) {
  if (asio_pulse::hooks::detail::always_preempt())
    GTEST_SKIP() << "what waits is parked, and makes the measured queue no longer";
  server s{quick()};
  EXPECT_TRUE(holds_in_one_of(20, [&]() -> testing::AssertionResult {
    std::vector<std::unique_ptr<client>> clients;
    for (int i = 0; i != 40; ++i) clients.push_back(std::make_unique<client>(s.where()));
    int refused = 0;
    for (int round = 0; round != 10; ++round) {
      for (auto& c : clients) c->send("/work", true, http::verb::head);
      for (auto& c : clients) {
        const auto answer = c->receive_head();
        if (answer.result() == http::status::ok) continue;
        ++refused;
        EXPECT_EQ(answer.result(), http::status::service_unavailable);
        EXPECT_EQ(answer[http::field::content_length], "26");
      }
    }
    for (auto& c : clients) c->send("/health", false);
    for (auto& c : clients) EXPECT_EQ(c->receive().body(), "served");
    return testing::AssertionResult(refused > 0) << refused << " refused";
  }));
}

}  // namespace
