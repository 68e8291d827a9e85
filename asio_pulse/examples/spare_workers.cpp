// SPDX-License-Identifier: BSL-1.0
//
// The only worker is stuck in a handler. A spare worker takes over, and other handlers continue.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>

using namespace std::chrono_literals;

int main() {
  // [spare]
  // spare_workers is a promise: handlers may run on threads that did not call run(). State that
  // they share is protected by a strand or a lock, as with several workers.
  asio_pulse::io_context io{asio_pulse::options{
      .on_report = [](const asio_pulse::report&) {},
      .spare_workers = 1,
  }};
  // [spare]

  std::atomic<bool> stuck{true};
  std::atomic<bool> fired_meanwhile{false};
  const asio_pulse::task legacy{io, {.name = "legacy"}};
  asio_pulse::post(legacy, [&] {
    std::this_thread::sleep_for(500ms);  // a library that blocks
    stuck = false;
  });

  boost::asio::steady_timer heartbeat(io, 50ms);
  const auto started = std::chrono::steady_clock::now();
  heartbeat.async_wait([&](boost::system::error_code) {
    fired_meanwhile = stuck.load();
    const auto after = std::chrono::steady_clock::now() - started;
    std::cout << "the heartbeat of 50 ms came after "
              << std::chrono::duration_cast<std::chrono::milliseconds>(after).count() << " ms\n";
  });
  io.run();  // one thread

  std::cout << "spare workers started: " << io.stats().spares_started << '\n';
  return fired_meanwhile ? 0 : 1;
}
