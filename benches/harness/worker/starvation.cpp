// SPDX-License-Identifier: BSL-1.0
//
// A hog beside a 1 ms timer; and requests at a fixed rate beside a hog.

#include "probe.hpp"
#include "server.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <stdexcept>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

enum class manners {
  checkpoints,  ///< a budget, and a checkpoint after each step; nothing at all in stock
  posts,        ///< a post() after each step, which any Asio program can do
  none,
};

manners manners_of(const std::string& variant) {
  if (variant == "cooperative") return manners::checkpoints;
  if (variant == "cooperative-post") return manners::posts;
  if (variant == "uncooperative") return manners::none;
  throw std::invalid_argument("--variant must be cooperative, cooperative-post or uncooperative");
}

asio::awaitable<void> burst(hog_work& work) {
  ASIO_PULSE_PREEMPTION_BUDGET(500us);
  for (std::uint64_t n = 0; n < work.steps_a_burst(); ++n) {
    work.step(work.done());
    ASIO_PULSE_CHECKPOINT();
  }
  co_return;
}

asio::awaitable<void> burst_of_posts(hog_work& work) {
  const auto executor = co_await asio::this_coro::executor;
  for (std::uint64_t n = 0; n < work.steps_a_burst(); ++n) {
    work.step(work.done());
    co_await asio::post(executor, asio::use_awaitable);
  }
}

/// Bursts until the end: each starts a fixed time after the previous one has ended or, with \p
/// every, at this interval.
asio::awaitable<void> hog(hog_work& work, manners how, clock_type::time_point end,
                          clock_type::duration pause, bool every) {
  asio::steady_timer timer{co_await asio::this_coro::executor};
  auto next = clock_type::now();
  while (clock_type::now() < end) {
    switch (how) {
      case manners::checkpoints:
        co_await burst(work);
        break;
      case manners::posts:
        co_await burst_of_posts(work);
        break;
      case manners::none:
        for (std::uint64_t n = 0; n < work.steps_a_burst(); ++n) work.step(work.done());
        break;
    }
    next = every ? next + pause : clock_type::now() + pause;
    timer.expires_at(next);
    co_await timer.async_wait(asio::use_awaitable);
  }
}

void rethrow(const std::exception_ptr& error) {
  if (error) std::rethrow_exception(error);
}

/// Requests that arrive on a fixed schedule, even if earlier ones are late.
class arrivals {
 public:
  arrivals(bench::io_context& io, unsigned rate, clock_type::duration length)
      : io_{io},
        timer_{io},
        apart_{std::chrono::nanoseconds{1s} / rate},
        count_{static_cast<std::uint64_t>(length / apart_)} {
    served_.reserve(count_);
  }

  void start(clock_type::time_point now) {
    start_ = now;
    wait();
  }

  void add_to(outcome& to) const {
    to.check(served_.size() == count_, "each request was served once");
    bool ordered = true;
    std::uint64_t expected = 0;
    for (const request_times& r : served_) {
      ordered = ordered && r.number == expected++;
      to.samples_ns["latency"].push_back(
          std::chrono::nanoseconds{r.finished - due(r.number)}.count());
      to.samples_ns["uncorrected"].push_back(std::chrono::nanoseconds{r.finished - r.sent}.count());
    }
    to.check(ordered, "the requests were served in the order of their arrival");
  }

 private:
  struct request_times {
    std::uint64_t number;
    clock_type::time_point sent;
    clock_type::time_point finished;
  };

  clock_type::time_point due(std::uint64_t number) const {
    return start_ + apart_ * static_cast<std::int64_t>(number + 1);
  }

  void wait() {
    timer_.expires_at(due(sent_));
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      const auto now = clock_type::now();
      for (; sent_ < count_ && due(sent_) <= now; ++sent_) {
        asio::post(io_, [this, number = sent_] {
          const auto sent = clock_type::now();
          bench::spin(20us);
          served_.push_back({number, sent, clock_type::now()});
        });
      }
      if (sent_ < count_) wait();
    });
  }

  bench::io_context& io_;
  asio::steady_timer timer_;
  clock_type::duration apart_;
  std::uint64_t count_;
  clock_type::time_point start_;
  std::uint64_t sent_ = 0;
  std::vector<request_times> served_;
};

}  // namespace

outcome starvation(const request& r) {
  const manners how = manners_of(r.variant);
  server s{{.workers = r.workers,
            .spare_workers = how == manners::none ? 1U : 0U,
            .stall_threshold = how == manners::none ? 1ms : 5ms}};
  outcome result;
  hog_work work{r.hog};
  // One run without measurement, in which threads start and everything is read that is read once
  // per process. For the first stall asio-pulse reads the program's debug information.
  hog_work before{r.hog};
  const auto now = clock_type::now();
  const auto start = now + 2 * r.hog + 50ms;
  const auto end = start + r.duration;
  asio::co_spawn(s.io(), hog(before, how, now + 1ms, 5ms, false), rethrow);
  probe timer{s.io(), [end] { return clock_type::now() >= end; }};
  asio::steady_timer begin{s.io(), start};
  begin.async_wait([&](const boost::system::error_code&) {
    timer.start(start);
    asio::co_spawn(s.io(), hog(work, how, end, 5ms, false), rethrow);
  });
  s.run();
  const double elapsed = ms(clock_type::now() - start);

  result.timeline.duration_ms = elapsed;
  result.values["elapsed_ms"] = elapsed;
  timer.add_to(result);
  work.add_to(result, start);
  s.add_counts(result, start);
  result.verification = result.verified ? "each of the hog's steps ran once and in order; each "
                                          "deadline of the probe was counted once"
                                        : result.verification;
  return result;
}

outcome latency(const request& r) {
  server s{{.workers = r.workers}};
  outcome result;
  hog_work work{20ms};
  const auto start = clock_type::now();
  arrivals requests{s.io(), r.rate, r.duration};
  requests.start(start);
  asio::co_spawn(s.io(), hog(work, manners::checkpoints, start + r.duration, 100ms, true), rethrow);
  s.run();
  result.timeline.duration_ms = ms(clock_type::now() - start);
  result.values["elapsed_ms"] = result.timeline.duration_ms;
  requests.add_to(result);
  work.add_to(result, start);
  s.add_counts(result, start);
  if (result.verified) {
    result.verification =
        "each request was served once, in the order of arrival; the hog's steps "
        "ran once and in order";
  }
  return result;
}

}  // namespace worker
