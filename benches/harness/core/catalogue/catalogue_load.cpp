// SPDX-License-Identifier: BSL-1.0
//
// The scenarios that bench_worker runs: starvation, storm, liar, latency, defaults.

#include "catalogue_parts.hpp"

namespace pulse_bench {

using namespace std::chrono_literals;

namespace {

constexpr auto hog_ms = 50;

void add_probe(variant_spec& v) {
  v.metrics = lateness_metrics("probe_lateness", "timer lateness");
  v.distributions = {{"probe_lateness", "timer lateness", "ms", "probe_lateness", 1e6}};
}

}  // namespace

scenario_spec starvation(const settings& with) {
  scenario_spec result;
  result.title = "A timer beside a hog";
  const auto length = with.length(200ms);
  for (const std::string kind : {"cooperative", "uncooperative"}) {
    for (const int workers : {1, 2}) {
      variant_spec v;
      v.name = fmt::format("{}/{}", kind, workers);
      v.title = fmt::format("{} hog, {}", kind, workers == 1 ? "one worker" : "two workers");
      v.timeline = true;
      v.parameters = {{"workers", workers},
                      {"hog_ms", hog_ms},
                      {"pause_ms", 5},
                      {"step_us", 10},
                      {"duration_ms", length.count()}};
      const words arguments{"starvation",
                            "--hog",
                            kind,
                            "--workers",
                            fmt::to_string(workers),
                            "--hog-ms",
                            fmt::to_string(hog_ms),
                            "--duration-ms",
                            fmt::to_string(length.count())};
      v.arms = worker_arms(with, arguments);
      if (kind == "cooperative") {
        v.parameters["pulse_budget"] = "0.5 ms in 2.5 ms";
        arm_spec post = v.arms[0];
        post.name = "post";
        post.label = "Boost.Asio, post() a step";
        post.command[3] = "cooperative-post";
        v.arms.push_back(std::move(post));
      } else {
        v.parameters["pulse_spare_workers"] = 1;
        v.parameters["pulse_stall_threshold_ms"] = 1;
      }
      add_peers(v.arms, with, arguments);
      add_probe(v);
      v.metrics.push_back(
          {"hog_steps_per_s", "hog's work", "steps/s", "higher", false, "hog_steps_per_s"});
      add_counts(v.metrics, {"checkpoint_yields", "yields", "stalls", "spares_started"});
      result.variants.push_back(std::move(v));
    }
  }
  result.notes = {
      "The hog does bursts of 50 ms of work in steps of 10 us, with 5 ms of sleep between them. "
      "Beside it runs a timer with a deadline every 1 ms. The lateness of each deadline counts, "
      "also of those that passed while the timer was still late.",
      "The first burst of the hog is not measured: threads start, and for the first stall "
      "asio-pulse reads the program's debug information, which takes about 50 ms of CPU time on "
      "the watchdog's thread, once per process.",
      "cooperative: ASIO_PULSE_PREEMPTION_BUDGET(0.5 ms) and a checkpoint after each step. Plain "
      "Boost.Asio has neither, and runs the same source without them. The arm \"post() a step\" "
      "shows what a program can do by hand.",
      "uncooperative: no checkpoint. asio-pulse runs with options::spare_workers = 1, which a "
      "program with such handlers would set, and a stall threshold of 1 ms (default: 5 ms).",
      "With a post() after each step, or in the runtime of another language, the timer may be as "
      "punctual: compare the hog's work, too."};
  return result;
}

scenario_spec storm(const settings& with) {
  scenario_spec result;
  result.title = "A timer beside a storm of small handlers";
  const int handlers = with.quick ? 5000 : 20000;
  for (const std::string kind : {"posts", "strand", "dispatch"}) {
    variant_spec v;
    v.name = kind;
    v.title = kind == "posts"    ? "posted at once"
              : kind == "strand" ? "posted to one strand"
                                 : "each dispatches the next";
    v.parameters = {{"workers", 1}, {"handlers", handlers}, {"work_us", 10}};
    words arguments{"storm", "--workers", "1", "--tasks", fmt::to_string(handlers)};
    v.arms = worker_arms(with, arguments);
    if (kind == "posts") add_peers(v.arms, with, arguments);
    for (arm_spec& arm : v.arms) {
      if (arm.kind != arm_kind::peer) arm.command.insert(arm.command.end(), {"--variant", kind});
    }
    add_probe(v);
    v.metrics.push_back({"took_ms", "until all have run", "ms", "lower", false, "elapsed_ms"});
    add_counts(v.metrics, {"yields", "strand_breaks", "checkpoint_yields"});
    result.variants.push_back(std::move(v));
  }
  result.notes = {
      "The storm is a task with a budget of 0.5 ms in 5 ms; the timer belongs to no task. In "
      "\"dispatch\", a handler calls should_yield(), and posts instead of dispatching if it "
      "returns true."};
  return result;
}

scenario_spec liar(const settings& with) {
  scenario_spec result;
  result.title = "Handlers that evade the budget";
  const auto length = with.length(200ms);
  struct lie {
    std::string name, title, what;
  };
  const std::vector<lie> lies{
      {"critical", "critical sections that never end",
       "a critical_section over each poll of 30 ms, in which checkpoints do nothing"},
      {"sleeper", "sleeps in the kernel", "20 ms of sleep in each poll, which take no CPU time"},
      {"under_stall", "polls just under the stall threshold",
       "four tasks, each poll 4.8 ms of work; the threshold is 5 ms"},
      {"under_yield", "polls just under the yield threshold",
       "one task, each poll 19 ms of work; the threshold is 20 ms"},
      {"under_budget", "use just under the budget",
       "eight tasks, each 0.28 ms of work in every 3 ms; the budget is 0.3 ms"}};
  for (const lie& one : lies) {
    variant_spec v;
    v.name = one.name;
    v.title = one.title;
    v.parameters = {{"workers", 1},
                    {"load", one.what},
                    {"duration_ms", length.count()},
                    {"pulse_spare_workers", 1}};
    v.arms = worker_arms(with, {"liar", "--variant", one.name, "--workers", "1", "--duration-ms",
                                fmt::to_string(length.count())});
    add_probe(v);
    v.metrics.push_back({"lies", "polls of these handlers", "", "none", false, "lies"});
    v.metrics.push_back({"lies_reported_share", "of these detected by asio-pulse", "%", "none",
                         false, "lies_noticed_percent"});
    add_counts(v.metrics, {"stalls", "stalls_blocked", "critical_overstays", "checkpoint_yields",
                           "yields", "promotions", "reports_made", "spares_started"});
    result.variants.push_back(std::move(v));
  }
  result.notes = {
      "The options are the defaults, except for spare_workers = 1 and no limit on reports, so that "
      "every report can be counted. A poll counts as detected if it was found stuck while it ran, "
      "or if a critical section lasted too long. A poll below every threshold has an effect only "
      "on the budget (yields).",
      "under_stall: the debt of a task is limited to one more burst. So the debt of a long poll is "
      "paid while the three other tasks run, and none of them is held back.",
      "asio-pulse permits handlers that stay below all thresholds and budgets. For these it can be "
      "no better than plain Boost.Asio."};
  return result;
}

scenario_spec latency(const settings& with) {
  scenario_spec result;
  result.title = "Requests at a fixed rate";
  const auto length = with.length(300ms);
  for (const int rate : {2000, 8000}) {
    variant_spec v;
    v.name = fmt::format("{}/s", rate);
    v.title = fmt::format("{} requests a second", rate);
    v.parameters = {{"workers", 1}, {"rate_per_s", rate},  {"request_us", 20},
                    {"hog_ms", 20}, {"hog_every_ms", 100}, {"duration_ms", length.count()}};
    const words arguments{"latency",
                          "--workers",
                          "1",
                          "--rate",
                          fmt::to_string(rate),
                          "--duration-ms",
                          fmt::to_string(length.count())};
    v.arms = worker_arms(with, arguments);
    add_peers(v.arms, with, arguments);
    v.metrics = lateness_metrics("latency", "latency");
    v.metrics.push_back({"uncorrected_p99_ms", "p99 from the actual start", "ms", "none", false,
                         "uncorrected", 0.99, 1e6});
    v.distributions = {{"latency", "latency", "ms", "latency", 1e6}};
    result.variants.push_back(std::move(v));
  }
  result.notes = {
      "An open loop: requests arrive on schedule, whether or not earlier ones were served. Latency "
      "counts from the scheduled arrival, so that requests which a stalled generator would not "
      "have sent are included (no coordinated omission). \"From the actual start\" is the result "
      "of a measurement that leaves them out.",
      "The hog computes 20 ms in every 100 ms. With asio-pulse it has a budget of 0.5 ms in 2.5 "
      "ms, and checkpoints."};
  return result;
}

scenario_spec defaults(const settings& with) {
  scenario_spec result;
  result.title = "A server with the default options";
  const auto length = with.length(600ms);
  struct load {
    std::string name, title;
    int workers, chains, piece_us, connections, rate;
  };
  const std::vector<load> loads{
      {"2ms/15%", "pieces of 2 ms, one connection of 15 %", 1, 10, 2000, 1, 3000},
      {"0.2ms/15%", "pieces of 0.2 ms, one connection of 15 %", 1, 10, 200, 1, 3000},
      {"2ms/40%", "pieces of 2 ms, four connections of 10 % each", 1, 4, 2000, 4, 8000},
      {"2ms/15%/2", "pieces of 2 ms, one connection of 15 %, two workers", 2, 10, 2000, 1, 3000}};
  for (const load& one : loads) {
    variant_spec v;
    v.name = one.name;
    v.title = one.title;
    v.parameters = {{"workers", one.workers},       {"chains", one.chains},
                    {"piece_us", one.piece_us},     {"connections", one.connections},
                    {"requests_per_s", one.rate},   {"request_us", 50},
                    {"duration_ms", length.count()}};
    v.arms = worker_arms(
        with, {"defaults", "--workers", fmt::to_string(one.workers), "--tasks",
               fmt::to_string(one.chains), "--piece-us", fmt::to_string(one.piece_us),
               "--connections", fmt::to_string(one.connections), "--rate", fmt::to_string(one.rate),
               "--duration-ms", fmt::to_string(length.count())});
    v.metrics = lateness_metrics("latency", "latency");
    v.metrics.push_back({"unanswered", "unanswered requests", "", "lower", false, "unanswered"});
    add_counts(v.metrics, {"yields", "promotions", "reports_made"});
    v.distributions = {{"latency", "latency", "ms", "latency", 1e6}};
    result.targets.push_back({one.title + ": p99 over Boost.Asio's", one.name, "latency_p99_ms",
                              "pulse", reading::ratio, "lower", 1.1});
    result.variants.push_back(std::move(v));
  }
  result.notes = {
      "Chains of handlers that belong to no task post themselves again, and keep the workers busy "
      "all the time. The connections send bursts of eight requests of 50 us on schedule, even if "
      "earlier ones were not answered. Latency is measured from the scheduled time.",
      "asio-pulse runs with its defaults. Requests that plain Boost.Asio serves in time must be "
      "served in time here, too."};
  return result;
}

}  // namespace pulse_bench
