// SPDX-License-Identifier: BSL-1.0
#include "server.hpp"

#include <exception>
#include <thread>

namespace worker {

namespace {

constexpr std::size_t most_marks = 500;

#if !defined(BENCH_STOCK)
const char* word_for(int from, int to) {
  if (to < from) return "demote";
  return to >= 3 ? "isolate" : to == 2 ? "yield" : "warn";
}
#endif

}  // namespace

#if defined(BENCH_STOCK)

struct server::state {
  explicit state(const server_options& o) : io{static_cast<int>(o.workers)} {}
  bench::io_context io;
};

#else

struct server::state {
  explicit state(const server_options& o)
      : io{make_options(o), hint(o)},
        hooks{io.hooks().install({.tier_changed = [this](const asio_pulse::hooks::tier_event& e) {
          mark(word_for(e.from, e.to), std::string(e.task_name) + ": tier " +
                                           std::to_string(e.from) + " to " + std::to_string(e.to));
        }})} {}

  /// With spares the handlers may run on more threads than the workers.
  static int hint(const server_options& o) { return static_cast<int>(o.workers + o.spare_workers); }

  static asio_pulse::scheduling policy(serving how) {
    switch (how) {
      case serving::fair:
        return asio_pulse::scheduling::fair;
      case serving::priority:
        return asio_pulse::scheduling::priority;
      case serving::deadline:
        return asio_pulse::scheduling::deadline;
      case serving::queue:
        break;
    }
    return asio_pulse::scheduling::round_robin;
  }

  asio_pulse::options make_options(const server_options& o) {
    asio_pulse::options result;
    result.spare_workers = o.spare_workers;
    result.stall_threshold = o.stall_threshold;
    result.policy = policy(o.policy);
    if (o.always_saturated) result.saturation = std::chrono::nanoseconds{0};
    if (o.admission_target.count() != 0) result.admission.target = o.admission_target;
    if (o.admission_interval.count() != 0) result.admission.interval = o.admission_interval;
    if (o.count_reports) {
      result.report_interval = std::chrono::nanoseconds{0};
      result.reports_per_second = 0;
    }
    result.on_report = [this](const asio_pulse::report& r) {
      const std::lock_guard lock{mutex};
      ++reports[std::string(to_string(r.kind))];
      if (r.kind == asio_pulse::report_kind::stall && marks.size() < most_marks) {
        marks.emplace_back(
            clock_type::now(), "stall",
            std::string(r.task) + ": stuck for " + std::to_string(ms(r.poll)).substr(0, 5) + " ms");
      }
    };
    return result;
  }

  void mark(const char* kind, std::string text) {
    const std::lock_guard lock{mutex};
    if (marks.size() < most_marks) marks.emplace_back(clock_type::now(), kind, std::move(text));
  }

  std::mutex mutex;  // reports come from the watchdog's thread, too
  std::map<std::string, unsigned> reports;
  std::vector<std::tuple<clock_type::time_point, std::string, std::string>> marks;
  bench::io_context io;
  asio_pulse::hooks::registry::connection hooks;
};

#endif

server::server(const server_options& o) : state_{std::make_unique<state>(o)}, workers_{o.workers} {}

server::~server() = default;

bench::io_context& server::io() { return state_->io; }

void server::run() {
  std::vector<std::thread> others;
  std::exception_ptr error;
  std::mutex mutex;
  const auto work = [&] {
    try {
      io().run();
    } catch (...) {
      const std::lock_guard lock{mutex};
      error = std::current_exception();
      io().stop();
    }
  };
  for (unsigned n = 1; n < workers_; ++n) others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

#if defined(BENCH_STOCK)

void server::add_counts(outcome&, clock_type::time_point) const { static_cast<void>(most_marks); }

#else

void server::add_counts(outcome& to, clock_type::time_point start) const {
  const auto counted = state_->io.stats();
  const auto add = [&to](const char* name, std::uint64_t value) {
    to.values[name] = static_cast<double>(value);
  };
  add("warns", counted.warns);
  add("yields", counted.yields);
  add("policy_turns", counted.policy_turns);
  add("strand_breaks", counted.strand_breaks);
  add("checkpoint_yields", counted.checkpoint_yields);
  add("promotions", counted.promotions);
  add("demotions", counted.demotions);
  add("reports", counted.reports);
  add("stalls", counted.stalls);
  add("stalls_spinning", counted.stalls_spinning);
  add("stalls_blocked", counted.stalls_blocked);
  add("spares_started", counted.spares_started);
  const std::lock_guard lock{state_->mutex};
  unsigned made = 0;
  for (const auto& [kind, count] : state_->reports) made += count;
  add("reports_made", made);
  add("critical_overstays", state_->reports["critical_overstay"]);
  for (const auto& [when, kind, text] : state_->marks) {
    to.timeline.marks.emplace_back(ms(when - start), kind, text);
  }
}

#endif

}  // namespace worker
