// SPDX-License-Identifier: BSL-1.0
//
// The scenario `shares`: groups of tasks, policies, admission and updates.

#include "catalogue_parts.hpp"

#include <algorithm>

namespace pulse_bench {

using namespace std::chrono_literals;

namespace {

/// Most variants are long, and few repetitions suffice.
constexpr int few = 3;

struct shares_part {
  std::string name;  ///< of the variant
  std::string title;
  std::string variant;  ///< the worker's name for it
  int workers = 1;
  std::chrono::milliseconds length{0};  ///< zero: it has its own
  bool few_repetitions = false;
};

variant_spec make(const settings& with, const shares_part& p) {
  variant_spec v;
  v.name = p.name;
  v.title = p.title;
  v.warm_up = false;  // each program settles before it measures
  v.limit_s = 120;
  if (p.few_repetitions) v.repetitions = std::min(few, with.repetitions);
  v.parameters = {{"workers", p.workers}};
  words arguments{"shares", "--variant", p.variant, "--workers", fmt::to_string(p.workers)};
  if (p.length.count() != 0) {
    const auto length = with.length(p.length);
    v.parameters["duration_ms"] = length.count();
    v.limit_s += static_cast<int>(10 * length.count() / 1000);
    arguments.insert(arguments.end(), {"--duration-ms", fmt::to_string(length.count())});
  }
  v.arms = worker_arms(with, arguments);
  return v;
}

metric_spec value(const std::string& name, const std::string& label, const std::string& unit,
                  const std::string& better, bool headline = false) {
  return {name, label, unit, better, headline, name};
}

metric_spec sample(const std::string& key, const std::string& which, double share,
                   const std::string& label, bool headline = false) {
  return {key + "_" + which + "_ms", label, "ms", "lower", headline, key, share, 1e6};
}

void weights(const settings& with, scenario_spec& to) {
  for (const int workers : {1, 2}) {
    shares_part p{
        .name = fmt::format("weights/{}", workers),
        .title = fmt::format("saturated groups, {}", workers == 1 ? "one worker" : "two workers"),
        .variant = "weights",
        .workers = workers,
        .length = 1100ms,
        .few_repetitions = true};
    variant_spec v = make(with, p);
    v.parameters["handler_us"] = 5;
    v.parameters["groups"] = "2 (1:100); 64 (1 to 100); 4 groups of 4 (each 1 to 10)";
    v.metrics = {value("deviation_percent", "worst deviation in any second", "%", "lower", true),
                 value("deviation_percent.2_groups", "2 groups, 1:100", "%", "lower"),
                 value("deviation_percent.64_groups", "64 groups, 1 to 100", "%", "lower"),
                 value("deviation_percent.nested", "4 groups of 4", "%", "lower")};
    add_counts(v.metrics, {"policy_turns", "yields"});
    to.targets.push_back({fmt::format("worst deviation of a group from its weight in any second, "
                                      "percent, {} worker{}",
                                      workers, workers == 1 ? "" : "s"),
                          v.name, "deviation_percent", "pulse", reading::median, "lower", 5});
    to.variants.push_back(std::move(v));
  }
}

void lengths(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "lengths",
                               .title = "equal weights, handlers of 5 us and 500 us",
                               .variant = "lengths",
                               .length = 1100ms,
                               .few_repetitions = true});
  v.parameters["groups"] = "4 with handlers of 5 us, 4 with handlers of 500 us";
  v.metrics = {value("jain", "Jain's index in the worst second", "", "higher", true)};
  to.targets.push_back({"Jain's index in the worst second, handlers of 5 us and 500 us", v.name,
                        "jain", "pulse", reading::median, "higher", 0.99});
  to.variants.push_back(std::move(v));
}

