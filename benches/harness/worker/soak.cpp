// SPDX-License-Identifier: BSL-1.0
//
// A mixed load for a long time. Checks that all of it happens, in order, and that memory does not
// grow.

#include "memory.hpp"
#include "probe.hpp"
#include "server.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using stream = asio::local::stream_protocol::socket;

struct load {
  explicit load(server& of, clock_type::time_point until)
      : s{of}, end{until}, ping{of.io()}, pong{of.io()}, strand{asio::make_strand(of.io())} {
    asio::local::connect_pair(ping, pong);
  }

  bool over() const { return clock_type::now() >= end; }
  void wrong() { in_order = false; }

  server& s;
  const clock_type::time_point end;
  stream ping;
  stream pong;
  asio::strand<bench::io_context::executor_type> strand;
  std::atomic<bool> in_order{true};
  // Each written by one chain of handlers, read when all is over; posts_run by any worker.
  std::uint64_t posts_made = 0;
  std::atomic<std::uint64_t> posts_run{0};
  std::uint64_t strand_made = 0;
  std::uint64_t strand_run = 0;
  std::uint64_t sent = 0;
  std::uint64_t answered = 0;
  std::uint64_t timers_made = 0;
  std::atomic<std::uint64_t> timers_cancelled{0};
  std::uint64_t tasks_made = 0;
  std::atomic<std::uint64_t> tasks_run{0};
};

void rethrow(const std::exception_ptr& error) {
  if (error) std::rethrow_exception(error);
}

asio::awaitable<void> hog_burst(hog_work& work) {
  ASIO_PULSE_PREEMPTION_BUDGET(500us);
  for (std::uint64_t n = 0; n < work.steps_a_burst(); ++n) {
    bench::spin(hog_work::step_length);
    work.count();
    ASIO_PULSE_CHECKPOINT();
  }
  co_return;
}

asio::awaitable<void> hog(load& l, hog_work& work) {
  asio::steady_timer timer{co_await asio::this_coro::executor};
  while (!l.over()) {
    co_await hog_burst(work);
    timer.expires_after(20ms);
    co_await timer.async_wait(asio::use_awaitable);
  }
}

/// Storms, on a strand and off it; timers that are cancelled; tasks that live for one handler.
asio::awaitable<void> rounds(load& l) {
  auto& io = l.s.io();
  asio::steady_timer timer{io};
  asio::steady_timer never{io};
  const bench::task storm{io, 500us, 5ms};
  while (!l.over()) {
    {
      const bench::task_scope scope{storm};
      for (int n = 0; n < 200; ++n, ++l.posts_made) asio::post(io, [&l] { ++l.posts_run; });
      for (int n = 0; n < 200; ++n) {
        asio::post(l.strand, [&l, number = l.strand_made++] {
          if (l.strand_run++ != number) l.wrong();
        });
      }
    }
    for (int n = 0; n < 10; ++n, ++l.tasks_made) {
      const bench::task_scope scope{bench::task{io, 1ms, 10ms}};
      asio::post(io, [&l] { ++l.tasks_run; });
    }
    never.expires_after(1h);
    ++l.timers_made;
    never.async_wait([&l](const boost::system::error_code& error) {
      if (error == asio::error::operation_aborted) ++l.timers_cancelled;
    });
    timer.expires_after(5ms);
    co_await timer.async_wait(asio::use_awaitable);
    never.cancel();
  }
}

asio::awaitable<void> asker(load& l) {
  std::array<std::uint64_t, 8> message{};
  asio::steady_timer timer{co_await asio::this_coro::executor};
  while (!l.over()) {
    message.fill(++l.sent);
    co_await asio::async_write(l.ping, asio::buffer(message), asio::use_awaitable);
    co_await asio::async_read(l.ping, asio::buffer(message), asio::use_awaitable);
    for (const std::uint64_t number : message) {
      if (number != l.sent) l.wrong();
    }
    ++l.answered;
    if (l.sent % 16 != 0) continue;
    timer.expires_after(1ms);
    co_await timer.async_wait(asio::use_awaitable);
  }
  l.ping.shutdown(stream::shutdown_both);
}

