// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/cpu_work.hpp>
#include <support/retry.hpp>
//
#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/hooks/always_preempt.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// \file
/// Common parts of the integration tests. They assert counts, order and state, and use CPU time
/// only if a budget has to be exceeded.

namespace pulse_test {

using namespace std::chrono_literals;

/// Every checkpoint yields and every operation is parked once; see the header.
using asio_pulse::hooks::detail::always_preempt;

/// Options with which only budgets decide, and a promoted task keeps its tier, however busy the
/// machine is. Nothing is printed.
inline asio_pulse::options steady() {
  asio_pulse::options o;
  o.stall_threshold = o.yield_threshold = o.isolate_threshold = 0ns;
  o.accepted.budget = 0ns;
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  o.on_report = [](const asio_pulse::report&) {};
  o.tiers.clean_window = 1h;
  o.tiers.isolate_clean_window = 1h;
  o.max_critical = 0ns;
  return o;
}

/// As steady(), and a task that has been in Yield for one more overrun is in Isolate: one poll of
/// `isolating` CPU time does it.
inline constexpr std::chrono::nanoseconds isolating = 5ms;
inline asio_pulse::options steady_isolating() {
  asio_pulse::options o = steady();
  o.isolate_threshold = isolating;
  return o;
}

/// Never over budget.
inline asio_pulse::task_options unlimited(std::string name) {
  return {.name = std::move(name), .budget = 0ns};
}

/// The same, in a group.
inline asio_pulse::task_options in_group(const asio_pulse::group_ref& group) {
  asio_pulse::task_options o = unlimited("member");
  o.group = group;
  return o;
}

/// What std::invalid_argument says, or "accepted".
template <class Function>
std::string refused_by_name(Function f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "accepted";
}

/// Once it has used a millisecond it is over budget for seconds, which is longer than any of these
/// tests.
inline asio_pulse::task_options stingy(std::string name) {
  return {.name = std::move(name), .budget = 200us, .per = 10s};
}

/// Runs polls of `t` until it is in Yield and over its budget. The context is restarted.
inline void climb_to_yield(asio_pulse::io_context& io, const asio_pulse::task& t) {
  for (int polls = 0; polls < 1000 && t.current_tier() < asio_pulse::tier::yield; ++polls) {
    asio_pulse::post(t, [] { burn(300us); });
    io.restart();
    io.run();
  }
  // Once more, so that the debt lasts far longer than the test.
  asio_pulse::post(t, [] { burn(1ms); });
  io.restart();
  io.run();
  io.restart();
  ASSERT_GE(t.current_tier(), asio_pulse::tier::yield);
}

/// Runs long polls of `t` until it is in Isolate: one does it, unless the clock could not vouch for
/// it. For a context with steady_isolating(); it is restarted.
inline void climb_to_isolate(asio_pulse::io_context& io, const asio_pulse::task& t) {
  for (int polls = 0; polls < 100 && t.current_tier() < asio_pulse::tier::isolate; ++polls) {
    asio_pulse::post(t, [] { burn(isolating + 1ms); });
    io.restart();
    io.run();
  }
  io.restart();
  ASSERT_EQ(t.current_tier(), asio_pulse::tier::isolate);
}

/// A task in Yield and over budget from the start.
class offender {
 public:
  explicit offender(asio_pulse::io_context& io, asio_pulse::task_options o = stingy("offender"))
      : task(io, o) {
    climb_to_yield(io, task);
  }
  operator const asio_pulse::task&() const noexcept { return task; }  // NOLINT: it stands for it

  asio_pulse::task task;
};

/// An object lives while a handler runs. The test fails if two handlers of a kind run at the same
/// time.
class alone {
 public:
  explicit alone(std::atomic<int>& inside) : inside_(inside) {
    EXPECT_EQ(inside_.fetch_add(1), 0) << "two handlers at the same time";
  }
  ~alone() { inside_.fetch_sub(1); }
  alone(const alone&) = delete;
  alone& operator=(const alone&) = delete;

 private:
  std::atomic<int>& inside_;
};

/// Calls `f(n)` on `count` threads at once and waits for all.
template <class Function>
void on_threads(std::size_t count, Function f) {
  std::vector<std::thread> threads;
  for (std::size_t n = 1; n < count; ++n) threads.emplace_back([&f, n] { f(n); });
  f(std::size_t{0});
  for (std::thread& t : threads) t.join();
}

/// Runs the context on `count` threads; the sum of what run() returned.
inline std::size_t run_on(asio_pulse::io_context& io, std::size_t count) {
  std::atomic<std::size_t> handlers{0};
  on_threads(count, [&](std::size_t) { handlers += io.run(); });
  return handlers;
}

/// 0, 1, 2, ...
inline std::vector<int> counting_to(int end) {
  std::vector<int> v;
  for (int i = 0; i < end; ++i) v.push_back(i);
  return v;
}

}  // namespace pulse_test
