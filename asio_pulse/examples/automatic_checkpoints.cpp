// SPDX-License-Identifier: BSL-1.0
//
// A regular expression over a long text, and a timer that fires every millisecond, on one thread.
// Neither std::regex nor the function that calls it knows of asio-pulse: this file is compiled with
// automatic checkpoints (asio_pulse_add_checkpoints() in CMake).

#include <asio_pulse/io_context.hpp>
#include <asio_pulse/preemptible.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iostream>
#include <iterator>
#include <regex>
#include <string>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

//! [work]
std::size_t count_addresses(const std::string& text) {
  static const std::regex address("[a-z0-9.]+@[a-z0-9]+\\.(com|org)");
  return static_cast<std::size_t>(std::distance(
      std::sregex_iterator(text.begin(), text.end(), address), std::sregex_iterator()));
}
//! [work]

}  // namespace

int main() {
  std::string text;
  for (int i = 0; i < 40000; ++i)
    text += "someone" + std::to_string(i) + "@example.org, and more. ";

  //! [context]
  asio_pulse::options o;
  o.quantum = 100us;
  o.fiber_stack =
      std::size_t{8} << 20;  // std::regex recurses deeply; only what it uses is committed
  asio_pulse::io_context io{o};
  //! [context]

  asio::steady_timer timer(io);
  int ticks = 0;
  bool searching = true;
  std::function<void(const boost::system::error_code&)> tick = [&](const auto&) {
    ++ticks;
    if (!searching) return;
    timer.expires_after(1ms);
    timer.async_wait(tick);
  };
  timer.expires_after(1ms);
  timer.async_wait(tick);

  std::size_t found = 0;
  std::chrono::steady_clock::duration took{};
  //! [start]
  asio::post(io, asio_pulse::preemptible([&] {
               const auto start = std::chrono::steady_clock::now();
               found = count_addresses(text);
               took = std::chrono::steady_clock::now() - start;
               searching = false;
             }));
  //! [start]
  io.run();

  const auto s = io.stats();
  std::cout << found << " addresses in " << std::chrono::duration<double, std::milli>(took).count()
            << " ms; the timer fired " << ticks << " times meanwhile; " << s.automatic_checks
            << " checks, " << s.automatic_suspensions << " suspensions\n";
  return found == 40000 && ticks > 2 && s.automatic_suspensions > 0 ? 0 : 1;
}
