// SPDX-License-Identifier: BSL-1.0
//
// Handlers that try to evade being held back, beside the probe.

#include "probe.hpp"
#include "server.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

struct lie {
  const char* name;
  unsigned tasks;
  std::chrono::microseconds length;  ///< of one poll
  std::chrono::microseconds period;  ///< 0: the next poll is posted at once
  bool sleeps;
  bool critical;
};

constexpr lie lies[] = {{"critical", 1, 30ms, 0us, false, true},
                        {"sleeper", 1, 20ms, 0us, true, false},
                        {"under_stall", 4, 4800us, 0us, false, false},
                        {"under_yield", 1, 19ms, 0us, false, false},
                        {"under_budget", 8, 280us, 3000us, false, false}};

const lie& lie_called(const std::string& name) {
  const auto* const found =
      std::find_if(std::begin(lies), std::end(lies), [&](const lie& l) { return name == l.name; });
  if (found == std::end(lies)) throw std::invalid_argument("--variant is not a known name");
  return *found;
}

/// A task whose polls are all alike, one after another.
class liar_task {
 public:
  liar_task(server& s, const lie& what, clock_type::time_point end)
      : io_{s.io()}, what_{what}, end_{end}, timer_{io_}, task_{make_task(io_)} {}

  void start() {
    const bench::task_scope scope{task_};
    due_ = clock_type::now();
    asio::post(io_, [this] { poll(); });
  }

  std::uint64_t polls() const { return polls_; }
  bool alone() const { return alone_; }

 private:
  /// The default budget, for tasks without options.
  static bench::task make_task(bench::io_context& io) { return {io, 300us, 3ms}; }

  void work() const {
    if (what_.sleeps) {
      std::this_thread::sleep_for(what_.length);
      return;
    }
    const auto end = clock_type::now() + what_.length;
    while (clock_type::now() < end && !bench::should_yield()) bench::spin(10us);
    // The handler calls it, and ignores the result.
    const auto left = end - clock_type::now();
    if (left > 0ns) bench::spin(left);
  }

  void poll() {
    alone_ = alone_ && !running_.exchange(true);
    {
#if !defined(BENCH_STOCK)
      std::optional<asio_pulse::critical_section> guard;
      if (what_.critical) guard.emplace();
#endif
      work();
    }
    ++polls_;
    running_ = false;
    if (clock_type::now() >= end_) return;
    if (what_.period == 0us) {
      asio::post(io_, [this] { poll(); });
      return;
    }
    due_ = std::max(due_ + what_.period, clock_type::now());
    timer_.expires_at(due_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (!error) poll();
    });
  }

  bench::io_context& io_;
  const lie& what_;
  const clock_type::time_point end_;
  clock_type::time_point due_;
  asio::steady_timer timer_;
  bench::task task_;
  std::atomic<bool> running_{false};
  bool alone_ = true;
  std::uint64_t polls_ = 0;
};

}  // namespace

outcome liar(const request& r) {
  const lie& what = lie_called(r.variant);
  server s{{.workers = r.workers, .spare_workers = 1, .count_reports = true}};
  outcome result;
  const auto start = clock_type::now();
  const auto end = start + r.duration;
  probe timer{s.io(), [end] { return clock_type::now() >= end; }};
  timer.start(start);
  std::vector<std::unique_ptr<liar_task>> tasks;
  for (unsigned n = 0; n < what.tasks; ++n) {
    tasks.push_back(std::make_unique<liar_task>(s, what, end));
    tasks.back()->start();
  }
  s.run();

  std::uint64_t polls = 0;
  for (const auto& task : tasks) {
    polls += task->polls();
    result.check(task->alone(), "no task ran twice at once");
    result.check(task->polls() > 0, "each task ran");
  }
  result.values["elapsed_ms"] = ms(clock_type::now() - start);
  result.values["lies"] = static_cast<double>(polls);
  timer.add_to(result);
  s.add_counts(result, start);
#if !defined(BENCH_STOCK)
  const double noticed = std::max(result.values["stalls"], result.values["critical_overstays"]);
  result.values["lies_noticed_percent"] =
      std::min(100.0, 100.0 * noticed / static_cast<double>(polls));
#endif
  if (result.verified) {
    result.verification =
        "each task ran, one poll at a time; each deadline of the probe was "
        "counted once";
  }
  return result;
}

}  // namespace worker
