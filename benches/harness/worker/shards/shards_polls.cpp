// SPDX-License-Identifier: BSL-1.0
//
// What a handler costs on a shard.

#include "../../../measure.hpp"
#include "../memory.hpp"
#include "shard_set.hpp"
#include "shards.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <numeric>
#include <thread>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// Posts itself until it is told to stop. Its counter has a cache line of its own.
struct alignas(128) endless_chain {
  bench::io_context* io = nullptr;
  const std::atomic<bool>* stop = nullptr;
  std::uint64_t ran = 0;

  void next() {
    asio::post(*io, [this] {
      ++ran;
      if (!stop->load(std::memory_order_relaxed)) next();
    });
  }
};

struct throughput {
  double per_s = 0;
  double cpu_ns = 0;  ///< of each handler
};

throughput run_chains(std::size_t threads, std::size_t chains, std::chrono::milliseconds length) {
  shard_set set{threads};
  std::atomic<bool> stop{false};
  std::vector<endless_chain> all(chains);
  for (std::size_t i = 0; i != chains; ++i) {
    all[i].io = &set.of(i);
    all[i].stop = &stop;
    all[i].next();
  }
  std::thread runner{[&] { set.run(); }};
  std::this_thread::sleep_for(length / 10);
  // The counters are read while they change; they are right at the end.
  const auto ran = [&] {
    return std::accumulate(all.begin(), all.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const endless_chain& c) {
                             return sum + reinterpret_cast<const volatile std::uint64_t&>(c.ran);
                           });
  };
  const double cpu = process_cpu_ns();
  const std::uint64_t before = ran();
  const auto start = clock_type::now();
  std::this_thread::sleep_for(length);
  const auto handlers = static_cast<double>(ran() - before);
  const std::chrono::duration<double> took = clock_type::now() - start;
  const double used = process_cpu_ns() - cpu;
  stop.store(true, std::memory_order_relaxed);
#if !defined(BENCH_STOCK)
  set.all().finish();
#endif
  runner.join();
  return {handlers / took.count(), used / handlers};
}

}  // namespace

outcome shards_posts(const request& r) {
  outcome result;
  std::vector<double> per_s;
  std::vector<double> cpu_ns;
  std::vector<double> speedup;
  constexpr std::size_t chains = 16;
  for (int round = 0; round != 3; ++round) {
    const throughput all = run_chains(r.workers, chains, r.duration / 3);
    per_s.push_back(all.per_s);
    cpu_ns.push_back(all.cpu_ns);
    if (r.workers > 1) speedup.push_back(all.per_s / run_chains(1, chains, r.duration / 3).per_s);
    result.check(all.per_s > 0, "handlers run");
  }
  result.values["per_s"] = bench::median(per_s);
  result.values["wall_ns"] = 1e9 / bench::median(per_s);
  result.values["cpu_ns"] = bench::median(cpu_ns);
  if (r.workers > 1) result.values["over_one_thread"] = bench::median(speedup);
  if (result.verified) result.verification = "each chain counts its handlers";
  return result;
}

// ---- overhead

namespace {

struct gaps {
  double mean_ns = 0;
  double percent = 0;  ///< of the time outside the kernel
};

/// Handlers that run for 10 us. The time from the end of one to the beginning of the next.
class busy_handlers {
 public:
  busy_handlers(bench::io_context& io, std::uint64_t handlers, bool tasks)
      : io_{io}, left_{handlers} {
    if (tasks) {
      for (int i = 0; i != 16; ++i) tasks_.emplace_back(io, 5ms, 5ms);
    }
  }
  void start() {
    for (int i = 0; i != 16; ++i) {
      if (tasks_.empty()) {
        next();
      } else {
        const bench::task_scope scope{tasks_[static_cast<std::size_t>(i)]};
        next();
      }
    }
  }
  gaps result() const {
    const double mean = gap_ / static_cast<double>(gaps_);
    return {mean - clock_ns(),
            100 * (mean - clock_ns()) / (mean - clock_ns() + work_ / static_cast<double>(gaps_))};
  }

 private:
  using ns = std::chrono::duration<double, std::nano>;

