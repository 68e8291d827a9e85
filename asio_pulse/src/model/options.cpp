// SPDX-License-Identifier: BSL-1.0

#include "text/duration_literal.hpp"

#include <asio_pulse/error.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <csignal>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace asio_pulse {
namespace {

using std::chrono::nanoseconds;
using namespace std::chrono_literals;

constexpr nanoseconds longest = 1h;
constexpr nanoseconds longest_window = 60s;
constexpr nanoseconds least_budget = 1us;
constexpr nanoseconds longest_refill = 600s;  // fits task_budget's 2^42 ticks up to 7 GHz
constexpr std::size_t most_threads = 256;
constexpr std::size_t most_reports = 1'000'000;
constexpr unsigned most_offences = 255;  // tier_state counts in bytes
constexpr int nicest = 19;
constexpr std::size_t least_copy = 4096;
constexpr std::size_t most_copy = std::size_t{1} << 20;
constexpr std::size_t least_instruments = 65536;
constexpr std::size_t most_instruments = std::size_t{1} << 30;
constexpr std::size_t least_events = 256;
constexpr std::size_t most_events = std::size_t{1} << 24;
constexpr std::size_t most_spares = 64;
constexpr std::size_t longest_socket_path = 107;  // so that it fits into sockaddr_un with a zero
constexpr unsigned heaviest = 10000;
constexpr nanoseconds least_target = 10us;
constexpr nanoseconds least_saturation = 10us;
constexpr nanoseconds least_deadline = 1us;
constexpr nanoseconds longest_deadline = 60s;
constexpr unsigned most_urgent = 7;
constexpr std::size_t least_fiber = std::size_t{16} << 10;
constexpr std::size_t most_fiber = std::size_t{8} << 20;

// Checks the options, and keeps the first fault.
class checker {
 public:
  explicit checker(std::string_view prefix) : prefix_(prefix) {}

  template <typename Value>
  void require(bool holds, std::string_view field, std::string_view rule, const Value& got) {
    if (holds || !fault_.empty()) {
      return;
    }
    if constexpr (std::is_same_v<Value, nanoseconds>) {
      fault_ =
          fmt::format("{}{} must {} (got {})", prefix_, field, rule, detail::duration_literal(got));
    } else {
      fault_ = fmt::format("{}{} must {} (got {})", prefix_, field, rule, got);
    }
  }

  void zero_or_positive(std::string_view field, nanoseconds value) {
    require(value >= 0ns, field, "not be negative", value);
    require(value <= longest, field, "be at most 1h", value);
  }

  void positive(std::string_view field, nanoseconds value, nanoseconds most = longest) {
    require(value > 0ns, field, "be positive", value);
    require(value <= most, field, most == longest ? "be at most 1h" : "be at most 60s", value);
  }

  void not_below(std::string_view field, nanoseconds value, std::string_view other_field,
                 nanoseconds other) {
    require(value >= other, field,
            fmt::format("not be below {} = {}", other_field, detail::duration_literal(other)),
            value);
  }

  std::string take() { return std::move(fault_); }