void flood(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "flood",
                               .title = "one of two tenants sends ten times its share",
                               .variant = "flood",
                               .length = 800ms});
  v.parameters["request_us"] = 200;
  v.parameters["connections"] = "64 and 256";
  v.parameters["pulse_policy"] = "round_robin";
  v.parameters["pulse_admission"] = "target 0.5 ms, interval 10 ms";
  v.metrics = {value("small_goodput_percent", "the other: answered in time", "%", "higher"),
               sample("small_latency", "p50", 0.50, "the other: latency, p50"),
               sample("small_latency", "p99", 0.99, "the other: latency, p99", true),
               value("small_offered_per_s", "the other: offered", "1/s", "none"),
               sample("flood_refused_latency", "p50", 0.50, "the flood: until its 503, p50"),
               sample("flood_refused_latency", "p99", 0.99, "the flood: until its 503, p99"),
               value("flood_offered_per_s", "the flood: offered", "1/s", "none"),
               value("flood_refused_percent", "the flood: refused", "%", "none"),
               value("flood_lost_percent", "the flood: late or without answer", "%", "lower"),
               value("flood_goodput_per_s", "the flood: answered in time", "1/s", "higher"),
               value("goodput_per_s", "all: answered in time", "1/s", "higher")};
  add_counts(v.metrics, {"policy_turns", "yields"});
  v.distributions = {{"small_latency", "the other's latency", "ms", "small_latency", 1e6},
                     {"flood_refused_latency", "until a 503", "ms", "flood_refused_latency", 1e6}};
  to.targets.push_back({"the other tenant: requests answered in time, percent", v.name,
                        "small_goodput_percent", "pulse", reading::median, "higher", 98});
  to.targets.push_back({"the other tenant: p99, ms", v.name, "small_latency_p99_ms", "pulse",
                        reading::median, "lower", 2});
  to.targets.push_back({"the flood: p99 until it is refused, ms", v.name,
                        "flood_refused_latency_p99_ms", "pulse", reading::median, "lower", 5});
  to.targets.push_back({"the flood: late or without answer, percent", v.name, "flood_lost_percent",
                        "pulse", reading::median, "lower", 0});
  to.variants.push_back(std::move(v));
}

void overload(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "overload",
                               .title = "up to twice the load that the server can serve",
                               .variant = "overload",
                               .length = 500ms,
                               .few_repetitions = true});
  v.parameters["request_us"] = 500;
  v.parameters["connections"] = 256;
  v.parameters["in_time_ms"] = 100;
  v.metrics = {
      value("goodput_of_peak_percent", "answered in time at 2x, of the peak", "%", "higher", true),
      value("goodput_per_s", "answered in time at 2x", "1/s", "higher"),
      value("peak_per_s", "the peak", "1/s", "higher"),
      value("lost/2.0", "late or without answer at 2x", "%", "lower"),
      sample("latency", "p99", 0.99, "latency at 2x, p99")};
  v.series = {
      {"goodput", "answered in time", "offered, of what it can serve", "1/s", "goodput/", false},
      {"lost", "late or without answer", "offered, of what it can serve", "%", "lost/", false}};
  to.targets.push_back({"goodput at twice the load, percent of the peak", v.name,
                        "goodput_of_peak_percent", "pulse", reading::median, "higher", 95});
  to.variants.push_back(std::move(v));
}

void deadline(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "deadline",
                               .title = "jobs with deadlines at 90 % load",
                               .variant = "deadline",
                               .length = 1000ms,
                               .few_repetitions = true});
  v.parameters["job_us"] = "200 (80 %) and 800";
  v.parameters["deadline_ms"] = "5 (30 %), 20 (30 %) and 100";
  v.metrics = {
      value("missed_percent", "deadlines missed", "%", "lower", true),
      value("missed", "deadlines missed", "jobs", "lower"),
      value("missed_by_edf", "missed by exact EDF, preemptive", "jobs", "none"),
      value("missed_by_edf_in_polls", "missed by exact EDF, in polls", "jobs", "none"),
      value("missed_needlessly", "missed, and met by exact EDF", "jobs", "lower"),
      value("missed_needlessly_in_polls", "missed, and met by EDF in polls", "jobs", "lower"),
      sample("urgent_response", "p99", 0.99, "response of the most urgent, p99"),
      value("load_percent", "load", "%", "none")};
  add_counts(v.metrics, {"policy_turns", "yields"});
  v.distributions = {
      {"urgent_response", "response of the most urgent jobs", "ms", "urgent_response", 1e6}};
  to.targets.push_back({"deadlines missed that exact preemptive EDF meets, jobs", v.name,
                        "missed_needlessly", "pulse", reading::median, "lower", 0});
  to.variants.push_back(std::move(v));
}

