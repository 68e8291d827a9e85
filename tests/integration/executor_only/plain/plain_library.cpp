// SPDX-License-Identifier: BSL-1.0

#include "plain_library.hpp"

#include <boost/asio/defer.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <chrono>
#include <memory>
#include <utility>

#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING)
#error "this library is built on plain Boost.Asio"
#endif

namespace plain_library {

namespace asio = boost::asio;
using boost::system::error_code;

void post_many(const asio::any_io_executor& ex, int count, std::function<void(int)> step) {
  for (int i = 0; i < count; ++i) asio::post(ex, [step, i] { step(i); });
}

namespace {

struct ticker : std::enable_shared_from_this<ticker> {
  ticker(const asio::any_io_executor& ex, int count, std::function<void()> f)
      : timer(ex), left(count), done(std::move(f)) {}
  void next() {
    if (left-- == 0) return done();
    timer.expires_after(std::chrono::microseconds{100});
    timer.async_wait([self = shared_from_this()](error_code) { self->next(); });
  }
  asio::steady_timer timer;
  int left;
  std::function<void()> done;
};

struct pipe : std::enable_shared_from_this<pipe> {
  pipe(const asio::any_io_executor& ex, std::string t, std::function<void(std::string)> f)
      : in(ex), out(ex), text(std::move(t)), done(std::move(f)) {
    asio::local::connect_pair(in, out);
  }
  void read() {
    out.async_read_some(asio::buffer(&byte, 1),
                        [self = shared_from_this()](error_code ec, std::size_t n) {
                          self->got.append(&self->byte, n);
                          if (ec || self->got.size() == self->text.size())
                            return self->done(self->got);
                          self->read();
                        });
  }
  void start() {
    read();
    asio::async_write(in, asio::buffer(text),
                      [self = shared_from_this()](error_code, std::size_t) {});
  }
  asio::local::stream_protocol::socket in;
  asio::local::stream_protocol::socket out;
  std::string text;
  std::string got;
  char byte = 0;
  std::function<void(std::string)> done;
};

void link(const asio::any_io_executor& ex, int at, int count, std::function<void(int)> done) {
  if (at == count) return done(count);
  asio::defer(ex, [=] { link(ex, at + 1, count, done); });
}

}  // namespace

void tick(const asio::any_io_executor& ex, int count, std::function<void()> done) {
  std::make_shared<ticker>(ex, count, std::move(done))->next();
}

void through_sockets(const asio::any_io_executor& ex, std::string text,
                     std::function<void(std::string)> done) {
  auto p = std::make_shared<pipe>(ex, std::move(text), std::move(done));
  p->start();
}

void in_a_strand(const asio::any_io_executor& ex, int count, std::function<void(int)> step) {
  const auto strand = asio::make_strand(ex);
  for (int i = 0; i < count; ++i) asio::post(strand, [step, i] { step(i); });
}

void chain(const asio::any_io_executor& ex, int count, std::function<void(int)> done) {
  link(ex, 0, count, std::move(done));
}

std::size_t run(asio::io_context& context) { return context.run(); }

std::size_t operation_size() { return sizeof(asio::detail::scheduler_operation); }

}  // namespace plain_library
