// SPDX-License-Identifier: BSL-1.0
//
// The scenario `shards`: contexts with one thread each, beside one context that as many threads run.

#include "catalogue_parts.hpp"

#include <algorithm>

namespace pulse_bench {

using namespace std::chrono_literals;

namespace {

metric_spec figure(const std::string& name, const std::string& label, const std::string& unit,
                   const std::string& better, bool headline = false) {
  return {name, label, unit, better, headline, name};
}

/// A part that bench_worker runs, with these arguments after its variant.
variant_spec make(const settings& with, const std::string& name, const std::string& title,
                  words arguments, int repetitions) {
  variant_spec v;
  v.name = name;
  v.title = title;
  v.warm_up = false;  // each program settles before it measures
  v.repetitions = std::min(repetitions, with.repetitions);
  arguments.insert(arguments.begin(), {"shards", "--variant", name});
  v.arms = worker_arms(with, arguments);
  v.arms[1].label = "asio-pulse, shards";
  return v;
}

void posts(const settings& with, scenario_spec& to) {
  const auto length = with.length(450ms);
  const words arguments{"--workers", "2", "--duration-ms", fmt::to_string(length.count())};
  variant_spec v = make(with, "posts", "16 chains of posts, two threads", arguments, 5);
  v.parameters = {{"threads", 2}, {"chains", 16}, {"duration_ms", length.count()}};
  arm_spec one = v.arms[0];
  one.name = "stock1";
  one.label = "Boost.Asio, one thread";
  *std::find(one.command.begin(), one.command.end(), "2") = "1";
  v.arms.push_back(std::move(one));
  v.metrics = {figure("per_s", "handlers", "1/s", "higher", true),
               figure("wall_ns", "a handler, by the wall clock", "ns", "lower"),
               figure("cpu_ns", "a handler, CPU time", "ns", "lower"),
               figure("over_one_thread", "throughput over one thread or shard", "x", "higher")};
  to.targets.push_back({"16 chains of posts on two threads: throughput over Boost.Asio's", v.name,
                        "per_s", "pulse", reading::ratio, "higher", 8});
  to.targets.push_back({"16 chains of posts: two shards over one", v.name, "over_one_thread",
                        "pulse", reading::median, "higher", 1.9});
  to.variants.push_back(std::move(v));
}

void http_calm(const settings& with, scenario_spec& to) {
  const long seconds = web_seconds(with, 1);
  variant_spec v =
      web_variant("http", "a web server, two threads, fast requests only", false, seconds);
  v.parameters = {{"fast_connections", 16}, {"seconds", seconds}};
  struct arm {
    std::string name, label, which, threads;
    arm_kind kind;
  };
  for (const arm& one : {arm{"stock", "Boost.Asio", "stock", "2", arm_kind::baseline},
                         arm{"stock1", "Boost.Asio, one thread", "stock", "1", arm_kind::baseline},
                         arm{"pulse", "asio-pulse, shards", "pulse+shards", "2", arm_kind::ours}}) {
    v.arms.push_back(
        {one.name, one.label, one.kind, web_command(with, one.which, one.threads, false, seconds)});
  }
  v.metrics = {{"server_cpu_us", "server's CPU a request", "us", "lower", true, "cpu_us"},
               {"fast_per_s", "requests answered", "1/s", "higher", false, "fast/s"},
               {"fast_p50_ms", "p50", "ms", "lower", false, "p50"},
               {"fast_p99_ms", "p99", "ms", "lower", false, "p99"}};
  to.targets.push_back({"web server: CPU a request over Boost.Asio's with two threads", v.name,
                        "server_cpu_us", "pulse", reading::ratio, "lower", 0.85});
  to.targets.push_back({"web server: throughput over Boost.Asio's with two threads", v.name,
                        "fast_per_s", "pulse", reading::ratio, "higher", 1});
  to.variants.push_back(std::move(v));
}

void messages(const settings& with, scenario_spec& to) {
  variant_spec message =
      make(with, "message", "messages to a shard that runs", {"--handlers", "300000"}, 5);
  message.parameters = {{"messages", 300'000}, {"burst", 200}};
  message.metrics = {figure("message_ns", "a message, one way", "ns", "lower", true)};
  to.targets.push_back({"message to a running shard, one way, in bursts, ns", message.name,
                        "message_ns", "pulse", reading::median, "lower", 150});
  to.variants.push_back(std::move(message));

  variant_spec wake =
      make(with, "wake", "messages to a shard that sleeps", {"--handlers", "6000"}, 5);
  wake.parameters = {{"messages", 6'000}, {"pinned", true}};
  wake.metrics = {
      figure("wake_us", "a message until it runs", "us", "lower"),
      figure("eventfd_us", "write(eventfd) until epoll_wait() and read()", "us", "none"),
      figure("over_eventfd", "a message over the eventfd", "x", "lower", true)};
  to.targets.push_back({"wake of a sleeping shard over an eventfd's write and wake", wake.name,
                        "over_eventfd", "pulse", reading::median, "lower", 1.2});
  to.variants.push_back(std::move(wake));
}

void costs(const settings& with, scenario_spec& to) {
  variant_spec overhead = make(with, "overhead", "handlers of 10 us", {"--handlers", "12000"}, 3);
  overhead.parameters = {{"handler_us", 10}, {"chains", 16}, {"handlers", 12'000}};
  overhead.metrics = {
      figure("overhead_percent", "time outside handlers and kernel", "%", "lower", true),
      figure("gap_ns", "between two handlers", "ns", "lower"),
      figure("gap_ns/no_tasks", "of one task instead of 16", "ns", "none"),
      figure("gap_ns/no_watchdog", "and without the watchdog", "ns", "none"),
      figure("gap_ns/off", "and with options::enabled = false", "ns", "none")};
  to.targets.push_back({"scheduling overhead at handlers of 10 us, percent of the CPU",
                        overhead.name, "overhead_percent", "pulse", reading::median, "lower", 1});
  to.variants.push_back(std::move(overhead));

  variant_spec polls = make(with, "polls", "cost of a poll, by tasks and shards", {}, 2);
  polls.arms.erase(polls.arms.begin());
  polls.limit_s = 120;
  polls.parameters = {{"most_tasks", 1'000'000}, {"polled_a_shard", 100}};
  polls.metrics = {figure("switch_ns", "from one task to the next, CPU time", "ns", "lower", true),
                   figure("ratio_tasks", "1 000 000 tasks over 100", "x", "lower"),
                   figure("ratio_shards", "8 shards over one", "x", "lower"),
                   figure("ns_1/1000000", "one shard, 1 000 000 tasks", "ns", "lower"),
                   figure("ns_8/1000000", "8 shards, 1 000 000 tasks", "ns", "lower")};
  polls.series = {{"one", "a poll, one shard", "tasks alive", "ns a poll", "ns_1/"},
                  {"two", "a poll, two shards", "tasks alive", "ns a poll", "ns_2/"},
                  {"eight", "a poll, 8 shards", "tasks alive", "ns a poll", "ns_8/"}};
  to.targets.push_back({"switch from one task to the next on a shard, ns", polls.name, "switch_ns",
                        "pulse", reading::median, "lower", 50});
  to.targets.push_back({"cost of a poll, 1 000 000 tasks over 100", polls.name, "ratio_tasks",
                        "pulse", reading::median, "lower", 1.1});
  to.targets.push_back({"cost of a poll, 8 shards over one", polls.name, "ratio_shards", "pulse",
                        reading::median, "lower", 1.1});
  to.variants.push_back(std::move(polls));

  if (std::filesystem::exists(with.programs / "bench_micro_pulse")) {
    variant_spec fiber;
    fiber.name = "fiber";
    fiber.title = "a fiber's switch, by Google Benchmark";
    fiber.output = format::google_benchmark;
    fiber.verification = "no switch was lost";
    fiber.arms = {{"pulse",
                   "asio-pulse",
                   arm_kind::ours,
                   {(with.programs / "bench_micro_pulse").string(), "--benchmark_format=json",
                    "--benchmark_min_time=0.02", "--benchmark_filter=loop|fiber_switch"}}};
    fiber.metrics = {{"fiber_switch", "there and back", "ns", "lower", true, "fiber_switch"}};
    to.targets.push_back({"switch to a fiber and back, ns (two switches)", fiber.name,
                          "fiber_switch", "pulse", reading::median, "lower", 50});
    to.variants.push_back(std::move(fiber));
  }

  variant_spec memory = make(with, "memory", "32 shards that have nothing to do", {}, 3);
  memory.arms.erase(memory.arms.begin());
  memory.parameters = {{"shards", 32}};
  memory.metrics = {figure("resident_kib", "resident memory a shard", "KiB", "lower", true),
                    figure("allocated_kib", "of that, allocated", "KiB", "lower")};
  to.targets.push_back({"memory of an idle shard, KiB", memory.name, "resident_kib", "pulse",
                        reading::median, "lower", 1024});
  to.variants.push_back(std::move(memory));
}

void moving(const settings& with, scenario_spec& to) {
  const int requests = with.quick ? 20'000 : 80'000;
  variant_spec v = make(with, "moving", "connections that move under load",
                        {"--handlers", fmt::to_string(requests)}, 5);
  v.arms.erase(v.arms.begin());
  v.parameters = {{"connections", 16}, {"requests", requests}, {"moves", requests / 4}};
  v.metrics = {{"move_p50_us", "a move, until the session goes on there, p50", "us", "lower", true,
                "move", 0.5, 1e3},
               {"move_p99_us", "p99", "us", "lower", false, "move", 0.99, 1e3},
               figure("requests_per_s", "requests answered", "1/s", "higher"),
               figure("moves", "moves", "", "none")};
  v.distributions = {{"move", "a move", "us", "move", 1e3}};
  to.targets.push_back({"moving a connection under load, us", v.name, "move_p50_us", "pulse",
                        reading::median, "lower", 50});
  to.variants.push_back(std::move(v));
}

// With `alone`: the slow requests have gone on for so long before the first fast one. Without, the sessions
// that have slow requests are not known yet.
void http_slow(const settings& with, scenario_spec& to, std::chrono::milliseconds alone) {
  const long seconds = web_seconds(with, 2);
  const bool start = alone.count() == 0;
  variant_spec v = web_variant(
      start ? "http_slow_start" : "http_slow",
      fmt::format("a web server, two threads, with slow requests that have no checkpoint, {}",
                  start ? "from the first of these on" : "which began 2 s before"),
      true, seconds);
  v.repetitions = std::min(4, with.repetitions);
  v.parameters = {{"fast_connections", 16},
                  {"slow_connections", 4},
                  {"slow_ms", 50},
                  {"seconds", seconds},
                  {"slow_alone_ms", alone.count()}};
  struct arm {
    std::string name, label, which;
    arm_kind kind;
  };
  for (const arm& one :
       {arm{"stock", "Boost.Asio", "stock", arm_kind::baseline},
        arm{"still", "asio-pulse, shards, nothing moves", "pulse+shards-slow", arm_kind::peer},
        arm{"pulse", "asio-pulse, shards, movable", "pulse+movable", arm_kind::ours}}) {
    words command = web_command(with, one.which, "2", true, seconds);
    if (!start) command.insert(command.end(), {"--alone", fmt::to_string(alone.count())});
    v.arms.push_back({one.name, one.label, one.kind, std::move(command)});
  }
  v.metrics = {{"fast_p99_ms", "fast request, p99", "ms", "lower", true, "p99"},
               {"fast_max_ms", "fast request, worst", "ms", "lower", false, "max"},
               {"fast_p50_ms", "fast request, p50", "ms", "lower", false, "p50"},
               {"fast_per_s", "fast requests answered", "1/s", "higher", false, "fast/s"},
               {"slow_per_s", "slow requests answered", "1/s", "higher", false, "hogs/s"}};
  if (!start) {
    to.targets.push_back({"fast p99 beside slow requests, movable, ms", v.name, "fast_p99_ms",
                          "pulse", reading::median, "lower", 5});
  }
  to.variants.push_back(std::move(v));
}

void simulations(const settings& with, scenario_spec& to) {
  const auto length = with.length(250ms);
  variant_spec model = make(with, "model", "the model beside two real shards",
                            {"--duration-ms", fmt::to_string(length.count())}, 3);
  model.arms.erase(model.arms.begin());
  model.parameters = {{"request_us", 20}, {"utilisation", 0.6}, {"duration_ms", length.count()}};
  model.metrics = {
      figure("p99_difference_percent", "delay, p99: real over model", "%", "none", true),
      figure("p50_difference_percent", "p50", "%", "none"),
      figure("mean_difference_percent", "mean", "%", "none"),
      figure("real_p99_us", "p99, real", "us", "none"),
      figure("model_p99_us", "p99, model", "us", "none")};
  to.targets.push_back({"p99 of the queue delay on two real shards, percent above the model's",
                        model.name, "p99_difference_percent", "pulse", reading::median, "lower",
                        25});
  to.variants.push_back(std::move(model));

  variant_spec sticky =
      make(with, "sticky", "one shard gets more load than it can serve (simulated)", {}, 1);
  sticky.arms.erase(sticky.arms.begin());
  sticky.parameters = {{"shards", "2, 8, 32 and 64"}, {"load_of_the_shard", 1.2}, {"seeds", 5}};
  sticky.metrics = {figure("balanced_ms", "until all are within 15 %", "ms", "lower", true),
                    figure("moves_a_second", "moves a second, from 1 s after it", "1/s", "lower")};
  sticky.series = {{"balanced", "until within 15 %", "shards", "ms", "balanced_ms/"}};
  to.targets.push_back({"sticky overload: balanced to within 15 % after, ms (simulated)",
                        sticky.name, "balanced_ms", "pulse", reading::median, "lower", 200});
  to.targets.push_back({"sticky overload: then moves a second (simulated)", sticky.name,
                        "moves_a_second", "pulse", reading::median, "lower", 1});
  to.variants.push_back(std::move(sticky));

  variant_spec many;
  many.name = "simulation";
  many.title = "2 to 256 threads and a million connections (simulated)";
  many.warm_up = false;
  many.repetitions = 1;
  many.limit_s = 120;
  many.parameters = {{"connections", 1'000'000},
                     {"request_us", 20},
                     {"utilisation", 0.6},
                     {"zipf", 0.9},
                     {"handler_ns", 20},
                     {"lock_ns", 90},
                     {"steal_ns", 60},
                     {"wake_us", 6},
                     {"move_us", 30}};
  struct arm {
    std::string name, label, variant;
    arm_kind kind;
  };
  const std::string worker = (with.programs / "bench_worker_pulse").string();
  for (const arm& one : {arm{"stock", "one queue", "simulate-queue", arm_kind::baseline},
                         arm{"stealing", "work stealing", "simulate-stealing", arm_kind::peer},
                         arm{"still", "shards, nothing moves", "simulate-still", arm_kind::peer},
                         arm{"pulse", "shards", "simulate", arm_kind::ours}}) {
    many.arms.push_back(
        {one.name, one.label, one.kind, {worker, "shards", "--variant", one.variant}});
  }
  many.metrics = {
      figure("delay_p99_ms", "queue delay, p99, 256 threads", "ms", "lower", true),
      figure("imbalance_percent", "most loaded shard above the mean, 256 shards", "%", "lower"),
      figure("moves_a_second", "moves a second, 256 shards", "1/s", "lower"),
      figure("overhead_percent", "overhead, 256 threads, handlers of 10 us, saturated", "%",
             "lower"),
      figure("linear", "work of a thread among 256 over that among 2, saturated", "x", "higher"),
      figure("slow_p99_ms", "8 threads, 8 connections with requests of 50 ms: others' p99", "ms",
             "lower"),
      figure("small_tenant_p99_ms", "16 threads, a tenant beside a flood: p99", "ms", "lower"),
      figure("decide_ns/256", "a decision, 256 shards", "ns", "lower")};
  many.series = {
      {"p99", "queue delay, p99", "threads", "ms", "delay_p99_ms/"},
      {"imbalance", "most loaded shard above the mean", "shards", "%", "imbalance_percent/"},
      {"moves", "moves a second", "shards", "1/s", "moves_a_second/"},
      {"work", "work of a thread, saturated, handlers of 10 us", "threads", "% of a CPU",
       "work_a_cpu_percent/"}};
  to.targets.push_back({"scheduling overhead, 256 shards, percent (simulated)", many.name,
                        "overhead_percent", "pulse", reading::median, "lower", 1});
  to.targets.push_back({"linear in cores: work of a shard among 256 over that among 2 (simulated)",
                        many.name, "linear", "pulse", reading::median, "higher", 0.95});
  to.variants.push_back(std::move(many));
}

}  // namespace

scenario_spec shards(const settings& with) {
  scenario_spec result;
  result.title = "Shards";
  posts(with, result);
  http_calm(with, result);
  http_slow(with, result, std::chrono::seconds{2});
  http_slow(with, result, {});
  messages(with, result);
  moving(with, result);
  costs(with, result);
  simulations(with, result);
  result.notes = {
      "Posts: each chain posts itself. \"Boost.Asio\" is one io_context that two threads run.",
      "NOT MEASURED: sticky keys on real shards. What the decisions alone do is in the simulated "
      "row.",
      "Slow requests: 50 ms of SHA-256 without a checkpoint, in all arms, on four connections "
      "beside 16 that ask for fast ones. wrk runs on the server's CPUs.",
      "Messages and wakes: plain Boost.Asio posts to another io_context, which one thread runs. "
      "Both threads are pinned, also those of the eventfd.",
      "Overhead: from the end of one handler to the beginning of the next on one thread, without "
      "the clock reading. What is longer than 3 us was the kernel's.",
      "Simulations run the decision code of the library (placement, shard_balancer, fair_policy); "
      "queues, CPUs and costs are a model. One queue: the mutex is held for 90 ns for a push, and "
      "again for a pop, as plain Boost.Asio does with two threads; that it gets slower with more "
      "is left out. Work stealing: 60 ns to look into another thread's queue. Connections are "
      "placed by key, and 2 % of them are replaced in a second. A single queue or work stealing "
      "has no imbalance."};
  return result;
}

}  // namespace pulse_bench
