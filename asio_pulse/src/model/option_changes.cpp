// SPDX-License-Identifier: BSL-1.0
//
// Which options can change while a context runs, and which cannot. Each option is in exactly one of
// the tables below.

#include "option_changes.hpp"

#include "metrics_members.hpp"

#include <fmt/core.h>

#include <array>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {
namespace {

// ---- those that can change

/// Calls `f(name, member of changes, member of options)`.
template <class F>
constexpr void each_value(F&& f) {
  f("stall_threshold", &changes::stall_threshold, &options::stall_threshold);
  f("yield_threshold", &changes::yield_threshold, &options::yield_threshold);
  f("isolate_threshold", &changes::isolate_threshold, &options::isolate_threshold);
  f("accept_rule", &changes::accept_rule, &options::accept_rule);
  f("connect_rule", &changes::connect_rule, &options::connect_rule);
  f("shadow", &changes::shadow, &options::shadow);
  f("order", &changes::order, &options::order);
  f("quantum", &changes::quantum, &options::quantum);
  f("min_slice", &changes::min_slice, &options::min_slice);
  f("report_interval", &changes::report_interval, &options::report_interval);
  f("reports_per_second", &changes::reports_per_second, &options::reports_per_second);
  f("silenced", &changes::silenced, &options::silenced);
  f("tiers", &changes::tiers, &options::tiers);
  f("max_critical", &changes::max_critical, &options::max_critical);
  f("watchdog", &changes::watchdog, &options::watchdog);
  f("admission", &changes::admission, &options::admission);
  f("policy", &changes::policy, &options::policy);
  f("saturation", &changes::saturation, &options::saturation);
}

/// The same for budgets.
template <class F>
constexpr void each_budget(F&& f) {
  f("accepted", &changes::accepted, &options::accepted);
  f("connected", &changes::connected, &options::connected);
  f("unnamed", &changes::unnamed, &options::unnamed);
}

/// The same for the values of a budget.
template <class F>
constexpr void each_part(F&& f) {
  f("budget", &budget_changes::budget, &task_options::budget);
  f("per", &budget_changes::per, &task_options::per);
  f("burst", &budget_changes::burst, &task_options::burst);
}

// ---- those that cannot

struct fixed_option {
  std::string_view name;
  std::string_view why;
  bool (*same)(const options&, const options&) noexcept;
};

template <auto Member>
bool same(const options& a, const options& b) noexcept {
  return a.*Member == b.*Member;
}
template <auto Of, auto Member>
bool same(const options& a, const options& b) noexcept {
  return a.*Of.*Member == b.*Of.*Member;
}
template <auto Callback>
bool same_callback(const options& a, const options& b) noexcept {
  return static_cast<bool>(a.*Callback) == static_cast<bool>(b.*Callback);
}

constexpr std::string_view named = "the names are read without a lock, by reports and connections";
constexpr std::string_view promised = "it is a promise about the program's handlers";
constexpr std::string_view ranked = "connections are made with it";
constexpr std::string_view pool = "the threads of the isolation pool are started once";
constexpr std::string_view spares = "the spare workers are set up with the context";
constexpr std::string_view hinted = "it is agreed on with the source of hints when a worker joins";
constexpr std::string_view collected = "the instruments are set up with the context";
constexpr std::string_view memory = "memory of this size is in use";
constexpr std::string_view handler = "the handler of the signal is installed once";

// The parts of accepted, connected and unnamed come first; the others are in the order of options.
constexpr std::size_t parts = 12;
constexpr std::array fixed_options{
    fixed_option{"accepted.name", named, same<&options::accepted, &task_options::name>},
    fixed_option{"accepted.isolatable", promised,
                 same<&options::accepted, &task_options::isolatable>},
    fixed_option{"accepted.priority", ranked, same<&options::accepted, &task_options::priority>},
    fixed_option{"accepted.deadline", ranked, same<&options::accepted, &task_options::deadline>},
    fixed_option{"connected.name", named, same<&options::connected, &task_options::name>},
    fixed_option{"connected.isolatable", promised,
                 same<&options::connected, &task_options::isolatable>},
    fixed_option{"connected.priority", ranked, same<&options::connected, &task_options::priority>},
    fixed_option{"connected.deadline", ranked, same<&options::connected, &task_options::deadline>},
    fixed_option{"unnamed.name", named, same<&options::unnamed, &task_options::name>},
    fixed_option{"unnamed.isolatable", promised,
                 same<&options::unnamed, &task_options::isolatable>},
    fixed_option{"unnamed.priority", ranked, same<&options::unnamed, &task_options::priority>},
    fixed_option{"unnamed.deadline", ranked, same<&options::unnamed, &task_options::deadline>},
    fixed_option{"enabled", "handlers that are running have no account, or would lose theirs",
                 same<&options::enabled>},
    fixed_option{"isolation_threads", pool, same<&options::isolation_threads>},
    fixed_option{"isolation_priority", pool, same<&options::isolation_priority>},
    fixed_option{"isolation_nice", pool, same<&options::isolation_nice>},
    fixed_option{"on_report", "workers call it without a lock", same_callback<&options::on_report>},
    fixed_option{"clock", "the workers measure with it", same<&options::clock>},
    fixed_option{"stall_signal", handler, same<&options::stall_signal>},
    fixed_option{"stack_bytes", memory, same<&options::stack_bytes>},
    fixed_option{"spare_workers", spares, same<&options::spare_workers>},
    fixed_option{"spare_cooldown", spares, same<&options::spare_cooldown>},
    fixed_option{"fiber_stack", memory, same<&options::fiber_stack>},
    fixed_option{"preemptible", "handlers that are suspended have a fiber",
                 same<&options::preemptible>},
    fixed_option{"hints", hinted, same<&options::hints>},
    fixed_option{"hint_socket", hinted, same<&options::hint_socket>},
    fixed_option{"escalation", hinted, same<&options::escalation>},
    fixed_option{"escapable", hinted, same<&options::escapable>},
    fixed_option{"hint_priority", hinted, same<&options::hint_priority>},
    fixed_option{"name", named, same<&options::name>},
    fixed_option{"metrics", collected, same<&options::metrics>},
    fixed_option{"trace", collected, same<&options::trace>},
    fixed_option{"instrument_bytes", memory, same<&options::instrument_bytes>},
    fixed_option{"trace_events", memory, same<&options::trace_events>},
    fixed_option{"trace_folder", collected, same<&options::trace_folder>},
    fixed_option{"trace_signal", handler, same<&options::trace_signal>},
    fixed_option{"classify", "callbacks cannot be compared; io_context::classify() replaces it",
                 same_callback<&options::classify>},
    fixed_option{"inspectable", collected, same<&options::inspectable>},
    fixed_option{"custom_policy", "it is asked without a lock when the policy changes",
                 same_callback<&options::custom_policy>},
    fixed_option{"controllable", collected, same<&options::controllable>},
};

constexpr std::size_t count_changeable() {
  std::size_t n = 0;
  const auto count = [&n](auto...) { ++n; };
  each_value(count);
  each_budget(count);
  return n;
}
static_assert(count_changeable() == member_count<changes>());
static_assert(count_changeable() + fixed_options.size() - parts == member_count<options>(),
              "an option is in none of the tables, or in two");

}  // namespace