void priority(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "priority",
                               .title = "the lowest class beside classes that want the whole CPU",
                               .variant = "priority",
                               .length = 800ms,
                               .few_repetitions = true});
  v.parameters["tasks"] = "8 of class 7, 4 of class 3, 4 of class 0";
  v.parameters["handler_us"] = 100;
  v.metrics = {value("longest_wait_ms", "longest wait of the lowest class", "ms", "none"),
               value("bound_ms", "the stated bound", "ms", "none"),
               value("longest_wait_of_bound", "longest wait over the bound", "x", "none", true),
               sample("urgent_wait", "p99", 0.99, "wait of the highest class, p99"),
               value("lowest_per_s", "polls of the lowest class", "1/s", "none")};
  add_counts(v.metrics, {"policy_turns", "yields"});
  to.targets.push_back({"longest wait of the lowest class over the stated bound", v.name,
                        "longest_wait_of_bound", "pulse", reading::median, "lower", 1});
  to.variants.push_back(std::move(v));
}

void cost(const settings& with, scenario_spec& to) {
  variant_spec v =
      make(with, {.name = "cost", .title = "cost of a poll in a group", .variant = "cost"});
  const auto added = [](const std::string& name, const std::string& label, const std::string& key,
                        const std::string& minus) {
    metric_spec m{name, label, "ns", "none", false, key};
    m.minus = minus;
    return m;
  };
  v.metrics = {value("none_ns", "a poll, no group", "ns", "lower"),
               added("group_added_ns", "added by a group", "group_ns", "none_ns"),
               added("fair_added_ns", "added by a group, policy fair", "fair_ns", "none_ns"),
               value("none_16_ns", "a poll, 16 tasks by turns", "ns", "lower"),
               added("group_16_added_ns", "added by a group for each", "group_16_ns", "none_16_ns"),
               value("saturated_16_ns", "the same, fair and saturated", "ns", "lower")};
  v.metrics[1].headline = true;
  to.targets.push_back({"a poll in a group, ns added", v.name, "group_added_ns", "pulse",
                        reading::median, "lower", 5});
  to.targets.push_back({"a poll in a group with policy fair, not saturated, ns added", v.name,
                        "fair_added_ns", "pulse", reading::median, "lower", 5});
  to.targets.push_back({"polls of 16 groups by turns, ns added", v.name, "group_16_added_ns",
                        "pulse", reading::median, "lower", 5});
  to.variants.push_back(std::move(v));
}

void classify(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "classify",
                               .title = "cost of classifying a connection",
                               .variant = "classify",
                               .few_repetitions = true});
  metric_spec added{"classify_added_ns", "added by classify", "ns", "lower", false,
                    "classified_ns"};
  added.minus = "accept_ns";
  v.metrics = {value("accept_ns", "a connection accepted", "ns", "lower", true), added};
  to.variants.push_back(std::move(v));
}

void many(const settings& with, scenario_spec& to) {
  variant_spec v = make(with, {.name = "many",
                               .title = "10 000 groups, always saturated",
                               .variant = "many",
                               .few_repetitions = true});
  v.metrics = {
      value("ratio", "a poll, 10 000 groups wait over 10", "x", "lower", true),
      value("ratio_of_10", "a poll, 10 of 10 000 groups wait", "x", "lower"),
      value("ns/10", "a poll, 10 groups", "ns", "lower"),
      value("ns/10000", "a poll, 10 000 groups wait", "ns", "lower"),
      value("plain_ratio", "a poll in no task, 10 000 sessions of 832 bytes over 10", "x", "none"),
      value("plain_ns/10000", "the same, 10 000 sessions", "ns", "none"),
      value("bytes_a_group", "memory a group", "bytes", "lower")};
  to.targets.push_back({"cost of a poll, 10 000 groups that wait over 10", v.name, "ratio", "pulse",
                        reading::median, "lower", 1.2});
  to.targets.push_back({"cost of a poll, 10 of 10 000 groups wait, over 10 groups", v.name,
                        "ratio_of_10", "pulse", reading::median, "lower", 1.2});
  to.targets.push_back({"memory of a group, bytes, with the allocator's", v.name, "bytes_a_group",
                        "pulse", reading::median, "lower", 192});
  to.variants.push_back(std::move(v));
}

