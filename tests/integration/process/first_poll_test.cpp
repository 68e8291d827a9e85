// SPDX-License-Identifier: BSL-1.0
//
// A stall in a thread's first poll on a busy machine: the watchdog has not looked at the thread
// before, and looks late.

#include <support/competing_load.hpp>
#include <support/stuck.hpp>
//
#include "program.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::stall_cause;
namespace asio = boost::asio;

constexpr int threads_of_each = 12;

int first_polls() {
  std::optional<competing_load> load(std::in_place);
  std::mutex mutex;
  std::map<std::uint64_t, std::vector<stall_cause>> causes;
  asio_pulse::options o;
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  o.on_report = [&](const report& r) {
    if (r.kind != report_kind::stall) return;
    const std::lock_guard lock(mutex);
    causes[r.thread].push_back(r.cause);
  };
  asio_pulse::io_context io{o};
  const auto told = [&](std::uint64_t thread) {
    const std::lock_guard lock(mutex);
    return !causes[thread].empty();
  };
  std::map<stall_cause, int> of_spinning;
  std::map<stall_cause, int> of_blocked;
  for (int n = 0; n != 2 * threads_of_each; ++n) {
    const bool spins = n % 2 == 0;
    std::thread([&] {
      const auto self = static_cast<std::uint64_t>(::gettid());
      asio::post(io, [&] {
        while (!told(self)) {
          if (spins) {
            for (int i = 0; i != 100'000; ++i) asm volatile("");
          } else {
            std::this_thread::sleep_for(20ms);
          }
        }
      });
      io.restart();
      io.run_one();
      const std::lock_guard lock(mutex);
      ++(spins ? of_spinning : of_blocked)[causes[self].front()];
    }).join();
  }
  for (const auto& [cause, count] : of_spinning) {
    std::printf("spinning: %d times %s\n", count, std::string(to_string(cause)).c_str());
  }
  for (const auto& [cause, count] : of_blocked) {
    std::printf("blocked: %d times %s\n", count, std::string(to_string(cause)).c_str());
  }
  load.reset();
  // A thread that gets no CPU while the watchdog looks at it shows no cause.
  constexpr int most_unknown = threads_of_each / 4;
  require(of_spinning[stall_cause::unknown] <= most_unknown, "threads that spin are found to spin");
  require(of_blocked[stall_cause::unknown] <= most_unknown,
          "blocked threads are found to be blocked");
  return 0;
}
const program with_first_polls{"first_polls", &first_polls};

TEST(first_poll_timing, has_a_cause_under_load) {
  const outcome o = with_first_polls.run();
  EXPECT_TRUE(succeeded(o));
  std::printf("%s", o.out.c_str());
}

}  // namespace