asio::awaitable<void> answerer(load& l) {
  std::array<std::uint64_t, 8> message{};
  for (;;) {
    boost::system::error_code error;
    co_await asio::async_read(l.pong, asio::buffer(message),
                              asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;  // the client has closed the connection
    co_await asio::async_write(l.pong, asio::buffer(message), asio::use_awaitable);
  }
}

asio::awaitable<void> watch_memory(load& l, clock_type::time_point start,
                                   clock_type::duration every,
                                   std::vector<std::pair<double, double>>& seen) {
  asio::steady_timer timer{co_await asio::this_coro::executor};
  while (!l.over()) {
    seen.emplace_back(ms(clock_type::now() - start) / 1000, resident_bytes() / 1024);
    timer.expires_after(every);
    co_await timer.async_wait(asio::use_awaitable);
  }
}

double median_between(const std::vector<std::pair<double, double>>& seen, double from, double to) {
  std::vector<double> part;
  for (std::size_t n = 0; n < seen.size(); ++n) {
    const double at = static_cast<double>(n) / static_cast<double>(seen.size());
    if (at >= from && at < to) part.push_back(seen[n].second);
  }
  return bench::median(part);
}

void check_counts(const load& l, outcome& to) {
  to.check(l.in_order, "messages and the strand's handlers came in order");
  to.check(l.posts_run == l.posts_made && l.posts_made > 0, "each posted handler ran once");
  to.check(l.strand_run == l.strand_made, "each handler of the strand ran once");
  to.check(l.answered == l.sent && l.sent > 0, "each message was answered");
  to.check(l.timers_cancelled == l.timers_made, "each timer was cancelled once");
  to.check(l.tasks_run == l.tasks_made, "each short task ran its handler");
}

}  // namespace

outcome soak(const request& r) {
  outcome result;
  server s{{.workers = r.workers}};
  const auto start = clock_type::now();
  load l{s, start + r.duration};
  hog_work work{5ms};
  probe timer{s.io(), [&l] { return l.over(); }};
  // Reserved here, so that recording the run does not count as growth.
  timer.reserve(static_cast<std::size_t>(r.duration.count()) + 10'000);
  constexpr int looks = 80;
  std::vector<std::pair<double, double>> seen;
  seen.reserve(2 * looks);
  timer.start(start);
  asio::co_spawn(s.io(), hog(l, work), rethrow);
  asio::co_spawn(s.io(), rounds(l), rethrow);
  asio::co_spawn(s.io(), asker(l), rethrow);
  asio::co_spawn(s.io(), answerer(l), rethrow);
  asio::co_spawn(s.io(), watch_memory(l, start, r.duration / looks, seen), rethrow);
  s.run();

  const double elapsed = ms(clock_type::now() - start);
  timer.add_to(result);
  check_counts(l, result);
  result.check(work.done() > 0 && work.done() % work.steps_a_burst() == 0,
               "the hog ended each burst it began");
  result.check(seen.size() >= 8, "memory was measured often enough");
  result.values["elapsed_ms"] = elapsed;
  result.values["tasks_made"] = static_cast<double>(l.tasks_made);
  result.values["handlers_per_s"] =
      static_cast<double>(l.posts_made + l.strand_made + l.tasks_made + l.sent) / elapsed * 1000;
  for (const auto& [at, kib] : seen) {
    result.values["rss_kib/" + std::to_string(std::round(at * 1000) / 1000)] = kib;
  }
  if (seen.size() >= 8) {
    const double before = median_between(seen, 0.25, 0.5);
    result.values["growth_percent"] = 100 * (median_between(seen, 0.75, 1.0) / before - 1);
    result.check(result.values["growth_percent"] < 25, "memory does not grow by a quarter");
  }
  s.add_counts(result, start);
  if (result.verified) {
    result.verification =
        "posts, strand, messages, timers and short tasks: each ran once and in "
        "order; memory did not grow";
  }
  return result;
}

}  // namespace worker
