// SPDX-License-Identifier: BSL-1.0
//
// Simulations of many shards, with the decision code of the library, and their model beside real shards.

#if !defined(BENCH_STOCK)

#include "../../../measure.hpp"
#include "../../simulator/simulation.hpp"
#include "shard_set.hpp"
#include "shards.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <memory>
#include <vector>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using simulation::kind;

// ---- the model beside real shards

/// Requests of a trace, on the shard that their keys name. What is not due is waited for without sleeping,
/// in turns of the queue.
class replayed {
 public:
  replayed(bench::io_context& io, std::vector<simulation::traced> trace)
      : io_{io}, trace_{std::move(trace)} {}

  void start(clock_type::time_point at) {
    start_ = at;
    asio::post(io_, [this] { turn(); });
  }
  const std::vector<std::int64_t>& delays() const { return delays_; }

 private:
  void turn() {
    const auto now = clock_type::now() - start_;
    for (; next_ != trace_.size() && trace_[next_].at <= now; ++next_) {
      asio::post(io_, [this, &request = trace_[next_]] {
        delays_.push_back((clock_type::now() - start_ - request.at).count());
        bench::spin(request.work);
      });
    }
    if (next_ != trace_.size()) asio::post(io_, [this] { turn(); });
  }

  bench::io_context& io_;
  std::vector<simulation::traced> trace_;
  std::vector<std::int64_t> delays_;
  clock_type::time_point start_;
  std::size_t next_ = 0;
};

simulation::distribution real_delays(const std::vector<simulation::traced>& trace, outcome& to) {
  asio_pulse::shard_options o;
  o.pinned = true;
  shard_set set{2, o};
  std::vector<std::vector<simulation::traced>> parts(2);
  for (const simulation::traced& t : trace)
    parts[asio_pulse::placer::by_key(std::uint64_t{t.key}, 2)].push_back(t);
  std::vector<std::unique_ptr<replayed>> all;
  for (std::size_t i = 0; i != 2; ++i)
    all.push_back(std::make_unique<replayed>(set.of(i), std::move(parts[i])));
  const auto start = clock_type::now() + 20ms;
  for (const auto& one : all) one->start(start);
  set.all().finish();
  set.run();
  simulation::distribution found;
  std::size_t count = 0;
  for (const auto& one : all) {
    for (const std::int64_t d : one->delays()) found.add(d);
    count += one->delays().size();
  }
  to.check(count == trace.size(), "each request was served");
  return found;
}

double difference_percent(double a, double b) { return 100 * (a / b - 1); }

}  // namespace

outcome shards_model(const request& r) {
  outcome result;
  simulation::settings s;
  s.load.connections = 200;
  s.load.zipf = 0.5;
  s.cost.wake = 50ns;  // these shards do not sleep
  s.cost.handler = 60ns;
  std::vector<double> p50;
  std::vector<double> p99;
  std::vector<double> mean;
  for (int round = 0; round != 5; ++round) {
    const auto trace =
        simulation::make_trace(s.load, 2, r.duration, 17U + static_cast<unsigned>(round));
    const simulation::distribution model = simulation::replay(trace, s);
    const simulation::distribution real = real_delays(trace, result);
    p50.push_back(difference_percent(real.quantile(0.5), model.quantile(0.5)));
    p99.push_back(difference_percent(real.quantile(0.99), model.quantile(0.99)));
    mean.push_back(difference_percent(real.mean(), model.mean()));
    result.values["model_p99_us"] = model.quantile(0.99) / 1000;
    result.values["real_p99_us"] = real.quantile(0.99) / 1000;
    result.values["model_mean_us"] = model.mean() / 1000;
    result.values["real_mean_us"] = real.mean() / 1000;
  }
  // Other programs on the CPUs can only delay requests.
  result.values["p50_difference_percent"] = bench::median(p50);
  result.values["p99_difference_percent"] = bench::median(p99);
  result.values["mean_difference_percent"] = bench::median(mean);
  if (result.verified) result.verification = "each request of the trace was served once";
  return result;
}

// ---- simulations

namespace {

kind kind_of(const std::string& variant) {
  if (variant == "simulate-queue") return kind::one_queue;
  if (variant == "simulate-stealing") return kind::stealing;
  if (variant == "simulate-still") return kind::still;
  return kind::moving;
}

}  // namespace

