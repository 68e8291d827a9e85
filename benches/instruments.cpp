// SPDX-License-Identifier: BSL-1.0
//
// The cost of the instruments: for a poll while they are on, of a snapshot of many tasks, of
// memory, and of the thread that answers inspectors. Every loop is also run without them, in turn.

#include "measure.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/inspect.hpp>

#include <boost/asio/post.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using asio_pulse::instrument_mode;
using bench::figures;
using clock_type = std::chrono::steady_clock;

asio_pulse::options with(instrument_mode metrics, instrument_mode trace) {
  asio_pulse::options o;
  o.metrics = metrics;
  o.trace = trace;
  o.on_report = [](const asio_pulse::report&) {};
  return o;
}

/// A handler that posts itself, which uses only the poll path.
struct chain {
  asio_pulse::io_context& io;
  unsigned left;
  void operator()() {
    if (--left != 0) asio::post(io, std::move(*this));
  }
};

double ns_a_poll(instrument_mode metrics, instrument_mode trace) {
  constexpr unsigned polls = 200'000;
  asio_pulse::io_context io{with(metrics, trace), 1};
  asio::post(io, chain{io, polls});
  const auto start = bench::thread_cpu_time();
  const auto ran = io.run();
  const std::chrono::duration<double, std::nano> used = bench::thread_cpu_time() - start;
  if (ran != polls) throw std::runtime_error("polls were lost");
  if (metrics == instrument_mode::on && io.metrics().poll_duration.count != polls) {
    throw std::runtime_error("the histogram does not hold every poll");
  }
  return used.count() / polls;
}

void measure_polls(figures& out) {
  constexpr int rounds = 15;
  std::vector<double> metrics;
  std::vector<double> trace;
  for (int round = -1; round < rounds; ++round) {
    const double none = ns_a_poll(instrument_mode::on_demand, instrument_mode::on_demand);
    const double some = ns_a_poll(instrument_mode::on, instrument_mode::on_demand);
    const double all = ns_a_poll(instrument_mode::on, instrument_mode::on);
    if (round < 0) continue;
    metrics.push_back(some - none);
    trace.push_back(all - none);
  }
  out["metrics and histograms on: ns a poll"] = bench::median(metrics);
  out["metrics and trace ring on: ns a poll"] = bench::median(trace);
}

/// A snapshot of 100 000 tasks, while a worker polls: how long it takes, and what the worker's
/// slowest poll was meanwhile, against the same without.
void measure_snapshot(figures& out) {
  constexpr std::size_t many = 100'000;
  asio_pulse::io_context io{with(instrument_mode::on, instrument_mode::on)};
  std::vector<asio_pulse::task> tasks;
  tasks.reserve(many);
  for (std::size_t i = 0; i < many; ++i) {
    tasks.emplace_back(io, asio_pulse::task_options{.name = "task", .budget = 0ns});
  }
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> next{0};
  std::function<void()> poll = [&] {
    const std::size_t n = next.fetch_add(1, std::memory_order_relaxed);
    if (!stop) asio_pulse::post(tasks[(n * 7919) % many], [&] { poll(); });
  };
  asio::post(io, [&] { poll(); });
  std::thread worker([&io] { io.run(); });
  std::vector<double> took;
  std::size_t polled = 0;
  for (int round = 0; round < 20; ++round) {
    const std::size_t before = next;
    const auto start = clock_type::now();
    const auto m = io.metrics();
    const std::chrono::duration<double, std::milli> ms = clock_type::now() - start;
    if (m.task_count != many) throw std::runtime_error("tasks are missing from the snapshot");
    took.push_back(ms.count());
    polled += next - before;
    out["instruments of one worker: KiB"] = static_cast<double>(m.instrument_bytes) / 1024;
  }
  stop = true;
  worker.join();
  if (polled == 0) throw std::runtime_error("the worker made no progress during the snapshots");
  out["snapshot of 100 000 tasks: ms"] = bench::median(took);
  out["polls during such a snapshot"] = static_cast<double>(polled) / 20;
}

double cpu_of_thread(const std::string& wanted) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    if (std::ifstream file(entry.path() / "comm"); !std::getline(file, name) || name != wanted) {
      continue;
    }
    std::ifstream file(entry.path() / "schedstat");
    double ns = 0;
    file >> ns;
    return ns / 1e9;
  }
  throw std::runtime_error("no thread is called " + wanted);
}

/// The requests of pulse_top, once a second, to a server that is busy with 1000 tasks.
void measure_attached(figures& out, std::chrono::seconds length) {
  asio_pulse::io_context io{with(instrument_mode::on_demand, instrument_mode::on_demand)};
  io.poll();  // a context can be inspected once it has run
  io.restart();
  std::vector<asio_pulse::task> tasks;
  for (int i = 0; i < 1000; ++i) {
    tasks.emplace_back(io, asio_pulse::task_options{.name = "task", .budget = 0ns});
  }
  std::atomic<bool> stop{false};
  std::size_t next = 0;
  std::function<void()> poll = [&] {
    bench::spin(20us);
    if (!stop) asio_pulse::post(tasks[next++ % tasks.size()], [&] { poll(); });
  };
  asio::post(io, [&] { poll(); });
  std::thread worker([&io] { io.run(); });
  asio_pulse::inspector in;
  std::error_code ec;
  in.connect(static_cast<std::uint64_t>(::getpid()), ec);
  if (ec) throw std::runtime_error(in.detail());
  (void)in.fetch({}, ec);
  const double before = cpu_of_thread("pulse-inspect");
  const auto start = clock_type::now();
  while (clock_type::now() - start < length) {
    std::this_thread::sleep_for(1s);
    const auto p = in.fetch({}, ec);
    if (ec || p.contexts.at(0).task_count != tasks.size()) throw std::runtime_error(in.detail());
  }
  const std::chrono::duration<double> wall = clock_type::now() - start;
  out["looked at once a second: CPU %"] =
      (cpu_of_thread("pulse-inspect") - before) / wall.count() * 100;
  stop = true;
  worker.join();
}

}  // namespace

int main(int argc, char** argv) {
  return bench::main_of_seconds(argc, argv, [](figures& out, int seconds) {
    measure_polls(out);
    measure_snapshot(out);
    measure_attached(out, std::chrono::seconds{seconds});
  });
}
