// SPDX-License-Identifier: BSL-1.0
//
// A coroutine that computes for a long time on the only thread, beside a timer that must not be
// late.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

// [budget]
asio::awaitable<std::uint32_t> checksum(const std::vector<std::uint32_t>& document) {
  ASIO_PULSE_PREEMPTION_BUDGET(2ms);  // the function may use 2 ms in every 10 ms
  std::uint32_t sum = 0;
  for (const std::uint32_t word : document) {
    for (int round = 0; round != 50; ++round) sum = (sum << 5) - sum + word;
    ASIO_PULSE_CHECKPOINT();  // yields to other handlers when it is time
  }
  co_return sum;
}
// [budget]

int main() {
  asio_pulse::io_context io{asio_pulse::options{.on_report = [](const asio_pulse::report&) {}}};
  const std::vector<std::uint32_t> document(2'000'000, 42);
  bool done = false;

  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        const std::uint32_t sum = co_await checksum(document);
        std::cout << "checksum " << sum << '\n';
        done = true;
      },
      asio::detached);

  int ticks = 0;
  clock_type::duration latest{};
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        asio::steady_timer timer(io);
        while (!done) {
          timer.expires_after(1ms);
          co_await timer.async_wait(asio::use_awaitable);
          latest = std::max(latest, clock_type::now() - timer.expiry());
          ++ticks;
        }
      },
      asio::detached);

  io.run();
  std::cout << "the timer fired " << ticks << " times meanwhile, at the latest "
            << std::chrono::duration_cast<std::chrono::microseconds>(latest).count()
            << " us after its time\n";
  return ticks > 2 ? 0 : 1;
}