 private:
  std::string prefix_;
  std::string fault_;
};

void check_budget(checker& c, nanoseconds budget, nanoseconds per, const std::string& path) {
  const std::string field = path + "budget";
  c.positive(path + "per", per, longest_window);
  c.require(budget >= 0ns, field, "not be negative", budget);
  c.require(budget == 0ns || budget >= least_budget, field, "be zero (unlimited) or at least 1us",
            budget);
  c.require(budget <= per, field, fmt::format("not exceed per = {}", detail::duration_literal(per)),
            budget);
  c.require(budget == 0ns || per.count() / task_budget::max_ratio < budget.count(), field,
            fmt::format("not be below per / 65535, per = {}", detail::duration_literal(per)),
            budget);
}

void check(checker& c, const task_options& o, const std::string& path) {
  const auto field = [&path](std::string_view name) { return fmt::format("{}{}", path, name); };
  check_budget(c, o.budget, o.per, path);
  c.require(o.burst >= 0ns, field("burst"), "not be negative", o.burst);
  c.require(o.burst == 0ns || o.burst >= least_budget, field("burst"),
            "be zero (one budget) or at least 1us", o.burst);
  // Computed as doubles, because the comparison of durations could overflow for invalid values.
  c.require(
      o.budget <= 0ns || o.per <= 0ns ||
          static_cast<double>(o.burst.count()) * static_cast<double>(o.per.count()) <=
              static_cast<double>(longest_refill.count()) * static_cast<double>(o.budget.count()),
      field("burst"), "be refilled within 600s, that is burst * per / budget", o.burst);
  c.require(o.burst <= longest, field("burst"), "be at most 1h", o.burst);
  c.require(o.priority <= most_urgent, field("priority"), "be between 0 and 7", o.priority);
  c.require(o.deadline >= 0ns, field("deadline"), "not be negative", o.deadline);
  c.require(o.deadline == 0ns || o.deadline >= least_deadline, field("deadline"),
            "be zero (none) or at least 1us", o.deadline);
  c.require(o.deadline <= longest_deadline, field("deadline"), "be at most 60s", o.deadline);
}

// The tasks that a context makes itself.
void check_own(checker& c, const task_options& o, const std::string& path) {
  check(c, o, path);
  c.require(!o.group, path + "group", "be empty, since a group belongs to a context that exists",
            "a group");
}

void check(checker& c, const admission_policy& p) {
  c.require(p.target >= least_target, "admission.target", "be at least 10us", p.target);
  c.require(p.target <= longest, "admission.target", "be at most 1h", p.target);
  c.not_below("admission.interval", p.interval, "admission.target", p.target);
  c.require(p.interval <= longest, "admission.interval", "be at most 1h", p.interval);
}

bool known(instrument_mode m) { return to_string(m) != "unknown"; }

bool known(handler_order o) { return to_string(o) != "unknown"; }

bool known(preemptible_handlers p) { return to_string(p) != "unknown"; }

bool known(scheduling s) { return to_string(s) != "unknown"; }

bool known(isolation_priority p) {
  switch (p) {
    case isolation_priority::normal:
    case isolation_priority::batch:
    case isolation_priority::idle:
    case isolation_priority::nice:
      return true;
  }
  return false;
}

bool known(hint_source s) {
  switch (s) {
    case hint_source::environment:
    case hint_source::off:
    case hint_source::automatic:
    case hint_source::kernel:
    case hint_source::local:
      return true;
  }
  return false;
}

bool known(escalation_policy p) {
  switch (p) {
    case escalation_policy::none:
    case escalation_policy::thread_kick:
    case escalation_policy::cgroup_throttle:
    case escalation_policy::hybrid:
      return true;
  }
  return false;
}

bool selectable(timing::clock_kind kind) {
  using timing::clock_kind;
  switch (kind) {
    case clock_kind::rseq_tsc:
    case clock_kind::perf_mmap:
    case clock_kind::published:
    case clock_kind::thread_cputime:
    case clock_kind::steady:
    case clock_kind::thread_cycles:
    case clock_kind::mach_thread:
      return true;
    case clock_kind::none:
    case clock_kind::manual:
      break;
  }
  return false;
}

// Whether the library may install a handler for the signal: it can be caught, and does not report a
// fault.
bool usable_signal(int signal) {
  switch (signal) {
    case SIGILL:
    case SIGABRT:
    case SIGFPE:
    case SIGSEGV:
#if defined(__linux__)
    case SIGKILL:
    case SIGSTOP:
    case SIGTRAP:
    case SIGBUS:
    case SIGSYS:
#endif
      return false;
    default:
      break;
  }
#if defined(__linux__)
  constexpr int first_of_the_c_library = 32;
  return signal < first_of_the_c_library || (signal >= SIGRTMIN && signal <= SIGRTMAX);
#else
  return true;
#endif
}

void check_thresholds(checker& c, const options& o) {
  c.zero_or_positive("stall_threshold", o.stall_threshold);
  c.zero_or_positive("yield_threshold", o.yield_threshold);
  c.zero_or_positive("isolate_threshold", o.isolate_threshold);
  if (o.yield_threshold != 0ns) {
    c.not_below("yield_threshold", o.yield_threshold, "stall_threshold", o.stall_threshold);
  }
  if (o.isolate_threshold != 0ns) {
    c.not_below("isolate_threshold", o.isolate_threshold, "stall_threshold", o.stall_threshold);
    c.not_below("isolate_threshold", o.isolate_threshold, "yield_threshold", o.yield_threshold);
  }
}

void check(checker& c, const tier_policy& p) {
  c.require(p.yield_after <= most_offences, "tiers.yield_after", "be at most 255", p.yield_after);
  c.require(p.isolate_after <= most_offences, "tiers.isolate_after", "be at most 255",
            p.isolate_after);
  c.positive("tiers.clean_window", p.clean_window);
  c.positive("tiers.isolate_clean_window", p.isolate_clean_window);
  c.not_below("tiers.isolate_clean_window", p.isolate_clean_window, "tiers.clean_window",
              p.clean_window);
}

// A duration in ticks, but at least one, so that a budget does not become unlimited.
timing::ticks at_least_one(nanoseconds value) noexcept {
  return std::max<timing::ticks>(timing::timebase::get().from_ns(value), 1);
}

template <typename Options>
void throw_if_invalid(const Options& o) {
  if (const std::string fault = invalid_reason(o); !fault.empty()) {
    throw std::invalid_argument(fault);
  }
}

}  // namespace

