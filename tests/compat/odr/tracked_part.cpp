// SPDX-License-Identifier: BSL-1.0

#include "tracked_part.hpp"

#include <asio_pulse/io_context.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>

namespace tracked_part {

void run_a_context() {
  asio_pulse::io_context context;
  boost::asio::steady_timer timer(context, std::chrono::milliseconds(1));
  timer.async_wait([](boost::system::error_code) {});
  boost::asio::post(context, [] {});
  context.run();
}

}  // namespace tracked_part