options changed(options o, const changes& what) {
  each_value([&](std::string_view, auto change, auto option) {
    if (what.*change) o.*option = *(what.*change);
  });
  each_budget([&](std::string_view, auto change, auto option) {
    each_part([&](std::string_view, auto part, auto value) {
      if (what.*change.*part) o.*option.*value = *(what.*change.*part);
    });
  });
  return o;
}

changes difference(const options& from, const options& to) noexcept {
  changes result;
  each_value([&](std::string_view, auto change, auto option) {
    if (from.*option != to.*option) result.*change = to.*option;
  });
  each_budget([&](std::string_view, auto change, auto option) {
    each_part([&](std::string_view, auto part, auto value) {
      if (from.*option.*value != to.*option.*value) result.*change.*part = to.*option.*value;
    });
  });
  return result;
}

std::string fixed_reason(const options& from, const options& to) {
  for (const fixed_option& option : fixed_options) {
    if (option.same(from, to)) continue;
    return fmt::format("asio_pulse::options.{} cannot change while the context exists: {}",
                       option.name, option.why);
  }
  return {};
}

std::string names_of(const changes& what) {
  std::string names;
  const auto add = [&names](std::string_view of, std::string_view name) {
    if (!names.empty()) names += ", ";
    names += of;
    names += name;
  };
  each_value([&](std::string_view name, auto change, auto) {
    if (what.*change) add("", name);
  });
  each_budget([&](std::string_view of, auto change, auto) {
    each_part([&](std::string_view name, auto part, auto) {
      if (what.*change.*part) add(fmt::format("{}.", of), name);
    });
  });
  return names;
}

}  // namespace asio_pulse::detail
