// SPDX-License-Identifier: BSL-1.0
//
// How soon the watchdog reports a stall, how long the stuck thread is delayed for its stack, and
// the watchdog's CPU time beside a busy server and an idle one. Prints one line of JSON. Fails if a
// result is wrong, but not if it is slow.

#include "measure.hpp"
#include "stack_capture.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace detail = asio_pulse::detail;
namespace hooks = asio_pulse::hooks;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using bench::figures;

double at(std::vector<double>& values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(static_cast<double>(values.size() - 1) * share)];
}

/// From the crossing of the threshold to the call of on_report with the stack in it.
void measure_detection(figures& out, int stalls) {
  constexpr auto threshold = 1ms;
  std::atomic<clock_type::rep> reported{0};
  std::atomic<bool> ended{true};
  asio_pulse::options o;
  o.stall_threshold = threshold;
  o.yield_threshold = o.isolate_threshold = 0ns;
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  o.on_report = [&](const asio_pulse::report& r) {
    clock_type::rep none = 0;
    if (r.kind == asio_pulse::report_kind::stall) {
      reported.compare_exchange_strong(none, clock_type::now().time_since_epoch().count());
    }
    if (r.kind == asio_pulse::report_kind::stall_ended) ended = true;
  };
  asio_pulse::io_context io{o};
  // Called before the stack is read.
  std::atomic<clock_type::rep> hooked{0};
  const auto hook = io.hooks().install({.stall = [&](const auto&) {
    clock_type::rep none = 0;
    hooked.compare_exchange_strong(none, clock_type::now().time_since_epoch().count());
  }});
  const auto since = [&](clock_type::rep then, clock_type::time_point begun) {
    const std::chrono::duration<double, std::milli> late =
        clock_type::time_point(clock_type::duration(then)) - begun - threshold;
    return late.count();
  };
  std::vector<double> late_ms;
  std::vector<double> hook_late_ms;
  for (int n = 0; n < stalls; ++n) {
    // At any distance from the watchdog's last look.
    const auto pause = std::chrono::microseconds{(n * 7919) % 5000};
    asio::post(io, [&] {
      while (!ended) std::this_thread::yield();  // of the last one
      bench::spin(pause / 10);
    });
    asio::post(io, [&] {
      reported = 0;
      hooked = 0;
      ended = false;
      const auto begun = clock_type::now();
      while (reported == 0) {
        if (clock_type::now() - begun > 10s) throw std::runtime_error("a stall was not reported");
      }
      late_ms.push_back(since(reported, begun));
      hook_late_ms.push_back(since(hooked, begun));
    });
    io.run();
    io.restart();
    std::this_thread::sleep_for(pause);
  }
  for (const auto& [name, values] : {std::pair{"detection, the report with its stack", &late_ms},
                                     std::pair{"detection, the stall hook", &hook_late_ms}}) {
    out[std::string(name) + ": p50 ms"] = at(*values, 0.5);
    out[std::string(name) + ": p99 ms"] = at(*values, 0.99);
    out[std::string(name) + ": max ms"] = values->back();
  }
}

/// How long the handler of the signal takes.
void measure_capture(figures& out, int stacks) {
  asio_pulse::options o;
  o.watchdog = false;
  asio_pulse::io_context io{o};
  std::atomic<const hooks::thread_state*> state{nullptr};
  std::atomic<bool> over{false};
  pid_t tid = 0;
  asio::post(io, [&] {
    tid = ::gettid();
    state = &hooks::this_thread();
    while (!over) {
    }
  });
  std::thread worker([&io] { io.run(); });
  while (state == nullptr) std::this_thread::yield();
  detail::stack_capture capture;
  std::vector<double> taken_us;
  if (detail::stack_capture::install(SIGURG)) {
    for (int n = 0; n < stacks; ++n) {
      const auto r = capture.take(tid, SIGURG, *state, state.load()->clock.last(), 1s);
      if (r.task != nullptr) hooks::release(*r.task);
      if (r.how != detail::stack_capture::result::status::taken) continue;
      taken_us.push_back(std::chrono::duration<double, std::micro>(r.taken_for).count());
    }
  }
  over = true;
  worker.join();
  if (taken_us.size() < static_cast<std::size_t>(stacks) / 2) {
    throw std::runtime_error("stacks were not taken");
  }
  out["stack: p50 us"] = at(taken_us, 0.5);
  out["stack: p99 us"] = at(taken_us, 0.99);
  out["stack: max us"] = taken_us.back();
}

