// SPDX-License-Identifier: BSL-1.0
//
// What it costs to accept a connection, and what options::classify adds.

#include "../../../measure.hpp"
#include "../server.hpp"
#include "shares.hpp"

#include <boost/asio/ip/tcp.hpp>

#include <memory>
#include <vector>

namespace worker {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::size_t connections_a_round = 250;
constexpr int rounds = 21;

/// A listener that accepts connections which wait for it already.
class listener {
 public:
  explicit listener(bool classifies) : server_{{}}, classifies_{classifies} {
    acceptor_.open(tcp::v4());
    acceptor_.bind({asio::ip::address_v4::loopback(), 0});
    acceptor_.listen(static_cast<int>(connections_a_round));
#if !defined(BENCH_STOCK)
    group_ = std::make_unique<bench::group>(server_.io(), "", 100);
    // It looks at the peer, as a program does.
    if (classifies) {
      server_.io().classify([this](const asio_pulse::accepted_connection& c) {
        return c.peer().port() != 0 ? asio_pulse::group_ref(*group_) : asio_pulse::group_ref();
      });
    }
#endif
  }

  /// CPU time of this thread for each connection.
  double round(outcome& to) {
    asio::io_context outside;
    std::vector<tcp::socket> clients;
    for (std::size_t n = 0; n < connections_a_round; ++n) {
      clients.emplace_back(outside).connect(acceptor_.local_endpoint());
    }
    left_ = connections_a_round;
    accept();
    server_.io().restart();
    const auto before = bench::thread_cpu_time();
    server_.io().run();
    const std::chrono::duration<double, std::nano> cpu = bench::thread_cpu_time() - before;
    to.check(left_ == 0, "each connection was accepted");
#if !defined(BENCH_STOCK)
    to.check(group_->stats().tasks == (classifies_ ? connections_a_round : 0),
             "the connections are in their group");
#endif
    accepted_.clear();
    server_.io().restart();
    server_.io().poll();
    return cpu.count() / static_cast<double>(connections_a_round);
  }

  void check(outcome& to) const {
#if !defined(BENCH_STOCK)
    to.check(server_.io().stats().classify_failures == 0, "no classification failed");
#else
    static_cast<void>(to);
#endif
  }

 private:
  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& ec, tcp::socket socket) {
      if (ec) return;
      accepted_.push_back(std::move(socket));
      if (--left_ != 0) accept();
    });
  }

  mutable server server_;
  [[maybe_unused]] const bool classifies_;
#if !defined(BENCH_STOCK)
  std::unique_ptr<bench::group> group_;
#endif
  tcp::acceptor acceptor_{server_.io()};
  std::vector<tcp::socket> accepted_;
  std::size_t left_ = 0;
};

}  // namespace

outcome shares_classify(const request&) {
  outcome result;
  listener plain{false};
  listener classifying{true};
  std::vector<double> without;
  std::vector<double> with;
  for (int round = -1; round < rounds; ++round) {  // after one that does not count
    const double a = plain.round(result);
    const double b = classifying.round(result);
    if (round < 0) continue;
    without.push_back(a);
    with.push_back(b);
  }
  plain.check(result);
  classifying.check(result);
  result.values["accept_ns"] = bench::median(without);
  result.values["classified_ns"] = bench::median(with);
  if (result.verified) result.verification = "each connection was accepted, and is in its group";
  return result;
}

}  // namespace worker