std::string_view to_string(isolation_priority p) noexcept {
  switch (p) {
    case isolation_priority::normal:
      return "normal";
    case isolation_priority::batch:
      return "batch";
    case isolation_priority::idle:
      return "idle";
    case isolation_priority::nice:
      return "nice";
  }
  return "unknown";
}

std::string_view to_string(handler_order o) noexcept {
  switch (o) {
    case handler_order::automatic:
      return "automatic";
    case handler_order::strict:
      return "strict";
    case handler_order::per_task:
      return "per_task";
  }
  return "unknown";
}

std::string_view to_string(preemptible_handlers p) noexcept {
  switch (p) {
    case preemptible_handlers::declared:
      return "declared";
    case preemptible_handlers::connections:
      return "connections";
    case preemptible_handlers::all:
      return "all";
  }
  return "unknown";
}

std::string_view to_string(instrument_mode m) noexcept {
  switch (m) {
    case instrument_mode::off:
      return "off";
    case instrument_mode::on_demand:
      return "on_demand";
    case instrument_mode::on:
      return "on";
  }
  return "unknown";
}

std::string_view to_string(scheduling s) noexcept {
  switch (s) {
    case scheduling::round_robin:
      return "round_robin";
    case scheduling::priority:
      return "priority";
    case scheduling::fair:
      return "fair";
    case scheduling::deadline:
      return "deadline";
    case scheduling::custom:
      return "custom";
  }
  return "unknown";
}

std::string invalid_reason(const options& o) {
  checker c{"asio_pulse::options."};
  check_thresholds(c, o);
  check_own(c, o.accepted, "accepted.");
  check_own(c, o.connected, "connected.");
  check_own(c, o.unnamed, "unnamed.");
  c.require(known(o.order), "order", "be an enumerator of handler_order",
            static_cast<unsigned>(o.order));
  c.require(known(o.preemptible), "preemptible", "be an enumerator of preemptible_handlers",
            static_cast<unsigned>(o.preemptible));
  c.positive("quantum", o.quantum);
  c.positive("min_slice", o.min_slice);
  c.require(o.min_slice <= o.quantum, "min_slice",
            fmt::format("not exceed quantum = {}", detail::duration_literal(o.quantum)),
            o.min_slice);
  c.require(o.isolation_threads <= most_threads, "isolation_threads", "be at most 256",
            o.isolation_threads);
  c.require(known(o.isolation_priority), "isolation_priority",
            "be an enumerator of isolation_priority", static_cast<unsigned>(o.isolation_priority));
  c.require(o.isolation_nice >= 0 && o.isolation_nice <= nicest, "isolation_nice",
            "be between 0 and 19", o.isolation_nice);
  c.zero_or_positive("report_interval", o.report_interval);
  c.require(o.reports_per_second <= most_reports, "reports_per_second", "be at most 1000000",
            o.reports_per_second);
  c.require(o.silenced.valid(), "silenced", "have enumerators of report_kind only",
            "another value");
  if (o.clock.has_value()) {
    c.require(selectable(*o.clock), "clock", "be a clock that a context can attach to",
              fmt::format("{} = {}", timing::to_string(*o.clock), static_cast<unsigned>(*o.clock)));
  }
  check(c, o.tiers);
  c.zero_or_positive("max_critical", o.max_critical);
  c.require(o.stall_signal <= 0 || usable_signal(o.stall_signal), "stall_signal",
            "be zero, negative, or a signal that can be caught and is not raised by a fault",
            o.stall_signal);
  c.require(o.stack_bytes >= least_copy && o.stack_bytes <= most_copy, "stack_bytes",
            "be between 4096 and 1048576", o.stack_bytes);
  c.require(o.spare_workers <= most_spares, "spare_workers", "be at most 64", o.spare_workers);
  c.zero_or_positive("spare_cooldown", o.spare_cooldown);
  c.require(o.fiber_stack >= least_fiber && o.fiber_stack <= most_fiber, "fiber_stack",
            "be between 16384 and 8388608", o.fiber_stack);
  c.require(known(o.hints), "hints", "be an enumerator of hint_source",
            static_cast<unsigned>(o.hints));
  c.require(o.hint_socket.size() <= longest_socket_path, "hint_socket", "be at most 107 bytes",
            o.hint_socket);
  c.require(o.hint_socket.find('\0') == std::string::npos, "hint_socket", "have no zero byte",
            o.hint_socket.size());
  c.require(known(o.escalation), "escalation", "be an enumerator of escalation_policy",
            static_cast<unsigned>(o.escalation));
  c.require(o.hint_priority >= 0 && o.hint_priority <= 1000, "hint_priority",
            "be between 0 and 1000", o.hint_priority);
  c.require(known(o.metrics), "metrics", "be an enumerator of instrument_mode",
            static_cast<unsigned>(o.metrics));
  c.require(known(o.trace), "trace", "be an enumerator of instrument_mode",
            static_cast<unsigned>(o.trace));
  c.require(o.instrument_bytes >= least_instruments && o.instrument_bytes <= most_instruments,
            "instrument_bytes", "be between 65536 and 1073741824", o.instrument_bytes);
  c.require(o.trace_events >= least_events && o.trace_events <= most_events, "trace_events",
            "be between 256 and 16777216", o.trace_events);
  c.require(o.trace_folder.find('\0') == std::string::npos, "trace_folder", "have no zero byte",
            o.trace_folder.size());
  c.require(o.trace_signal == 0 || (o.trace_signal > 0 && usable_signal(o.trace_signal)),
            "trace_signal", "be zero, or a signal that can be caught and is not raised by a fault",
            o.trace_signal);
  check(c, o.admission);
  c.require(known(o.policy), "policy", "be an enumerator of scheduling",
            static_cast<unsigned>(o.policy));
  c.require(o.policy != scheduling::custom || o.custom_policy != nullptr, "policy",
            "not be custom without custom_policy", to_string(o.policy));
  c.require(o.saturation == 0ns || o.saturation >= least_saturation, "saturation",
            "be zero (always saturated) or at least 10us", o.saturation);
  c.require(o.saturation <= longest, "saturation", "be at most 1h", o.saturation);
  return c.take();
}

