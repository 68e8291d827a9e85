// SPDX-License-Identifier: BSL-1.0

// A simple program, for each of the three modes. Exits with 0 if its handlers ran as they should.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>

int main() {
  using namespace std::chrono_literals;

  asio_pulse::io_context io;
  const asio_pulse::task job{io, {.name = "job", .budget = 2ms, .per = 10ms}};
  boost::asio::io_context& plain = io;

  int ran = 0;
  for (int i = 0; i != 3; ++i) {
    boost::asio::post(plain, [&ran] { ++ran; });
    boost::asio::post(job.get_executor(), [&ran] { ++ran; });
  }
  const std::size_t counted = io.run();
  if (ran != 6 || counted == 0) {
    std::fprintf(stderr, "6 handlers posted, %d ran, run() counted %zu\n", ran, counted);
    return 1;
  }
  return 0;
}
