// SPDX-License-Identifier: BSL-1.0
//
// A policy of the program's own: interactive tasks before those that have used a lot of CPU time.

#include <asio_pulse/asio_pulse.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iostream>
#include <memory>
#include <span>

using namespace std::chrono_literals;

// [policy]
// The task that has used the least CPU time is next, but one that has waited for 20 ms goes first.
class least_used_first : public asio_pulse::scheduling_policy {
 public:
  std::size_t pick(std::span<const work> waiting, time now) override {
    std::size_t best = 0;
    for (std::size_t i = 0; i != waiting.size(); ++i) {
      if (now - waiting[i].since >= 20ms) return i;  // what has waited longest comes first
      if (waiting[i].cost < waiting[best].cost) best = i;
    }
    return best;
  }
};
// [policy]

int main() {
  // [use]
  asio_pulse::io_context io{asio_pulse::options{
      .on_report = [](const asio_pulse::report&) {},
      .policy = asio_pulse::scheduling::custom,
      .saturation = 50us,
      .custom_policy = [] { return std::make_unique<least_used_first>(); },
  }};
  // [use]
  const asio_pulse::task batch{io, {.name = "batch"}};
  const asio_pulse::task click{io, {.name = "click"}};

  // 200 handlers of 100 us wait when the click comes.
  int left = 200;
  int before_the_click = -1;
  asio_pulse::post(batch, [&] {
    for (int i = 0; i != 200; ++i) {
      asio_pulse::post(batch, [&left] {
        const auto end = std::chrono::steady_clock::now() + 100us;
        while (std::chrono::steady_clock::now() < end) continue;
        --left;
      });
    }
    asio_pulse::post(click, [&] { before_the_click = 200 - left; });
  });
  io.run();

  std::cout << "handlers of the batch that ran before the click: " << before_the_click
            << "; turns that the policy chose: " << io.stats().policy_turns << "\n";
  return before_the_click >= 0 && before_the_click < 100 && io.stats().policy_faults == 0 ? 0 : 1;
}
