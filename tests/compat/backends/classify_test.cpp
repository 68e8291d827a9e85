// SPDX-License-Identifier: BSL-1.0

// What options::classify sees of an accepted connection, on each back end.

#include <support/io_uring.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/accepted_connection.hpp>
#include <asio_pulse/task_group.hpp>

#include <boost/asio/ip/tcp.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace pulse_test;
using asio_pulse::accepted_connection;
using asio_pulse::group_ref;

class backend_classify : public testing::Test {
 protected:
  backend_classify() {
    io_.classify([this](const accepted_connection& c) -> group_ref {
      peers_.push_back(c.peer().port());
      known_.push_back(c.socket >= 0);
      return tenant_;
    });
  }
  void connect() { client_.connect(acceptor_.local_endpoint()); }

  asio_pulse::io_context io_{steady()};
  asio_pulse::task_group tenant_{io_};
  tcp::acceptor acceptor_{io_, {asio::ip::address_v4::loopback(), 0}};
  asio::io_context outside_;
  tcp::socket client_{outside_};
  std::vector<std::uint16_t> peers_;
  std::vector<bool> known_;
};

TEST_F(backend_classify, a_connection_that_the_handler_gets) {
  std::optional<tcp::socket> kept;
  acceptor_.async_accept([&](error_code ec, tcp::socket s) {
    EXPECT_FALSE(ec) << ec.message();
    kept = std::move(s);
  });
  connect();
  io_.run();
  ASSERT_EQ(peers_.size(), 1U);
  EXPECT_EQ(peers_[0], client_.local_endpoint().port());
  EXPECT_EQ(tenant_.stats().tasks, 1U);
}

// Only epoll registers the socket, by which it is known.
TEST_F(backend_classify, a_connection_into_a_socket_of_the_programs) {
  tcp::socket socket(io_);
  acceptor_.async_accept(socket, [](error_code ec) { EXPECT_FALSE(ec) << ec.message(); });
  connect();
  io_.run();
  ASSERT_EQ(peers_.size(), 1U);
  EXPECT_EQ(peers_[0], known_[0] ? client_.local_endpoint().port() : 0);
#if defined(BOOST_ASIO_HAS_EPOLL)
  EXPECT_TRUE(known_[0] || always_preempt());
#endif
}

TEST_F(backend_classify, an_accept_that_fails) {
  acceptor_.async_accept([](error_code ec, const tcp::socket&) { EXPECT_TRUE(ec); });
  asio::post(io_, [this] { acceptor_.close(); });
  io_.run();
  EXPECT_TRUE(peers_.empty());
}

}  // namespace
