// SPDX-License-Identifier: BSL-1.0
//
// What a profile trades: the work that coroutines with checkpoints do on one thread, each with memory
// of its own that the others displace from the caches, and how late a 1 ms timer is beside them; and
// how long requests wait, and how many are served, while more come than can be served.

#include "measure.hpp"

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr std::size_t hogs = 8;
constexpr std::size_t words = (std::size_t{192} << 10) / sizeof(std::uint64_t);
constexpr std::size_t piece = 4096 / sizeof(std::uint64_t);  // between two checkpoints

struct figures {
  std::uint64_t pieces = 0;
  std::vector<double> late_us;
};

asio_pulse::options profile(std::string_view name) {
  if (name == "latency") return asio_pulse::options::latency();
  if (name == "balanced") return asio_pulse::options::balanced();
  if (name == "throughput") return asio_pulse::options::throughput();
  throw std::invalid_argument("the profiles are latency, balanced and throughput");
}

asio::awaitable<void> hog(clock_type::time_point end, figures& f) {
  std::vector<std::uint64_t> memory(words, 1);
  std::size_t at = 0;
  std::uint64_t sum = 0;
  while (clock_type::now() < end) {
    for (std::size_t i = 0; i != piece; ++i) sum += ++memory[at + i];
    at = (at + piece) % words;
    ++f.pieces;
    co_await asio_pulse::checkpoint();
  }
  bench::keep(sum);
}

asio::awaitable<void> probe(asio_pulse::io_context& io, clock_type::time_point end, figures& f) {
  asio::steady_timer timer(io);
  while (clock_type::now() < end) {
    timer.expires_after(1ms);
    co_await timer.async_wait(asio::use_awaitable);
    const std::chrono::duration<double, std::micro> late = clock_type::now() - timer.expiry();
    f.late_us.push_back(late.count());
  }
}

// ---- admission

constexpr auto service = 200us;
constexpr auto gap = 100us;  // half as long: twice what can be served
constexpr auto steady_for = 2s;
constexpr auto burst = 200ms;  // the queue then holds 100 ms of work, for 100 ms more

struct served_requests {
  std::vector<double> waited_ms;  // those that were admitted, from the time when they were due
  std::uint64_t refused = 0;
};

/// Requests that come at fixed times, whatever the server does: one operation for each.
class open_loop {
 public:
  open_loop(asio_pulse::io_context& io, std::chrono::nanoseconds length)
      : io_(io), group_(io), begin_(clock_type::now()), end_(begin_ + length), due_(begin_) {
    send();
  }
  [[nodiscard]] served_requests& result() { return result_; }

 private:
  // Those that are due by now join the queue behind what waits there.
  void send() {
    const auto now = clock_type::now();
    for (; due_ <= now && due_ < end_; due_ += gap) {
      asio::post(io_, [this, due = due_] { request(due); });
    }
    if (now >= end_) return;
    timer_.expires_at(due_);
    timer_.async_wait([this](auto) { send(); });
  }
  void request(clock_type::time_point due) {
    if (!asio_pulse::admit(group_)) {
      ++result_.refused;
      return;
    }
    result_.waited_ms.push_back(
        std::chrono::duration<double, std::milli>(clock_type::now() - due).count());
    bench::spin(service);
  }

  asio_pulse::io_context& io_;
  asio_pulse::task_group group_;
  clock_type::time_point begin_;
  clock_type::time_point end_;
  clock_type::time_point due_;
  asio::steady_timer timer_{io_};
  served_requests result_;
};

served_requests served(std::string_view name, std::chrono::nanoseconds length) {
  asio_pulse::options o = profile(name);
  o.on_report = [](const asio_pulse::report&) {};
  asio_pulse::io_context io{o, 1};
  open_loop requests(io, length);
  io.run();
  if (requests.result().waited_ms.size() < 10) throw std::runtime_error("nothing was served");
  return requests.result();
}

/// The cost of a request that is admitted, while nothing waits.
double admission_ns(std::string_view name) {
  constexpr int asked = 200'000;
  asio_pulse::options o = profile(name);
  asio_pulse::io_context io{o, 1};
  const asio_pulse::task_group group(io);
  double cost = 0;
  asio::post(io, [&] {
    const auto before = bench::thread_cpu_time();
    for (int n = 0; n != asked; ++n) bench::keep(static_cast<bool>(asio_pulse::admit(group)));
    const std::chrono::duration<double, std::nano> used = bench::thread_cpu_time() - before;
    cost = used.count() / asked;
  });
  io.run();
  return cost;
}

void admit(std::string_view name) {
  served_requests overload = served(name, steady_for);
  const served_requests one_burst = served(name, burst);
  std::sort(overload.waited_ms.begin(), overload.waited_ms.end());
  const double p99 = overload.waited_ms[overload.waited_ms.size() * 99 / 100];
  const auto all = static_cast<double>(one_burst.refused + one_burst.waited_ms.size());
  std::printf(
      "{\"admit_ns\": %.1f, \"wait_p99_ms\": %.2f, \"served_per_s\": %.0f, "
      "\"burst_refused_percent\": %.1f}\n",
      admission_ns(name), p99,
      static_cast<double>(overload.waited_ms.size()) /
          std::chrono::duration<double>(steady_for).count(),
      100 * static_cast<double>(one_burst.refused) / all);
}

void run(std::string_view name, int seconds) {
  asio_pulse::options o = profile(name);
  o.on_report = [](const asio_pulse::report&) {};
  asio_pulse::io_context io{o, 1};
  figures f;
  const auto begin = clock_type::now();
  const auto end = begin + std::chrono::seconds{seconds};
  const asio_pulse::task timer(io, {.name = "timer"});
  asio_pulse::co_spawn(timer, probe(io, end, f), asio::detached);
  for (std::size_t i = 0; i != hogs; ++i) {
    // As connections have it.
    const asio_pulse::task t(io,
                             {.name = "hog", .budget = o.accepted.budget, .per = o.accepted.per});
    asio_pulse::co_spawn(t, hog(end, f), asio::detached);
  }
  const auto before = bench::thread_cpu_time();
  io.run();
  const std::chrono::duration<double> used = bench::thread_cpu_time() - before;
  if (f.pieces == 0 || f.late_us.size() < 10) throw std::runtime_error("nothing has run");
  std::sort(f.late_us.begin(), f.late_us.end());
  const auto late = [&f](double part) {
    return f.late_us[static_cast<std::size_t>(part * static_cast<double>(f.late_us.size() - 1))];
  };
  std::printf("{\"pieces_per_ms\": %.2f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
              static_cast<double>(f.pieces) / used.count() / 1e3, late(0.5), late(0.99));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw std::invalid_argument("usage: profiles_pulse PROFILE SECONDS | admission");
    if (argv[2] == std::string_view("admission")) {
      admit(argv[1]);
    } else {
      run(argv[1], std::max(std::atoi(argv[2]), 1));
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "profiles: %s\n", e.what());
    return 1;
  }
  return 0;
}