outcome shards_simulate(const request& r) {
  outcome result;
  std::map<std::string, double>& v = result.values;
  const kind what = kind_of(r.variant);
  for (const std::size_t cpus : {2U, 8U, 32U, 128U, 256U}) {
    const std::string suffix = "/" + std::to_string(cpus);
    // A million connections, some of which want much more than others.
    simulation::settings s;
    s.what = what;
    s.cpus = cpus;
    s.by_key = true;
    s.load.connections = r.most_tasks;
    s.load.zipf = 0.9;
    s.load.replaced_a_second = 0.02;
    s.settle = 400ms;
    s.length = std::max<std::chrono::nanoseconds>(100ms, std::chrono::nanoseconds(4s) / cpus);
    const simulation::result skewed = simulation::run(s);
    v["delay_p99_ms" + suffix] = skewed.delay.quantile(0.99) / 1e6;
    v["delay_p50_us" + suffix] = skewed.delay.quantile(0.50) / 1e3;
    v["imbalance_percent" + suffix] = 100 * skewed.imbalance;
    v["moves_a_second" + suffix] = skewed.moves_a_second;
    v["overhead_percent" + suffix] = 100 * skewed.overhead;
    v["decide_ns" + suffix] = skewed.decide_ns;
    result.check(skewed.served > 0 && skewed.arrived > 0, "requests were served");

    // Handlers of 10 us, more than all CPUs can do: is what they do linear in their number?
    simulation::settings full;
    full.what = what;
    full.cpus = cpus;
    full.load.connections = cpus * 1000;
    full.load.work = 10us;
    full.load.utilisation = 1.2;
    full.settle = 20ms;
    full.length = std::max<std::chrono::nanoseconds>(20ms, std::chrono::nanoseconds(1s) / cpus);
    const simulation::result saturated = simulation::run(full);
    v["work_a_cpu_percent" + suffix] = 100 * saturated.work_a_cpu;
    v["saturated_overhead_percent" + suffix] = 100 * saturated.overhead;
    result.check(saturated.work_a_cpu <= 1.001, "no CPU does more than it can");
  }
  v["delay_p99_ms"] = v["delay_p99_ms/256"];
  v["imbalance_percent"] = v["imbalance_percent/256"];
  v["moves_a_second"] = v["moves_a_second/256"];
  v["overhead_percent"] = v["saturated_overhead_percent/256"];
  v["linear"] = v["work_a_cpu_percent/256"] / v["work_a_cpu_percent/2"];

  // Slow requests, for which half of the CPUs would do.
  simulation::settings slow;
  slow.what = what;
  slow.cpus = 8;
  slow.load.connections = 8000;
  slow.load.utilisation = 0.2;
  slow.load.slow_connections = 8;
  slow.settle = 1s;
  slow.length = 2s;
  v["slow_p99_ms"] = simulation::run(slow).delay.quantile(0.99) / 1e6;

  // Two tenants on each shard, of which one sends far too much: the policy of the shard decides.
  simulation::settings flood;
  flood.what = what;
  flood.cpus = 16;
  flood.fair = what == kind::moving || what == kind::still;
  flood.load.connections = 16'000;
  flood.load.utilisation = 1.3;
  flood.load.flood = 10;
  flood.settle = 100ms;
  flood.length = 400ms;
  v["small_tenant_p99_ms"] = simulation::run(flood).small_delay.quantile(0.99) / 1e6;
  if (result.verified) result.verification = "served requests and CPU time are consistent";
  return result;
}

outcome shards_sticky(const request&) {
  outcome result;
  std::map<std::string, double>& v = result.values;
  double slowest = 0;
  double most_moves = 0;
  for (const std::size_t cpus : {2U, 8U, 32U, 64U}) {
    std::vector<double> within;
    std::vector<double> moves;
    for (std::uint64_t seed = 1; seed != 6; ++seed) {
      simulation::settings s;
      s.seed = seed;
      s.cpus = cpus;
      s.by_key = true;
      s.load.connections = cpus * 2000;
      s.load.utilisation = 0.35;
      s.load.hot_factor = 3.5;
      s.load.hot_at = 500ms;
      s.settle = 400ms;
      s.length = 4s;
      const simulation::result found = simulation::run(s);
      result.check(found.within_15_ms >= 0, "the shards are balanced in the end");
      within.push_back(found.within_15_ms);
      moves.push_back(found.moves_a_second);
    }
    const std::string suffix = "/" + std::to_string(cpus);
    v["balanced_ms" + suffix] = bench::median(within);
    v["moves_a_second" + suffix] = bench::median(moves);
    slowest = std::max(slowest, v["balanced_ms" + suffix]);
    most_moves = std::max(most_moves, v["moves_a_second" + suffix]);
  }
  v["balanced_ms"] = slowest;
  v["moves_a_second"] = most_moves;
  if (result.verified) result.verification = "no shard is more than 15 % above the mean at the end";
  return result;
}

}  // namespace worker

#endif
