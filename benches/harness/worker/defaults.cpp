// SPDX-License-Identifier: BSL-1.0
//
// A server with the default options. Its work belongs to no task, or to connections.

#include "../../measure.hpp"
#include "server.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <thread>

namespace worker {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::microseconds request_length{50};
constexpr std::size_t most_in_a_burst = 64;

/// Echoes each byte after the work of one request. All bytes that have arrived are served in one
/// handler.
struct session : std::enable_shared_from_this<session> {
  explicit session(tcp::socket s) : socket{std::move(s)} {}

  void read() {
    socket.async_read_some(asio::buffer(bytes), [self = shared_from_this()](auto ec, auto count) {
      if (ec) return;
      bench::spin(request_length * static_cast<long>(count));
      asio::async_write(self->socket, asio::buffer(self->bytes, count), [self](auto failed, auto) {
        if (!failed) self->read();
      });
    });
  }

  tcp::socket socket;
  std::array<char, 1024> bytes{};
};

/// Sends bursts on schedule, even if earlier ones were not answered. Latency is measured from the
/// time at which the burst was due.
class client {
 public:
  client(const tcp::endpoint& to, std::chrono::microseconds every, std::size_t burst)
      : every_{every}, burst_{burst} {
    socket_.connect(to);
    socket_.set_option(tcp::no_delay{true});
  }

  void run(std::chrono::milliseconds duration, std::vector<std::int64_t>& latencies) {
    const auto start = clock_type::now();
    std::vector<clock_type::time_point> due;
    std::thread sender([&] {
      const std::array<char, most_in_a_burst> bytes{};
      for (auto at = start; at < start + duration; at += every_) {
        std::this_thread::sleep_until(at);
        asio::write(socket_, asio::buffer(bytes, burst_));
        sent_ += burst_;
      }
      done_ = true;
    });
    std::size_t answered = 0;
    char byte = 0;
    while (!done_ || answered < sent_) {
      boost::system::error_code failed;
      if (asio::read(socket_, asio::buffer(&byte, 1), failed) == 0) break;
      const auto sent_at = start + every_ * static_cast<long>(answered / burst_);
      latencies.push_back(std::chrono::nanoseconds{clock_type::now() - sent_at}.count());
      ++answered;
    }
    sender.join();
    unanswered = sent_ - answered;
  }

  std::size_t unanswered = 0;

 private:
  asio::io_context plain_;
  tcp::socket socket_{plain_};
  const std::chrono::microseconds every_;
  const std::size_t burst_;
  std::atomic<std::size_t> sent_{0};
  std::atomic<bool> done_{false};
};

}  // namespace

/// Chains of handlers that belong to no task post themselves again and again; each handler takes
/// `piece`. Clients send bursts of requests, together `rate` requests per second.
outcome defaults(const request& r) {
  outcome result;
  server s{{.workers = r.workers}};
  std::atomic<bool> over{false};
  std::function<void()> piece = [&] {
    bench::spin(r.piece);
    if (!over) asio::post(s.io(), [&] { piece(); });
  };
  tcp::acceptor acceptor{s.io(), {asio::ip::address_v4::loopback(), 0}};
  std::function<void()> accept = [&] {
    acceptor.async_accept([&](auto ec, tcp::socket socket) {
      if (ec) return;
      socket.set_option(tcp::no_delay{true});
      std::make_shared<session>(std::move(socket))->read();
      accept();
    });
  };
  accept();
  for (unsigned n = 0; n < r.handlers; ++n) asio::post(s.io(), [&] { piece(); });
  const auto start = clock_type::now();
  std::thread driver([&] {
    constexpr std::size_t burst = 8;
    std::vector<std::thread> threads;
    std::vector<std::vector<std::int64_t>> latencies(r.connections);
    std::atomic<std::size_t> unanswered{0};
    const std::chrono::microseconds every{1'000'000L * static_cast<long>(burst * r.connections) /
                                          static_cast<long>(r.rate)};
    for (unsigned n = 0; n < r.connections; ++n) {
      threads.emplace_back([&, n] {
        client c{acceptor.local_endpoint(), every, burst};
        c.run(r.duration, latencies[n]);
        unanswered += c.unanswered;
      });
    }
    for (std::thread& t : threads) t.join();
    for (const auto& some : latencies) {
      auto& all = result.samples_ns["latency"];
      all.insert(all.end(), some.begin(), some.end());
    }
    result.values["unanswered"] = static_cast<double>(unanswered);
    over = true;
    asio::post(s.io(), [&] { acceptor.close(); });
  });
  s.run();
  driver.join();
  s.add_counts(result, start);
  result.check(result.values["unanswered"] == 0, "each request was answered");
  if (result.verified) result.verification = "each request was answered, and none twice";
  return result;
}

}  // namespace worker
