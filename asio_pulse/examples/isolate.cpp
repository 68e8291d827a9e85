// SPDX-License-Identifier: BSL-1.0
//
// A task with long handlers that have no checkpoint. After the first one its handlers run on
// another thread, and the context's thread is free for other work.

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
  // isolatable is a promise: its handlers share no state with others without a strand or a lock.
  const asio_pulse::task thumbnails{io, {.name = "thumbnails", .isolatable = true}};
  // [isolate]

  std::set<std::thread::id> threads;  // no lock needed: the executor runs one handler at a time
  int left = 4;
  for (int n = 0; n != 4; ++n) {
    asio_pulse::post(thumbnails, [&] {
      threads.insert(std::this_thread::get_id());
      work();
      --left;
    });
  }
  io.run();  // waits for all handlers, on whichever thread they run

  std::cout << "4 handlers on " << threads.size() << " threads; " << io.stats().isolated
            << " isolated; now in tier " << to_string(thumbnails.current_tier()) << '\n';
  return left == 0 && io.stats().isolated > 0 ? 0 : 1;
}
