// SPDX-License-Identifier: BSL-1.0
//
// A task whose handlers are long and have no checkpoint: after the first one they run on a thread
// of their own, and the context's thread is free again.

#include <asio_pulse/asio_pulse.hpp>

#include <chrono>
#include <ctime>
#include <iostream>
#include <set>
#include <thread>

using namespace std::chrono_literals;

namespace {

// Uses the CPU for 80 ms of this thread's time.
void work() {
  const auto used = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec};
  };
  for (const auto end = used() + 80ms; used() < end;) continue;
}

}  // namespace

int main() {
  asio_pulse::io_context io{asio_pulse::options{.on_report = [](const asio_pulse::report&) {}}};
  // [isolate]
  // The promise: its handlers share nothing with others without a strand or a lock.
  const asio_pulse::task thumbnails{io, {.name = "thumbnails", .isolatable = true}};
  // [isolate]

  std::set<std::thread::id> threads;  // one handler of a task at a time: no lock needed
  int left = 4;
  for (int n = 0; n != 4; ++n) {
    asio_pulse::post(thumbnails, [&] {
      threads.insert(std::this_thread::get_id());
      work();
      --left;
    });
  }
  io.run();  // waits for them, wherever they run

  std::cout << "4 handlers on " << threads.size() << " threads; " << io.stats().isolated
            << " isolated; now in tier " << to_string(thumbnails.current_tier()) << '\n';
  return left == 0 && io.stats().isolated > 0 ? 0 : 1;
}
