// SPDX-License-Identifier: BSL-1.0
//
// A discrete-event simulation of a server with up to 256 threads and a million connections. It runs the decision
// code of the library: where a connection is placed, when it moves, and which request a thread serves
// next. All else (queues, CPUs, what a step costs) is a model.

#pragma once

#include <asio_pulse/placement.hpp>
#include <asio_pulse/shard_balance.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simulation {

using ns = std::chrono::nanoseconds;

enum class kind {
  one_queue,  ///< a context that all threads run: one queue under one mutex
  stealing,   ///< a queue for each thread; a thread without work takes half of another's
  still,      ///< shards between which nothing moves
  moving,     ///< shards that balance
};

/// What a step costs, as it was measured (benches/RESULTS.md, "Shards").
struct costs {
  ns handler{20};   ///< CPU from the end of a handler to the beginning of the next, of one thread
  ns lock{90};      ///< one_queue: the mutex is held for a push, and again for a pop
  ns steal{60};     ///< to look into another thread's queue
  ns wake{6000};    ///< from a request's arrival until a thread that slept runs it
  ns move{30'000};  ///< CPU to move a connection, half of it on each side
};

/// Which requests arrive, and on which connections.
struct load {
  std::size_t connections = 1000;
  double utilisation = 0.6;  ///< of all CPUs, without overhead
  ns work{20'000};           ///< of a request: exponentially distributed, with this mean
  double zipf = 0;           ///< the rate of the i-th connection is proportional to i^-zipf
  /// At `hot_at`, the connections that the first shard has then get this times the rate.
  double hot_factor = 1;
  ns hot_at{0};
  /// So many connections send requests that take `slow_work` without a break, and want half of a CPU
  /// each. The delays of others are measured.
  std::size_t slow_connections = 0;
  ns slow_work{50'000'000};
  /// So many connections are replaced by new ones in a second, as a part of all.
  double replaced_a_second = 0;
  /// The second of two tenants sends this times what the other does; 0: there is one tenant.
  double flood = 0;
};

struct settings {
  kind what = kind::moving;
  std::size_t cpus = 2;
  simulation::load load;
  costs cost;
  /// How a connection is placed: by its number as a key, or by placement_rule.
  bool by_key = false;
  asio_pulse::placement_rule placement = asio_pulse::placement_rule::round_robin;
  bool fair =
      false;  ///< fair_policy between the tenants on each shard; otherwise first come, first served
  asio_pulse::balance_settings balance;
  ns look{1'000'000};  ///< how often a shard looks at the others
  ns window{20'000'000};
  ns settle{200'000'000};    ///< not measured
  ns length{1'000'000'000};  ///< measured
  std::uint64_t seed = 1;
};

/// Durations, with 32 buckets to a power of two.
class distribution {
 public:
  void add(std::int64_t v);
  [[nodiscard]] double quantile(double q) const;
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

 private:
  std::vector<std::uint64_t> buckets_ = std::vector<std::uint64_t>(64 * 32);
  std::uint64_t count_ = 0;
  double sum_ = 0;
};

struct result {
  distribution delay;        ///< from a request's arrival until its handler begins
  distribution small_delay;  ///< of the tenant that does not flood
  std::uint64_t arrived = 0;
  std::uint64_t served = 0;
  double imbalance = 0;      ///< mean of: most loaded shard, above the mean of all, as a part of it
  double worst_settled = 0;  ///< the same at the end, by what connections offer
  double within_15_ms =
      -1;  ///< from hot_at until the imbalance is at most 15 % for good; -1: never
  double moves_a_second = 0;  ///< in the part that is measured; after a hot_at: from 1 s after it
  std::uint64_t moves = 0;
  double overhead = 0;    ///< CPU outside handlers, as a part of the CPU in them
  double decide_ns = 0;   ///< a decision of shard_balancer, measured
  double work_a_cpu = 0;  ///< part of each CPU that ran handlers
};

[[nodiscard]] result run(const settings& s);

/// One request of a trace, for a comparison with real shards.
struct traced {
  ns at{0};
  std::uint32_t key = 0;
  ns work{0};
};
/// A Poisson process of requests, whose keys are Zipf distributed.
[[nodiscard]] std::vector<traced> make_trace(const load& l, std::size_t cpus, ns length,
                                             std::uint64_t seed);
/// The delays of a trace on shards between which nothing moves.
[[nodiscard]] distribution replay(const std::vector<traced>& trace, const settings& s);

}  // namespace simulation
