// SPDX-License-Identifier: BSL-1.0
//
// Options that change a thousand times a second while workers poll: from when on each worker uses
// them, and how long its polls are delayed.

#include "../../../measure.hpp"
#include "../server.hpp"
#include "shares.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;

constexpr std::chrono::microseconds poll_length = 40us;
constexpr std::chrono::microseconds update_every = 1ms;
/// By turns with updates and without, so that other work on the machine disturbs both alike.
constexpr std::chrono::milliseconds phase = 50ms;

/// With the short quantum each poll has to yield, with the long one none.
constexpr nanoseconds short_quantum = 5us;
constexpr nanoseconds long_quantum = 1h;
/// A checkpoint reads the clock after at most 32 others. If a poll lost its CPU, it may have made too few
/// to know that the short quantum is over.
constexpr int enough_checkpoints = 64;

class poller {
 public:
  poller(const request& r)
      : server_{{.workers = r.workers}}, start_{clock_type::now()}, end_{start_ + r.duration} {
    // Tasks of which updates have to know.
    for (int n = 0; n < 100; ++n) tasks_.emplace_back(server_.io(), 0ns, 10ms);
    for (std::size_t n = 0; n < 2 * r.workers; ++n) {
      const bench::task_scope scope{tasks_[n]};
      post();
    }
    std::thread updater{[this] { update(); }};
    server_.run();
    updater.join();
  }

  void add_to(outcome& to) {
    to.samples_ns["gap_with_updates"] = gaps_[1];
    to.samples_ns["gap_without"] = gaps_[0];
    for (auto& gaps : gaps_) to.check(!gaps.empty(), "gaps were measured");
#if !defined(BENCH_STOCK)
    to.samples_ns["update_call"] = calls_;
    to.values["updates"] = static_cast<double>(calls_.size());
    to.values["polls_checked"] = static_cast<double>(checked_);
    to.values["polls_with_old_options"] = static_cast<double>(late_);
    to.values["polls_without_cpu"] = static_cast<double>(lost_);
    to.check(checked_ > 0, "polls were compared with updates");
#endif
    server_.add_counts(to, start_);
  }

 private:
  void post() {
    asio::post(server_.io(), [this] { poll(); });
  }

  void poll() {
    // The end of this worker's poll before, unless it slept or another thread had its CPU since.
    thread_local clock_type::time_point ended;
    thread_local long losses = -1;
    const auto begin = clock_type::now();
    const long losses_then = bench::involuntary_switches();
    const bool undisturbed = losses_then == losses;
    const bool with_updates = in_updates(begin);
    // Acquire and release: what update() did before it published the number is seen.
    const std::uint64_t seen = applied_.load(std::memory_order_acquire);
    bool wanted = false;
    int checkpoints = 0;
    for (nanoseconds ran{0}; ran < poll_length; ran = clock_type::now() - begin) {
      wanted = bench::should_yield() || wanted;
      if (ran > 2 * short_quantum) ++checkpoints;
    }
    losses = bench::involuntary_switches();
    const bool unchanged = seen != 0 && begun_.load(std::memory_order_acquire) == seen;
    const bool right = wanted == (seen % 2 == 1);
    const bool comparable = losses == losses_then && checkpoints >= enough_checkpoints;
    if (undisturbed || unchanged) {
      const std::lock_guard lock{mutex_};
      if (undisturbed) gaps_[with_updates].push_back(nanoseconds{begin - ended}.count());
      checked_ += unchanged && comparable;
      late_ += unchanged && comparable && !right;
      lost_ += unchanged && !comparable && !right;
    }
    if (clock_type::now() < end_) post();
    losses = bench::involuntary_switches();
    ended = clock_type::now();
  }

  bool in_updates(clock_type::time_point at) const { return (at - start_) / phase % 2 == 1; }

  void update() {
    for (auto at = start_; at < end_; at += update_every) {
      std::this_thread::sleep_until(at);
      if (!in_updates(clock_type::now())) continue;
      const std::uint64_t number = begun_.load(std::memory_order_relaxed) + 1;
      begun_.store(number, std::memory_order_seq_cst);
      const auto before = clock_type::now();
#if !defined(BENCH_STOCK)
      const bool odd = number % 2 == 1;
      server_.io().update({.stall_threshold = odd ? 6ms : 5ms,
                           .accepted = {.budget = odd ? 400us : 300us},
                           .quantum = odd ? short_quantum : long_quantum,
                           .min_slice = odd ? short_quantum : 50us,
                           .admission = asio_pulse::admission_policy{.target = odd ? 6ms : 5ms}});
#endif
      calls_.push_back(nanoseconds{clock_type::now() - before}.count());
      applied_.store(number, std::memory_order_release);
    }
  }

  server server_;
  std::deque<bench::task> tasks_;
  const clock_type::time_point start_;
  const clock_type::time_point end_;
  std::atomic<std::uint64_t> begun_{0};    ///< the number of the update that has begun last
  std::atomic<std::uint64_t> applied_{0};  ///< of the one that has returned last
  std::vector<std::int64_t> calls_;
  std::mutex mutex_;  ///< guards the rest
  std::vector<std::int64_t> gaps_[2];
  std::uint64_t checked_ = 0;
  std::uint64_t late_ = 0;
  std::uint64_t lost_ =
      0;  ///< polls that lost their CPU, and so did not show which options they used
};

}  // namespace

outcome shares_update(const request& r) {
  outcome result;
  poller p{r};
  p.add_to(result);
  if (result.verified) {
    result.verification =
        "each poll that began after an update and ended before the next one was "
        "compared with it";
  }
  return result;
}

}  // namespace worker
