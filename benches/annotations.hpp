// SPDX-License-Identifier: BSL-1.0
//
// One source, two programs. The benches are written for asio-pulse. The stock program compiles the
// same source with BENCH_STOCK: the context is that of Boost.Asio, and annotations are empty. This
// header defines all differences.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#if defined(BENCH_STOCK)

// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <boost/asio/io_context.hpp>

#include <utility>

#define ASIO_PULSE_PREEMPTION_BUDGET(...) static_assert(true)
#define ASIO_PULSE_CHECKPOINT() static_assert(true)

namespace bench {

using io_context = boost::asio::io_context;

constexpr bool should_yield() noexcept { return false; }

/// In stock there are no tasks.
struct task {
  task(io_context&, std::chrono::nanoseconds, std::chrono::nanoseconds) {}
  std::uint64_t polls() const { return 0; }
};

struct task_scope {
  explicit task_scope(const task&) {}
};

inline std::string stats_json(const io_context&) { return "{}"; }

}  // namespace bench

#else

#include <asio_pulse/asio_pulse.hpp>

namespace bench {

using io_context = asio_pulse::io_context;
using asio_pulse::should_yield;
using asio_pulse::task_scope;

struct task : asio_pulse::task {
  task(io_context& io, std::chrono::nanoseconds budget, std::chrono::nanoseconds per)
      : asio_pulse::task{io,
                         asio_pulse::task_options{.name = "bench", .budget = budget, .per = per}} {}
  std::uint64_t polls() const { return stats().polls; }
};

inline std::string stats_json(const io_context& io) {
  const auto stats = io.stats();
  std::string json = "{";
  const auto add = [&json](const char* key, std::uint64_t value) {
    json += (json.size() > 1 ? ",\"" : "\"") + std::string(key) + "\":" + std::to_string(value);
  };
  add("warns", stats.warns);
  add("yields", stats.yields);
  add("strand_breaks", stats.strand_breaks);
  add("checkpoint_yields", stats.checkpoint_yields);
  add("isolated", stats.isolated);
  add("isolations_refused", stats.isolations_refused);
  add("promotions", stats.promotions);
  add("demotions", stats.demotions);
  add("reports", stats.reports);
  add("reports_suppressed", stats.reports_suppressed);
  return json + "}";
}

}  // namespace bench

#endif