std::filesystem::path watchdog_thread() {
  for (int tries = 0; tries < 1000; ++tries) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(entry.path() / "comm");
      std::string name;
      if (std::getline(file, name) && name == "pulse-watch") return entry.path();
    }
    std::this_thread::sleep_for(1ms);
  }
  throw std::runtime_error("no thread is called pulse-watch");
}

/// CPU time so far, in seconds.
double cpu_of(const std::filesystem::path& task) {
  std::ifstream file(task / "schedstat");
  double ns = 0;
  file >> ns;
  return ns / 1e9;
}

double switches_of(const std::filesystem::path& task) {
  std::ifstream file(task / "status");
  std::string word;
  while (file >> word) {
    if (word == "voluntary_ctxt_switches:") {
      double n = 0;
      file >> n;
      return n;
    }
  }
  throw std::runtime_error("no count of switches");
}

/// Handlers of 1 to 400 us, back to back, or with pauses in which nothing is ready.
double share_beside(std::chrono::seconds length, bool with_pauses) {
  asio_pulse::options o;
  o.on_report = [](const asio_pulse::report&) {};
  asio_pulse::io_context io{o};
  asio::steady_timer timer(io);
  const auto end = clock_type::now() + length;
  unsigned random = 1;
  std::function<void()> next = [&] {
    random = random * 1664525U + 1013904223U;
    bench::spin(std::chrono::microseconds{1 + (random >> 8U) % 400});
    if (clock_type::now() > end) return;
    if (with_pauses && (random >> 20U) % 4 == 0) {
      timer.expires_after(std::chrono::microseconds{(random >> 10U) % 4000});
      timer.async_wait([&](const boost::system::error_code&) { next(); });
    } else {
      asio::post(io, [&] { next(); });
    }
  };
  asio::post(io, [&] { next(); });
  std::filesystem::path task;
  asio::post(io, [&] { task = watchdog_thread(); });
  double before = 0;
  clock_type::time_point begun;
  asio::post(io, [&] {
    before = cpu_of(task);
    begun = clock_type::now();
  });
  io.run();
  const std::chrono::duration<double> wall = clock_type::now() - begun;
  return (cpu_of(task) - before) / wall.count() * 100;
}

void measure_share(figures& out, std::chrono::seconds length) {
  out["beside a busy server: CPU %"] = share_beside(length, false);
  out["beside a server with pauses: CPU %"] = share_beside(length, true);
}

/// An idle server: how often the watchdog wakes.
void measure_idle(figures& out, std::chrono::seconds length) {
  asio_pulse::io_context io;
  const auto work = asio::make_work_guard(static_cast<asio::io_context&>(io));
  std::thread worker([&io] { io.run(); });
  std::atomic<bool> ran{false};
  asio::post(io, [&] { ran = true; });
  while (!ran) std::this_thread::yield();
  const auto task = watchdog_thread();
  // It goes to sleep after several looks that find all workers idle.
  std::this_thread::sleep_for(500ms);
  const double before = switches_of(task);
  std::this_thread::sleep_for(length);
  out["beside an idle server: wakeups"] = switches_of(task) - before;
  io.stop();
  worker.join();
}

}  // namespace

int main(int argc, char** argv) {
  return bench::main_of_seconds(argc, argv, [](figures& out, int seconds) {
    measure_detection(out, 100 * seconds);
    measure_capture(out, 500 * seconds);
    measure_share(out, std::chrono::seconds{seconds});
    measure_idle(out, std::chrono::seconds{seconds});
  });
}
