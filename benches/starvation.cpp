// SPDX-License-Identifier: BSL-1.0
//
// How late a 1 ms timer fires beside a storm of small handlers on the same thread. Four storms that
// freeze plain Boost.Asio, one source, built as starvation_stock and starvation_pulse. The storm is
// a task with a budget of 0.5 ms in 5 ms; the timer is nobody's.

#include "annotations.hpp"
#include "measure.hpp"
#include "storms.hpp"

#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <chrono>
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

/// Sleeps 1 ms at a time until the storm is over, and keeps how late each wake-up was.
class probe {
 public:
  probe(bench::io_context& io, const bench::storm_progress& storm) : timer_{io}, storm_{storm} {}

  void arm() {
    due_ = clock_type::now() + 1ms;
    timer_.expires_at(due_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      const std::chrono::duration<double, std::milli> late = clock_type::now() - due_;
      lateness_ms_.push_back(late.count());
      if (!storm_.over()) arm();
    });
  }

  const std::vector<double>& lateness_ms() const { return lateness_ms_; }

 private:
  asio::steady_timer timer_;
  const bench::storm_progress& storm_;
  clock_type::time_point due_;
  std::vector<double> lateness_ms_;
};

void run(const std::string& scenario, unsigned handlers) {
  bench::io_context io{1};
  bench::storm_progress storm{handlers};
  probe timer{io, storm};
  bench::start_storm(io, scenario, storm);
  timer.arm();  // after the storm was queued: to queue it is not what is measured
  const auto start = clock_type::now();
  io.run();
  const std::chrono::duration<double, std::milli> took = clock_type::now() - start;

  if (!storm.over() || !storm.ordered || timer.lateness_ms().empty()) {
    throw std::runtime_error(scenario + ": handlers were lost or out of order");
  }
  std::printf(R"({"scenario":"%s","fired":%zu,"p50_ms":%.4f,"max_ms":%.4f,"took_ms":%.1f,)"
              R"("pulse":%s})"
              "\n",
              scenario.c_str(), timer.lateness_ms().size(), bench::median(timer.lateness_ms()),
              *std::max_element(timer.lateness_ms().begin(), timer.lateness_ms().end()),
              took.count(), bench::stats_json(io).c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3 || std::atoi(argv[2]) <= 0) {
    std::fprintf(stderr, "usage: %s posts|strand|dispatch|children HANDLERS\n", argv[0]);
    return 2;
  }
  bench::on_deep_stack([argv] { run(argv[1], static_cast<unsigned>(std::atoi(argv[2]))); });
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