  void next() {
    asio::post(io_, [this] {
      const auto begin = clock_type::now();
      const double gap = ns(begin - ended_).count();
      auto now = begin;
      do now = clock_type::now();
      while (now - begin < 10us);
      // The kernel has had the CPU: an interrupt, or another thread.
      constexpr double kernel = 3000;
      if (started_ && gap < kernel) {
        gap_ += gap;
        work_ += 10'000;
        ++gaps_;
      }
      started_ = true;
      if (left_ > 0) {
        --left_;
        next();
      }
      ended_ = clock_type::now();
    });
  }
  // The gap contains one reading of the clock.
  static double clock_ns() {
    static const double cost = [] {
      std::vector<double> rounds;
      for (int round = 0; round != 9; ++round) {
        const auto start = clock_type::now();
        for (int i = 0; i != 10'000; ++i) bench::keep(clock_type::now().time_since_epoch().count());
        rounds.push_back(ns(clock_type::now() - start).count() / 10'000);
      }
      return bench::median(rounds);
    }();
    return cost;
  }

  bench::io_context& io_;
  std::deque<bench::task> tasks_;
  std::uint64_t left_;
  clock_type::time_point ended_;
  bool started_ = false;
  double gap_ = 0;
  double work_ = 0;
  std::uint64_t gaps_ = 0;
};

#if defined(BENCH_STOCK)
gaps handlers_of_10_us(std::uint64_t handlers) {
  boost::asio::io_context io{1};
  busy_handlers all{io, handlers, false};
  all.start();
  io.run();
  return all.result();
}
#else
gaps handlers_of_10_us(std::uint64_t handlers, bool enabled, bool watchdog, bool tasks) {
  asio_pulse::shard_options o;
  o.context.enabled = enabled;
  o.context.watchdog = watchdog;
  shard_set set{1, o};
  busy_handlers all{set.of(0), handlers, tasks};
  all.start();
  set.all().finish();
  set.run();
  return all.result();
}
#endif

}  // namespace

outcome shards_overhead(const request& r) {
  outcome result;
  std::map<std::string, std::vector<double>> found;
  const std::uint64_t handlers = r.handlers;
  const auto note = [&found](const std::string& name, const gaps& g) {
    found["gap_ns/" + name].push_back(g.mean_ns);
    found["percent/" + name].push_back(g.percent);
  };
  for (int round = 0; round != 5; ++round) {
#if defined(BENCH_STOCK)
    note("all", handlers_of_10_us(handlers));
#else
    note("all", handlers_of_10_us(handlers, true, true, true));
    note("no_tasks", handlers_of_10_us(handlers, true, true, false));
    note("no_watchdog", handlers_of_10_us(handlers, true, false, false));
    note("off", handlers_of_10_us(handlers, false, false, false));
#endif
  }
  for (const auto& [name, list] : found) result.values[name] = bench::median(list);
  result.values["overhead_percent"] = result.values["percent/all"];
  result.values["gap_ns"] = result.values["gap_ns/all"];
  result.check(result.values["gap_ns"] > 0, "there is a gap between two handlers");
  if (result.verified)
    result.verification = "each gap was measured from the end of one handler to the next";
  return result;
}

#if !defined(BENCH_STOCK)

// ---- polls

namespace {

struct counting_task {
  explicit counting_task(bench::io_context& io) : task{io, 5ms, 5ms} {}
  bench::task task;
  std::uint64_t polls = 0;
};

struct counted_chain {
  bench::io_context& io;
  counting_task& of;
  std::uint64_t left;

  void operator()() {
    ++of.polls;
    if (--left > 0) asio::post(io, counted_chain{io, of, left});
  }
};

/// CPU time of a poll on each of so many shards, of which each has so many tasks. A hundred of them are
/// polled.
class poll_costs {
 public:
  poll_costs(std::size_t shards, outcome& to) : set_{shards}, to_{to}, tasks_(shards) {}

  double ns(std::size_t tasks) {
    const std::size_t each = std::max<std::size_t>(tasks / set_.size(), 1);
    const std::size_t polled = std::min<std::size_t>(each, 100);
    constexpr std::uint64_t polls = 200'000;
    const std::uint64_t times = polls / (polled * set_.size()) + 1;
    for (std::size_t i = 0; i != set_.size(); ++i) {
      while (tasks_[i].size() < each) tasks_[i].emplace_back(set_.of(i));
    }
    std::vector<double> rounds;
    for (int round = 0; round != 7; ++round) {
      for (std::size_t i = 0; i != set_.size(); ++i) {
        for (std::size_t k = 0; k != polled; ++k) {
          counting_task& one = tasks_[i][k * (each / polled)];
          const bench::task_scope scope{one.task};
          asio::post(set_.of(i), counted_chain{set_.of(i), one, times});
        }
      }
      set_.all().restart();
      set_.all().finish();
      const double before = process_cpu_ns();
      set_.run();
      rounds.push_back((process_cpu_ns() - before) /
                       static_cast<double>(times * polled * set_.size()));
      for (auto& of_shard : tasks_) {
        for (counting_task& one : of_shard) {
          const std::uint64_t ran = std::exchange(one.polls, 0U);
          to_.check(ran == 0 || ran == times, "each poll ran once");
        }
      }
    }
    return bench::median(rounds);
  }

 private:
  shard_set set_;
  outcome& to_;
  std::vector<std::deque<counting_task>> tasks_;
};

}  // namespace

outcome shards_polls(const request& r) {
  outcome result;
  std::map<std::string, double>& v = result.values;
  for (const std::size_t shards : {1U, 2U, 8U}) {
    poll_costs costs{shards, result};
    for (std::size_t tasks = 10; tasks <= r.most_tasks; tasks *= 10) {
      if (tasks < shards) continue;
      v["ns_" + std::to_string(shards) + "/" + std::to_string(tasks)] = costs.ns(tasks);
    }
  }
  const auto last = std::to_string(r.most_tasks);
  // 100 tasks are polled from there on.
  v["ratio_tasks"] = v["ns_1/" + last] / v["ns_1/100"];
  v["ratio_shards"] = v["ns_8/1000"] / v["ns_1/100"];
  v["switch_ns"] = v["ns_1/100"];
  if (result.verified) result.verification = "each poll of each task ran once";
  return result;
}

// ---- memory

outcome shards_memory(const request&) {
  outcome result;
  constexpr std::size_t count = 32;
  { shard_set warm{1}; }
  const double allocated = allocated_bytes();
  const double resident = resident_bytes();
  shard_set set{count};
  std::thread runner{[&set] { set.run(); }};
  // Each shard has run something, and has nothing to do.
  std::atomic<std::size_t> ran{0};
  for (std::size_t i = 0; i != count; ++i) asio::post(set.of(i), [&ran] { ++ran; });
  while (ran != count) std::this_thread::sleep_for(1ms);
  result.values["allocated_kib"] = (allocated_bytes() - allocated) / count / 1024;
  result.values["resident_kib"] = (resident_bytes() - resident) / count / 1024;
  set.stop();
  runner.join();
  result.check(result.values["resident_kib"] > 0, "shards take memory");
  if (result.verified) result.verification = "each shard had run a handler";
  return result;
}

#endif

}  // namespace worker
