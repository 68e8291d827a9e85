// SPDX-License-Identifier: BSL-1.0
//
// A 1 ms timer beside one handler of legacy work, on one thread.
//
//     checkpoints_with regex|sort|json|matmul ROUNDS [plain]
//
// Prints one line of JSON: how late the timer was, in ms; how long the work took; what the checks did.
// Ends with another status if the work's result is wrong. `plain`: the handler runs on the thread's
// stack, as without asio-pulse.
#include "checkpoints_work.hpp"

#include <asio_pulse/io_context.hpp>
#include <asio_pulse/preemptible.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using milliseconds = std::chrono::duration<double, std::milli>;

double cpu_ms() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

/// Fires every millisecond until it is stopped, and notes how late it was.
class probe {
 public:
  explicit probe(boost::asio::io_context& io) : timer_(io) { next(); }
  void stop() { stopped_ = true; }
  std::vector<double> late_ms;

 private:
  void next() {
    due_ = std::max(due_ + 1ms, clock_type::now());
    timer_.expires_at(due_);
    timer_.async_wait([this](const boost::system::error_code&) {
      late_ms.push_back(milliseconds(clock_type::now() - due_).count());
      if (!stopped_) next();
    });
  }
  boost::asio::steady_timer timer_;
  clock_type::time_point due_ = clock_type::now();
  bool stopped_ = false;
};

bool work(const std::string& what) {
  if (what == "regex") return legacy::regex(24000) == 24000;
  if (what == "sort") return legacy::sort(5'000'000) == 2149209214;
  if (what == "json") return legacy::json(350'000) == 350'000;
  return legacy::matmul(900) == 3375;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "regex";
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 1;
  const bool plain = argc > 3;
  asio_pulse::options o;
  o.quantum = 100us;
  o.min_slice = 50us;
  o.watchdog = o.inspectable = false;
  o.fiber_stack = std::size_t{8} << 20;
  std::vector<double> late;
  double work_ms = 0;
  asio_pulse::statistics sum;
  bool right = true;
  for (int round = 0; round < rounds; ++round) {
    asio_pulse::io_context io{o};
    probe timer(io);
    const auto job = [&] {
      const double before = cpu_ms();
      right = work(what) && right;
      work_ms += cpu_ms() - before;
      timer.stop();
    };
    boost::asio::post(io, [&] {
      plain ? boost::asio::post(io, job) : boost::asio::post(io, asio_pulse::preemptible(job));
    });
    io.run();
    late.insert(late.end(), timer.late_ms.begin(), timer.late_ms.end());
    const asio_pulse::statistics s = io.stats();
    sum.automatic_checks += s.automatic_checks;
    sum.automatic_suspensions += s.automatic_suspensions;
    sum.automatic_refused_lock += s.automatic_refused_lock;
  }
  std::sort(late.begin(), late.end());
  const auto at = [&](double share) {
    return late[static_cast<std::size_t>(share * static_cast<double>(late.size() - 1))];
  };
  std::printf(
      "{\"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f, \"work_ms\": %.2f, \"ticks\": %zu, "
      "\"checks\": "
      "%llu, \"suspended\": %llu, \"refused_lock\": %llu}\n",
      at(0.5), at(0.99), late.back(), work_ms / rounds, late.size(),
      static_cast<unsigned long long>(sum.automatic_checks),
      static_cast<unsigned long long>(sum.automatic_suspensions),
      static_cast<unsigned long long>(sum.automatic_refused_lock));
  return right ? 0 : 1;
}
