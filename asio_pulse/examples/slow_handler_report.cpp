// SPDX-License-Identifier: BSL-1.0
//
// A handler that blocks for 100 ms is reported to a callback while it blocks, with the frame to
// blame.

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/report.hpp>

#include <atomic>
#include <chrono>
#include <iostream>
#include <string>
#include <thread>

using namespace std::chrono_literals;

int main() {
  std::atomic<int> stalls{0};  // outlives the context, whose destructor waits for the callback
  {
    // [on_report]
    asio_pulse::io_context io{asio_pulse::options{
        .stall_threshold = 5ms,
        // Called on the worker when the poll has ended, or on the watchdog's thread while it lasts.
        .on_report =
            [&stalls](const asio_pulse::report& r) {
              if (r.kind == asio_pulse::report_kind::stall) ++stalls;
              // Names are escaped. The stack has one line for each frame.
              std::cout << asio_pulse::format(r) + '\n' << asio_pulse::format(r.stack);
            },
    }};
    // [on_report]
    const asio_pulse::task prices{io, {.name = "prices"}};
    asio_pulse::post(prices, [] { std::this_thread::sleep_for(100ms); });
    io.run();
  }
  std::cout << "reports of stalls: " << stalls << '\n';
  return stalls > 0 ? 0 : 1;
}
