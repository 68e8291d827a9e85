// SPDX-License-Identifier: BSL-1.0
//
// How late a probe that sleeps 1 ms wakes up beside a hog on the same, only worker: a handler that
// computes for 500 ms, posts itself again, and never yields. One source, built as
// compensation_stock and compensation_pulse; the latter may start one spare worker.

#include "annotations.hpp"
#include "measure.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr auto turn = 500ms;
constexpr auto nap = 1ms;

#if defined(BENCH_STOCK)
struct server {
  bench::io_context io;
};
#else
struct server {
  // Reports are made, with stacks, and discarded.
  bench::io_context io{asio_pulse::options{
      .stall_threshold = 1ms, .on_report = [](const asio_pulse::report&) {}, .spare_workers = 1}};
};
#endif

/// Computes for a whole turn, and posts itself again until it has to stop.
struct hog {
  bench::io_context& io;
  const clock_type::time_point end;
  std::uint64_t turns = 0;

  void operator()() {
    ++turns;
    bench::spin(turn);
    if (clock_type::now() < end) asio::post(io, [this] { (*this)(); });
  }
};

class probe {
 public:
  probe(bench::io_context& io, clock_type::time_point end) : timer_{io}, end_{end} {}

  void arm() {
    due_ = clock_type::now() + nap;
    timer_.expires_at(due_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      const std::chrono::duration<double, std::milli> late = clock_type::now() - due_;
      lateness_ms.push_back(late.count());
      if (clock_type::now() < end_) arm();
    });
  }

  std::vector<double> lateness_ms;

 private:
  asio::steady_timer timer_;
  const clock_type::time_point end_;
  clock_type::time_point due_;
};

double percentile(const std::vector<double>& sorted, double share) {
  const auto last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<std::size_t>(last * share)];
}

void run(std::chrono::seconds length) {
  server s;
  const auto end = clock_type::now() + length;
  hog h{s.io, end};
  probe p{s.io, end};
  p.arm();
  asio::post(s.io, [&h] { h(); });
  const std::size_t counted = s.io.run();

  if (counted != h.turns + p.lateness_ms.size()) {
    throw std::runtime_error("run() counted " + std::to_string(counted) + " handlers of " +
                             std::to_string(h.turns + p.lateness_ms.size()));
  }
  std::vector<double>& late = p.lateness_ms;
  std::sort(late.begin(), late.end());
  std::printf(R"({"turns":%llu,"probes":%zu,"p50_ms":%.4f,"p99_ms":%.4f,"p999_ms":%.4f,)"
              R"("max_ms":%.4f,"pulse":%s})"
              "\n",
              static_cast<unsigned long long>(h.turns), late.size(), percentile(late, 0.5),
              percentile(late, 0.99), percentile(late, 0.999), late.back(),
              bench::stats_json(s.io).c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2 || std::atoi(argv[1]) <= 0) {
    std::fprintf(stderr, "usage: %s SECONDS\n", argv[0]);
    return 2;
  }
  run(std::chrono::seconds{std::atoi(argv[1])});
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