void update(const settings& with, scenario_spec& to) {
  for (const int workers : {1, 2}) {
    variant_spec v = make(with, {.name = fmt::format("update/{}", workers),
                                 .title = fmt::format("1000 updates a second, {}",
                                                      workers == 1 ? "one worker" : "two workers"),
                                 .variant = "update",
                                 .workers = workers,
                                 .length = 600ms,
                                 .few_repetitions = true});
    v.metrics = {value("polls_with_old_options", "polls with old options", "", "lower"),
                 value("polls_checked", "polls compared", "", "none"),
                 value("polls_without_cpu", "polls that lost their CPU", "", "none"),
                 {"gap_with_updates_worst_us", "between two polls, worst", "us", "lower", true,
                  "gap_with_updates", 1, 1e3},
                 {"gap_without_worst_us", "the same without updates", "us", "lower", false,
                  "gap_without", 1, 1e3},
                 {"gap_with_updates_p999_us", "between two polls, p99.9", "us", "lower", false,
                  "gap_with_updates", 0.999, 1e3},
                 {"gap_without_p999_us", "the same without updates", "us", "none", false,
                  "gap_without", 0.999, 1e3},
                 {"update_call_p50_us", "update() itself, p50", "us", "lower", false, "update_call",
                  0.5, 1e3}};
    const std::string of = fmt::format("{} worker{}", workers, workers == 1 ? "" : "s");
    to.targets.push_back({"polls that began after an update and did not use it, " + of, v.name,
                          "polls_with_old_options", "pulse", reading::median, "lower", 0});
    to.targets.push_back({"longest time between two polls beside 1000 updates a second, us, " + of,
                          v.name, "gap_with_updates_worst_us", "pulse", reading::median, "lower",
                          50});
    to.variants.push_back(std::move(v));
  }
}

}  // namespace

scenario_spec shares(const settings& with) {
  scenario_spec result;
  result.title = "Groups, policies and shedding";
  weights(with, result);
  lengths(with, result);
  flood(with, result);
  overload(with, result);
  deadline(with, result);
  priority(with, result);
  cost(with, result);
  classify(with, result);
  many(with, result);
  update(with, result);
  result.notes = {
      "Weights: each group has more work than there is CPU time. What it got is measured by the "
      "CPU clocks of the threads, and includes what its turns cost. The worst deviation is that of "
      "the group which is furthest from its part, in percent of that part, over each second that "
      "begins at a step of 10 ms. Plain Boost.Asio has no weights: it runs what was posted, in "
      "that "
      "order.",
      "Flood and overload: a server on Boost.Beast with one thread, and clients on another thread "
      "of the same process, over loopback. The clients are an open loop: requests are due at the "
      "times of a Poisson process, whatever the server does. Latency counts from these times (no "
      "coordinated omission); a request without an answer counts until the client stops waiting, "
      "0.3 s after the end. A share is half of what the server can serve, as measured before. The "
      "tenant that keeps within its share offers 80 % of it. In time means within 100 ms. The "
      "first 0.3 s are not measured.",
      "Deadline: the jobs arrive from another thread, and are not preempted. \"Exact EDF\" is "
      "computed from the times of their arrival and the lengths that were measured in the same "
      "run: "
      "with preemption, which no order on one CPU beats, and in polls, as here.",
      "Priority: the bound is that of asio_pulse::scheduling::priority with the longest poll that "
      "was measured.",
      "Cost: CPU time of the thread; medians of nine rounds that alternate. All tasks have budgets "
      "without limit.",
      "10 000 groups: beside them, 10 and 10 000 chains of handlers in no task and no group, in "
      "the order of the queue. The handlers of each use 13 cache lines of their own: about what "
      "asio-pulse keeps for a waiting task and its group. In the column of plain Boost.Asio, this "
      "is the cost of so many sessions whose memory is not in the caches.",
      "Updates: five options change each time, with 100 tasks alive. A time between two polls is "
      "left out if the worker slept, or if the kernel gave its CPU to another thread. Phases with "
      "and without updates alternate."};
  return result;
}

}  // namespace pulse_bench