std::string invalid_reason(const task_options& o) {
  checker c{"asio_pulse::task_options."};
  check(c, o, "");
  return c.take();
}

std::string invalid_reason(const group_options& o) {
  checker c{"asio_pulse::group_options."};
  c.require(o.weight >= 1 && o.weight <= heaviest, "weight", "be between 1 and 10000", o.weight);
  check_budget(c, o.budget, o.per, "");
  return c.take();
}

void validate(const options& o) { throw_if_invalid(o); }
void validate(const task_options& o) { throw_if_invalid(o); }
void validate(const group_options& o) { throw_if_invalid(o); }

options options::latency() {
  options o;
  o.stall_threshold = 2ms;
  o.yield_threshold = 8ms;
  o.isolate_threshold = 20ms;
  o.accepted.budget = o.connected.budget = 100us;
  o.accepted.per = o.connected.per = 1ms;
  o.quantum = 200us;
  o.min_slice = 20us;
  o.tiers.yield_after = 1;
  o.max_critical = 500us;
  o.admission = {.target = 2ms, .interval = 40ms};
  return o;
}

options options::balanced() { return {}; }

options options::throughput() {
  options o;
  o.stall_threshold = 20ms;
  o.yield_threshold = 80ms;
  o.isolate_threshold = 200ms;
  o.accepted.budget = o.connected.budget = 3ms;
  o.accepted.per = o.connected.per = 30ms;
  o.quantum = 4ms;
  o.min_slice = 400us;
  o.max_critical = 5ms;
  o.admission = {.target = 50ms, .interval = 500ms};
  return o;
}

tier_limits make_tier_limits(const options& o) noexcept {
  tier_limits limits = detail::limits_of(
      o, [](nanoseconds value) { return timing::timebase::get().from_ns(value); });
  limits.trust_occupancy = o.clock == timing::clock_kind::steady;
  return limits;
}

void configure(task_budget& budget, const task_options& o) noexcept {
  const auto& base = timing::timebase::get();
  if (o.budget <= 0ns) {
    budget.configure(0, 0);
    return;
  }
  budget.configure(at_least_one(o.budget), at_least_one(o.per), base.from_ns(o.burst));
}

}  // namespace asio_pulse
