// SPDX-License-Identifier: BSL-1.0
//
// Shadow mode shows what asio-pulse would do to a program, without doing it.

#include <asio_pulse/asio_pulse.hpp>

#include <chrono>
#include <functional>
#include <iostream>

using namespace std::chrono_literals;

int main() {
  // [shadow]
  asio_pulse::io_context io{asio_pulse::options{
      .shadow = true,  // everything is decided and reported, but nothing is enforced
      .on_report = [](const asio_pulse::report&) {},
  }};
  // [shadow]
  const asio_pulse::task greedy{io, {.name = "greedy", .budget = 300us, .per = 3ms}};
  const asio_pulse::task polite{io, {.name = "polite"}};

  int left = 200;
  const std::function<void()> hog = [&] {
    const auto end = std::chrono::steady_clock::now() + 500us;
    while (std::chrono::steady_clock::now() < end) continue;
    if (--left > 0) asio_pulse::post(greedy, hog);
  };
  asio_pulse::post(greedy, hog);
  const std::function<void()> serve = [&] {
    if (left > 0) asio_pulse::post(polite, serve);
  };
  asio_pulse::post(polite, serve);
  io.run();

  const asio_pulse::statistics did = io.stats();
  std::cout << "tiers climbed: " << did.promotions << "; greedy would be in tier "
            << to_string(greedy.current_tier()) << "; operations held back: " << did.yields
            << "; CPU time that would have been put behind other work: "
            << std::chrono::duration_cast<std::chrono::milliseconds>(did.shadow_saved).count()
            << " ms\n";
  return did.promotions > 0 && did.yields == 0 ? 0 : 1;
}
