// SPDX-License-Identifier: BSL-1.0
//
// The scenarios that run other programs (http, overhead), and the long ones (scale, soak).

#include "catalogue_parts.hpp"

#include <algorithm>
#include <cmath>

namespace pulse_bench {

using namespace std::chrono_literals;

namespace {

std::string program(const settings& with, const std::string& name) {
  return (with.programs / name).string();
}

/// One case of poll_path. \p limit is on \p how; 0: there is no target.
struct poll_case {
  std::string name;
  std::string title;
  int operations;
  reading how;
  double limit;
};

const std::vector<poll_case>& poll_cases() {
  static const std::vector<poll_case> cases{
      {"post_hint_1", "post chain, one thread", 100'000, reading::difference, 10},
      {"post", "post chain, default hint", 100'000, reading::difference, 10},
      {"co_await_post", "co_await post loop", 30'000, reading::ratio, 1.10},
      {"strand_post", "post chain in a strand", 30'000, reading::ratio, 1.35},
      {"ping_pong", "ping-pong over a socket pair", 3'000, reading::ratio, 1.02},
      {"poll_idle", "poll() that finds nothing", 30'000, reading::ratio, 1.3},
      {"poll_post", "post() and poll()", 30'000, reading::ratio, 1.3}};
  return cases;
}

variant_spec poll_variant(const settings& with, const poll_case& one) {
  variant_spec v;
  v.name = one.name;
  v.title = one.title;
  v.output = format::figures;
  v.verification = "every operation ran, and asio-pulse accounted for it";
  v.parameters = {{"operations", one.operations}, {"rounds", 5}};
  const words arguments{one.name, fmt::to_string(one.operations), "5"};
  const auto arm = [&](const char* name, const char* label, arm_kind kind, const char* file) {
    words command{program(with, file)};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return arm_spec{name, label, kind, std::move(command)};
  };
  v.arms = {arm("stock", "Boost.Asio", arm_kind::baseline, "poll_path_stock"),
            arm("pulse", "asio-pulse, no watchdog", arm_kind::ours, "poll_path_pulse"),
            arm("watched", "asio-pulse, as by default", arm_kind::ours, "poll_path_pulse")};
  v.arms[2].command.emplace_back("watched");
  v.metrics = {{"cpu_ns", "CPU time an operation", "ns", "lower", true, "ns"}};
  return v;
}

/// The figures of Google Benchmark that the micro benches print, with their targets; 0: no target.
struct part {
  std::string name;
  std::string label;
  double limit;
};

const std::vector<part>& parts() {
  static const std::vector<part> all{{"loop", "empty loop", 0},
                                     {"clock_chained", "clock: end of one poll, begin of next", 10},
                                     {"clock_two_reads", "clock: stamp and take", 0},
                                     {"clock_thread_cputime", "CLOCK_THREAD_CPUTIME_ID instead", 0},
                                     {"budget_charge", "budget charge", 3},
                                     {"budget_charge_over", "budget charge, over budget", 0},
                                     {"hook_poll", "hook: a posted handler's whole poll", 0},
                                     {"hook_fire", "hook: a user's after_poll called", 0},
                                     {"should_yield", "should_yield(), not wanted", 1},
                                     {"checkpoint", "co_await checkpoint(), not wanted", 1},
                                     {"fiber_switch", "fiber: switch there and back", 0},
                                     {"tier_calm", "tier decision: a task that behaves", 0},
                                     {"tier_offence", "tier decision: an offence", 0}};
  return all;
}

variant_spec parts_variant(const settings& with) {
  variant_spec v;
  v.name = "parts";
  v.title = "the parts of a poll, by Google Benchmark";
  v.output = format::google_benchmark;
  v.verification = "each benchmark checked what it had computed";
  v.parameters = {{"min_time_s", 0.01}};
  v.arms = {{"pulse",
             "asio-pulse",
             arm_kind::ours,
             {program(with, "bench_micro_pulse"), "--benchmark_format=json",
              "--benchmark_min_time=0.01"}}};
  for (const part& one : parts()) {
    v.metrics.push_back({one.name, one.label, "ns", "lower", one.name == "checkpoint", one.name});
    if (one.name != "loop") v.metrics.back().minus = "loop";
  }
  return v;
}

}  // namespace

scenario_spec http(const settings& with) {
  scenario_spec result;
  result.title = "A web server with slow requests";
  const long seconds = web_seconds(with, 1);
  for (const bool hogs : {true, false}) {
    variant_spec v =
        web_variant(hogs ? "hogs/2" : "calm/2",
                    hogs ? "two threads, with slow requests" : "two threads, fast requests only",
                    hogs, seconds);
    v.parameters = {{"threads", 2},
                    {"fast_connections", 16},
                    {"hog_connections", hogs ? 4 : 0},
                    {"hog_ms", hogs ? 50 : 0},
                    {"seconds", seconds}};
    for (const std::string arm : {"stock", "pulse"}) {
      v.arms.push_back({arm, arm == "stock" ? "Boost.Asio" : "asio-pulse",
                        arm == "stock" ? arm_kind::baseline : arm_kind::ours,
                        web_command(with, arm, "2", hogs, seconds)});
    }
    v.metrics = {{"fast_p50_ms", "fast request, p50", "ms", "lower", false, "p50"},
                 {"fast_p99_ms", "fast request, p99", "ms", "lower", hogs, "p99"},
                 {"fast_max_ms", "fast request, worst", "ms", "lower", false, "max"},
                 {"fast_per_s", "fast requests answered", "1/s", "higher", !hogs, "fast/s"}};
    if (hogs) {
      v.metrics.push_back(
          {"hogs_per_s", "slow requests answered", "1/s", "higher", false, "hogs/s"});
    }
    v.metrics.push_back({"server_cpu_us", "server's CPU a fast request", "us",
                         hogs ? "none" : "lower", false, "cpu_us"});
    add_counts(v.metrics, {"pulse.checkpoint_yields", "pulse.yields", "pulse.reports"});
    result.variants.push_back(std::move(v));
  }
  result.targets = {{"fast p99 beside slow requests, over Boost.Asio's", "hogs/2", "fast_p99_ms",
                     "pulse", reading::ratio, "lower", 0.05},
                    {"fast throughput beside slow requests, over Boost.Asio's", "hogs/2",
                     "fast_per_s", "pulse", reading::ratio, "higher", 1},
                    {"fast throughput without slow requests, over Boost.Asio's", "calm/2",
                     "fast_per_s", "pulse", reading::ratio, "higher", 0.98}};
  result.notes = {
      "GET /fast is a small JSON document, GET /hog 50 ms of SHA-256. wrk runs on the server's "
      "CPUs and sends requests over loopback. It is a closed loop: a frozen server gets fewer "
      "requests, and so looks better than it is.",
      "asio-pulse: a budget of 2 ms in 10 ms and a checkpoint in the slow loop."};
  return result;
}

scenario_spec checkpoints(const settings& with) {
  scenario_spec result;
  result.title = "Checkpoints that the compiler wrote";
  for (const std::string work : {"regex", "sort", "json", "matmul"}) {
    variant_spec v;
    v.name = work;
    v.title = work + " of half a second, unmodified, on the timer's thread";
    v.output = format::figures;
    v.verification = "the work had the right result";
    v.parameters = {{"quantum_us", 100}, {"rounds", 2}};
    const auto arm = [&](const char* name, const char* label, arm_kind kind, const char* file,
                         bool plain) {
      words command{program(with, file), work, "2"};
      if (plain) command.emplace_back("plain");
      return arm_spec{name, label, kind, std::move(command)};
    };
    v.arms = {arm("stock", "without checks", arm_kind::baseline, "checkpoints_without", true),
              arm("with", "with checks, on a fiber", arm_kind::ours, "checkpoints_with", false),
              arm("plain", "with checks, on the thread", arm_kind::ours, "checkpoints_with", true)};
    v.metrics = {{"late_p50_ms", "timer late, p50", "ms", "lower", false, "p50"},
                 {"late_p99_ms", "timer late, p99", "ms", "lower", true, "p99"},
                 {"late_max_ms", "timer late, worst", "ms", "lower", false, "max"},
                 {"work_ms", "CPU time of the work", "ms", "lower", false, "work_ms"},
                 {"suspended", "suspensions", "", "none", false, "suspended"}};
    result.variants.push_back(std::move(v));
    result.targets.push_back({work + ": timer late, p99, ms", work, "late_p99_ms", "with",
                              reading::median, "lower", 0.3});
    result.targets.push_back({work + ": timer late, worst, ms", work, "late_max_ms", "with",
                              reading::median, "lower", 2});
    result.targets.push_back({work + ": CPU time, over without checks", work, "work_ms", "plain",
                              reading::ratio, "lower", 1.08});
  }
  for (const int threads : {1, 2}) {
    // The four slow requests share what is left of one thread: none of them is answered in a second.
    const auto seconds = std::max<long>(threads == 1 ? 4 : 1, std::lround(with.seconds));
    variant_spec v;
    v.name = fmt::format("http/{}", threads);
    v.title = fmt::format("a web server with slow requests, {} thread{}", threads,
                          threads == 1 ? "" : "s");
    v.output = format::figures;
    v.verification =
        "every digest was the right one, every fast answer had its length and status 200";
    v.warm_up = false;
    v.limit_s = 60 + static_cast<int>(std::min<long>(seconds, 86400));
    v.parameters = {{"threads", threads}, {"hog_ms", 50}, {"seconds", seconds}};
    // The baseline is not plain Boost.Asio here, but the same server with checkpoints by hand.
    const auto arm = [&](const char* name, const char* label, arm_kind kind, const char* server) {
      v.arms.push_back({name,
                        label,
                        kind,
                        {"python3", "-B", (with.source / "support" / "main_job.py").string(),
                         "--build", with.programs.parent_path().string(), "--one", server,
                         "--threads", fmt::to_string(threads), "--seconds", fmt::to_string(seconds),
                         "--rounds", with.http_rounds, "--hogs"}});
    };
    arm("stock", "a budget, checkpoints by hand", arm_kind::baseline, "pulse");
    arm("budgeted", "a budget, checkpoints by the compiler", arm_kind::ours, "budgeted");
    arm("automatic", "no budget, checkpoints by the compiler", arm_kind::ours, "automatic");
    v.metrics = {{"fast_p50_ms", "fast request, p50", "ms", "lower", false, "p50"},
                 {"fast_p99_ms", "fast request, p99", "ms", "lower", true, "p99"},
                 {"fast_max_ms", "fast request, worst", "ms", "lower", false, "max"},
                 {"fast_per_s", "fast requests answered", "1/s", "higher", false, "fast/s"},
                 {"hogs_per_s", "slow requests answered", "1/s", "higher", false, "hogs/s"}};
    result.targets.push_back(
        {fmt::format("fast p99, {} thread{}, over by hand", threads, threads == 1 ? "" : "s"),
         v.name, "fast_p99_ms", "budgeted", reading::ratio, "lower", 1.2});
    result.variants.push_back(std::move(v));
  }
  result.notes = {
      "One thread. The work is compiled as it is, with checks and without. Both programs count "
      "locks, and cut large memory functions into pieces (asio_pulse::lock_count, "
      "asio_pulse::chunked_memory).",
      "The compiler is that of the build. For another one, configure another folder with "
      "CMAKE_CXX_COMPILER, and give it to benches/run --build."};
  return result;
}

scenario_spec overhead(const settings& with) {
  scenario_spec result;
  result.title = "What it costs";
  for (const poll_case& one : poll_cases()) {
    result.variants.push_back(poll_variant(with, one));
    if (one.limit == 0) continue;
    const bool ratio = one.how == reading::ratio;
    result.targets.push_back({one.title + (ratio ? ", over Boost.Asio's" : ", ns added"), one.name,
                              "cpu_ns", "pulse", one.how, "lower", one.limit});
  }
  if (std::filesystem::exists(with.programs / "bench_micro_pulse")) {
    result.variants.push_back(parts_variant(with));
    for (const part& one : parts()) {
      if (one.limit == 0) continue;
      result.targets.push_back(
          {one.label + ", ns", "parts", one.name, "pulse", reading::median, "lower", one.limit});
    }
  }
  result.notes = {
      "CPU time; each repetition is the median of five rounds. By default a watchdog thread runs. "
      "It disables the C library's shortcuts for single-threaded programs, which is most of the "
      "cost that it adds.",
      "The time of the empty loop is subtracted from the parts."};
  return result;
}

scenario_spec scale(const settings& with) {
  scenario_spec result;
  result.title = "From one task to a million";
  for (const int workers : {1, 2}) {
    variant_spec v;
    v.name = fmt::format("workers/{}", workers);
    v.title = workers == 1 ? "one worker" : "two workers";
    v.limit_s = 120;
    v.warm_up = false;                              // each program warms itself up
    v.repetitions = std::min(with.repetitions, 4);  // a repetition takes 3 s
    v.parameters = {{"workers", workers}, {"most_tasks", 1'000'000}};
    v.arms = worker_arms(with, {"scale", "--workers", fmt::to_string(workers)});
    v.metrics = {
        {"cost_ratio", "a poll, 1 000 000 tasks over 100", "x", "lower", true, "fixed_ratio"},
        {"cost_100", "a poll, 100 tasks", "ns", "lower", false, "fixed_ns/100"},
        {"cost_1000000", "a poll, 1 000 000 tasks", "ns", "lower", false, "fixed_ns/1000000"},
        {"all_ratio", "all by turns, 1 000 000 over 100", "x", "lower", false, "all_ratio"},
        {"all_1000000", "all by turns, 1 000 000 tasks", "ns", "lower", false, "all_ns/1000000"},
        {"memory_task", "memory a task, 1 000 000 tasks", "bytes", "lower", false,
         "bytes_a_task/1000000"}};
    v.series = {
        {"cost_per_poll", "a poll, of 100 tasks among so many", "tasks alive", "ns a poll",
         "fixed_ns/"},
        {"cost_per_poll_all", "a poll, all tasks by turns", "tasks alive", "ns a poll", "all_ns/"},
        {"memory_per_task", "memory a task", "tasks alive", "bytes", "bytes_a_task/"}};
    result.variants.push_back(std::move(v));
    result.targets.push_back({fmt::format("cost of a poll at 1 000 000 tasks over that at 100, {} "
                                          "worker{}",
                                          workers, workers == 1 ? "" : "s"),
                              fmt::format("workers/{}", workers), "cost_ratio", "pulse",
                              reading::median, "lower", 1.5});
  }
  result.notes = {
      "The given number of tasks is alive, each with its own budget and state. \"Of 100 tasks\": "
      "all polls are of the same 100 tasks, which are spread over all tasks. This shows the cost "
      "of the number of tasks itself, and the target is about it.",
      "\"All by turns\": one poll of each task, round robin. Most of the additional cost is memory "
      "that each poll touches for the first time in a round. Plain Boost.Asio, which has no tasks, "
      "does the same with as many handlers, each with its own counter.",
      "CPU time of the whole process, including its watchdog, divided by the number of polls. The "
      "median of nine rounds; of three for \"all by turns\", and of one with a million tasks."};
  return result;
}

scenario_spec soak(const settings& with) {
  scenario_spec result;
  result.title = "A mixed load for a long time";
  variant_spec v;
  v.name = "mixed/2";
  v.title = "two workers";
  v.repetitions = 1;
  v.warm_up = false;
  const auto length = with.seconds > 0 ? std::chrono::milliseconds{std::lround(with.seconds * 1000)}
                      : with.quick     ? std::chrono::milliseconds{5s}
                                       : std::chrono::milliseconds{30s};
  v.limit_s = static_cast<int>(length.count() / 1000) + 60;
  v.parameters = {{"workers", 2}, {"seconds", static_cast<double>(length.count()) / 1000}};
  v.arms = worker_arms(with,
                       {"soak", "--workers", "2", "--duration-ms", fmt::to_string(length.count())});
  v.metrics = lateness_metrics("probe_lateness", "timer lateness");
  v.metrics.push_back({"growth_percent", "memory, last quarter over the second", "%", "lower",
                       false, "growth_percent"});
  v.metrics.push_back(
      {"handlers_per_s", "handlers and messages", "1/s", "higher", false, "handlers_per_s"});
  add_counts(v.metrics, {"yields", "strand_breaks", "checkpoint_yields", "promotions", "demotions",
                         "stalls", "tasks_made"});
  v.distributions = {{"probe_lateness", "timer lateness", "ms", "probe_lateness", 1e6}};
  v.series = {{"memory", "resident memory", "s", "KiB", "rss_kib/", false}};
  result.variants.push_back(std::move(v));
  result.targets = {{"growth of memory, percent", "mixed/2", "growth_percent", "pulse",
                     reading::median, "lower", 5}};
  result.notes = {
      "A hog with checkpoints, storms of posts and on a strand, messages over a socket "
      "pair, timers that are cancelled, and tasks that come and go. One long run."};
  return result;
}

}  // namespace pulse_bench
