// SPDX-License-Identifier: BSL-1.0
//
// A program that is stuck in a handler until the report is written, and then ends.

#include <asio_pulse/io_context.hpp>

#include <boost/asio/post.hpp>

#include <chrono>
#include <cstdio>
#include <thread>

namespace {

[[gnu::noinline]] bool stuck(asio_pulse::io_context& io) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (io.stats().stall_reports == 0) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return true;
}

}  // namespace

int main() {
  bool reported = false;
  asio_pulse::io_context io;
  boost::asio::post(io, [&] { reported = stuck(io); });
  io.run();
  if (!reported) std::puts("nothing was reported");
  return reported ? 0 : 1;
}
