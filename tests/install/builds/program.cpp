// SPDX-License-Identifier: BSL-1.0

// Uses what most programs use: a task, posts, a timer, a strand, a coroutine with checkpoints, two
// threads. Exits with 0 if its handlers ran as they must. It is compiled in each supported way.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

std::atomic<int> ran{0};

asio::awaitable<void> work(asio::steady_timer& timer) {
  for (int i = 0; i != 1000; ++i) {
    co_await asio_pulse::checkpoint();
    if (asio_pulse::should_yield()) co_await asio::post(asio::use_awaitable);
  }
  timer.expires_after(1ms);
  co_await timer.async_wait(asio::use_awaitable);
  ++ran;
}

}  // namespace

int main() {
#if defined(BOOST_ASIO_DISABLE_THREADS)
  constexpr int threads = 1;
#else
  constexpr int threads = 2;
#endif
  asio_pulse::io_context io;
  const asio_pulse::task job{io, {.name = "job", .budget = 2ms, .per = 10ms}};
  asio::steady_timer timer{io};
  asio::steady_timer another{io, 1ms};
  auto strand = asio::make_strand(job.get_executor());

  asio_pulse::co_spawn(job, work(timer), asio::detached);
  another.async_wait([](boost::system::error_code) { ++ran; });
  for (int i = 0; i != 100; ++i) {
    asio::post(io, [] { ++ran; });
    asio::post(strand, [] {
      asio_pulse::this_fiber::checkpoint();
      ++ran;
    });
    asio_pulse::post(job, [] { ++ran; });
  }
  if (threads == 1) {
    io.run();
  } else {
    std::thread other([&io] { io.run(); });
    io.run();
    other.join();
  }
  if (ran != 302 || job.stats().polls == 0) {
    std::fprintf(stderr, "302 handlers expected, %d ran\n", ran.load());
    return 1;
  }
  return 0;
}
