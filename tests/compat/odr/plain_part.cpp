// SPDX-License-Identifier: BSL-1.0

#include "plain_part.hpp"

#include <utility>

// Must follow <utility>, which Boost 1.74's awaitable.hpp uses but does not include.
#include <boost/asio.hpp>

#include <array>
#include <chrono>

#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING)
#error "this part is meant to be built without the definition"
#endif

namespace plain_part {

namespace asio = boost::asio;

void post(asio::io_context& context) {
  asio::post(context, [] {});
  asio::post(asio::make_strand(context), [] {});
  context.run();
}

void wait_for_timer(asio::io_context& context) {
  asio::steady_timer timer(context, std::chrono::milliseconds(1));
  timer.async_wait([](boost::system::error_code) {});
  context.run();
}

void read_from_socket(asio::io_context& context) {
  asio::local::stream_protocol::socket near(context);
  asio::local::stream_protocol::socket far(context);
  asio::local::connect_pair(near, far);
  std::array<char, 1> byte{};
  near.async_read_some(asio::buffer(byte), [](boost::system::error_code, std::size_t) {});
  asio::write(far, asio::buffer("x", 1));
  context.run();
}

void run_a_context_of_its_own() {
  asio::io_context context;
  post(context);
  context.restart();
  wait_for_timer(context);
}

void use_a_thread_pool() {
  asio::thread_pool pool(1);
  asio::post(pool, [] {});
  pool.join();
}

}  // namespace plain_part
