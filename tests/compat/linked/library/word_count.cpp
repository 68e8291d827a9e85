// SPDX-License-Identifier: BSL-1.0

#include "word_count.hpp"

#include <utility>

// Must follow <utility>, which Boost 1.74's awaitable.hpp uses but does not include.
#include <boost/asio.hpp>

#include <chrono>
#include <future>
#include <sstream>
#include <thread>

#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING) || defined(ASIO_PULSE_EXECUTOR_ONLY)
#error "this library is meant to know nothing of asio-pulse"
#endif

namespace word_count {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

std::size_t words_in(const std::string& line) {
  std::istringstream in(line);
  std::string word;
  std::size_t n = 0;
  while (in >> word) ++n;
  return n;
}

struct counting : std::enable_shared_from_this<counting> {
  asio::any_io_executor executor;
  std::string text;
  std::size_t rounds = 0;
  std::function<void(std::size_t)> done;
  std::istringstream in;
  std::size_t sum = 0;

  void turn() {
    std::string line;
    if (!std::getline(in, line)) {
      if (--rounds == 0) {
        done(sum);
        return;
      }
      in = std::istringstream(text);
    }
    sum += words_in(line);
    asio::post(executor, [self = shared_from_this()] { self->turn(); });
  }
};

struct session : std::enable_shared_from_this<session> {
  explicit session(tcp::socket s) : socket(std::move(s)) {}

  void read() {
    asio::async_read_until(socket, asio::dynamic_buffer(text), '\n',
                           [self = shared_from_this()](error_code ec, std::size_t n) {
                             if (!ec) self->answer(n);
                           });
  }
  void answer(std::size_t n) {
    reply = std::to_string(words_in(text.substr(0, n))) + "\n";
    text.erase(0, n);
    asio::async_write(socket, asio::buffer(reply),
                      [self = shared_from_this()](error_code ec, std::size_t) {
                        if (!ec) self->read();
                      });
  }

  tcp::socket socket;
  std::string text;
  std::string reply;
};

}  // namespace

void async_count(asio::any_io_executor executor, std::string text, std::size_t rounds,
                 std::function<void(std::size_t)> done) {
  auto c = std::make_shared<counting>();
  c->executor = std::move(executor);
  c->in = std::istringstream(text);
  c->text = std::move(text);
  c->rounds = rounds;
  c->done = std::move(done);
  asio::post(c->executor, [c] { c->turn(); });
}

struct server::state : std::enable_shared_from_this<server::state> {
  explicit state(const asio::any_io_executor& executor)
      : acceptor(executor, {asio::ip::address_v4::loopback(), 0}) {}

  void accept() {
    acceptor.async_accept([self = shared_from_this()](error_code ec, tcp::socket socket) {
      if (ec) return;
      std::make_shared<session>(std::move(socket))->read();
      self->accept();
    });
  }

  tcp::acceptor acceptor;
};

server::server(asio::any_io_executor executor) : state_(std::make_shared<state>(executor)) {
  state_->accept();
}
server::~server() = default;
server::server(server&&) noexcept = default;
server& server::operator=(server&&) noexcept = default;

unsigned short server::port() const { return state_->acceptor.local_endpoint().port(); }

void server::stop() {
  asio::post(state_->acceptor.get_executor(), [self = state_] { self->acceptor.close(); });
}

std::size_t count_in_background(const std::string& text, std::size_t rounds) {
  asio::io_context context(1);
  std::promise<std::size_t> sum;
  async_count(context.get_executor(), text, rounds, [&sum](std::size_t n) { sum.set_value(n); });
  asio::steady_timer timer(context, std::chrono::milliseconds(1));
  timer.async_wait([](error_code) {});
  std::thread thread([&context] { context.run(); });
  thread.join();
  return sum.get_future().get();
}

}  // namespace word_count
