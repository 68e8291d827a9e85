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

namespace bench {

struct group;

/// What a task has besides its budget.
struct task_place {
  const group* of = nullptr;
  unsigned priority = 3;
  std::chrono::nanoseconds deadline{0};  ///< after its work is ready; zero: none
};

}  // namespace bench

#if defined(BENCH_STOCK)

// Boost 1.74's awaitable.hpp uses std::exchange without it.
#include <boost/asio/io_context.hpp>

#include <string_view>
#include <utility>

#define ASIO_PULSE_PREEMPTION_BUDGET(...) static_assert(true)
#define ASIO_PULSE_CHECKPOINT() static_assert(true)

namespace bench {

using io_context = boost::asio::io_context;

constexpr bool should_yield() noexcept { return false; }

/// In stock there are no groups and no tasks.
struct group {
  group(io_context&, std::string_view, unsigned, const group* = nullptr) {}
};

struct task {
  task(io_context&, std::chrono::nanoseconds, std::chrono::nanoseconds, const task_place& = {}) {}
  std::uint64_t polls() const { return 0; }
};

struct task_scope {
  explicit task_scope(const task&) {}
};

inline std::string stats_json(const io_context&) { return "{}"; }

}  // namespace bench

#else

#include <asio_pulse/asio_pulse.hpp>

#include <string_view>

#if defined(BENCH_AUTOMATIC)
// No checkpoint in the source, and no budget unless BENCH_BUDGET: the compiler writes the checks.
#include <asio_pulse/preemptible.hpp>

#if !defined(BENCH_BUDGET)
#undef ASIO_PULSE_PREEMPTION_BUDGET
#define ASIO_PULSE_PREEMPTION_BUDGET(...) static_assert(true)
#endif
#undef ASIO_PULSE_CHECKPOINT
#define ASIO_PULSE_CHECKPOINT() static_assert(true)
#endif

namespace bench {

#if defined(BENCH_AUTOMATIC)
/// The handlers of connections run on fibers.
struct io_context : asio_pulse::io_context {
  explicit io_context(int threads)
      : asio_pulse::io_context(
            asio_pulse::options{.preemptible = asio_pulse::preemptible_handlers::connections},
            threads) {}
};
#else
using io_context = asio_pulse::io_context;
#endif
using asio_pulse::should_yield;
using asio_pulse::task_scope;

/// \p weight is relative to the groups beside it.
struct group : asio_pulse::task_group {
  group(io_context& io, std::string_view name, unsigned weight, const group* parent = nullptr)
      : asio_pulse::task_group{
            io, asio_pulse::group_options{
                    .name = std::string(name), .weight = weight, .parent = reference(parent)}} {}
  static asio_pulse::group_ref reference(const group* g) {
    return g != nullptr ? asio_pulse::group_ref(*g) : asio_pulse::group_ref();
  }
};

struct task : asio_pulse::task {
  task(io_context& io, std::chrono::nanoseconds budget, std::chrono::nanoseconds per,
       const task_place& place = {})
      : asio_pulse::task{io, asio_pulse::task_options{.name = "bench",
                                                      .budget = budget,
                                                      .per = per,
                                                      .group = group::reference(place.of),
                                                      .priority = place.priority,
                                                      .deadline = place.deadline}} {}
  std::uint64_t polls() const { return stats().polls; }
};

inline std::string stats_json(const asio_pulse::io_context& io) {
  const auto stats = io.stats();
  std::string json = "{";
  const auto add = [&json](const char* key, std::uint64_t value) {
    json += (json.size() > 1 ? ",\"" : "\"") + std::string(key) + "\":" + std::to_string(value);
  };
  add("warns", stats.warns);
  add("yields", stats.yields);
  add("strand_breaks", stats.strand_breaks);
  add("checkpoint_yields", stats.checkpoint_yields);
  add("automatic_suspensions", stats.automatic_suspensions);
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
