// SPDX-License-Identifier: BSL-1.0
//
// Groups that are saturated: each has more work than there is CPU time. What each got is measured by
// the threads' CPU clocks, in steps of 10 ms, and compared over every second of the run.

#include "../../../measure.hpp"
#include "../server.hpp"
#include "shares.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <deque>
#include <numeric>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

constexpr std::chrono::milliseconds step = 10ms;
constexpr std::size_t steps_a_second = 1s / step;
/// Before it is measured, so that the context is saturated.
constexpr std::chrono::milliseconds settling = 100ms;
/// With fewer, the queue of a few groups with short handlers would not be long enough to call the
/// context saturated.
constexpr std::size_t chains_in_all = 128;

/// A group without groups below it: its part of the CPU by the weights, and its handlers.
struct leaf {
  std::string name;
  unsigned weight = 1;
  double part = 0;
  std::chrono::nanoseconds handler{5us};
};

/// The groups of one run, all beside each other, or four groups of such groups.
struct plan {
  std::string name;
  std::vector<unsigned> upper;  ///< the weights of the groups above; empty: there are none
  std::vector<leaf> leaves;     ///< if there are groups above, as many for each of them
};

/// Weights from 1 to \p most, each by the same factor above the one before.
std::vector<unsigned> weights(std::size_t count, double most) {
  std::vector<unsigned> result;
  for (std::size_t n = 0; n < count; ++n) {
    const double exponent = static_cast<double>(n) / static_cast<double>(count - 1);
    result.push_back(static_cast<unsigned>(std::lround(std::pow(most, exponent))));
  }
  return result;
}

void set_parts(plan& p) {
  const std::size_t above = std::max<std::size_t>(1, p.upper.size());
  const std::size_t each = p.leaves.size() / above;
  const double all = std::accumulate(p.upper.begin(), p.upper.end(), 0.0);
  for (std::size_t g = 0; g < above; ++g) {
    const auto first = p.leaves.begin() + static_cast<std::ptrdiff_t>(g * each);
    const double sum = std::accumulate(first, first + static_cast<std::ptrdiff_t>(each), 0.0,
                                       [](double s, const leaf& l) { return s + l.weight; });
    for (auto at = first; at != first + static_cast<std::ptrdiff_t>(each); ++at) {
      at->part = at->weight / sum * (p.upper.empty() ? 1 : p.upper[g] / all);
    }
  }
}

plan flat(std::string name, const std::vector<unsigned>& by_weight) {
  plan result{std::move(name), {}, {}};
  for (const unsigned w : by_weight) {
    result.leaves.push_back({.name = std::to_string(w), .weight = w});
  }
  set_parts(result);
  return result;
}

plan nested() {
  plan result{"nested", weights(4, 10), {}};
  for (std::size_t g = 0; g < result.upper.size(); ++g) {
    for (const unsigned w : weights(4, 10)) {
      result.leaves.push_back({.name = std::to_string(w), .weight = w});
    }
  }
  set_parts(result);
  return result;
}

/// CPU time by group and step.
class shares_got {
 public:
  shares_got(std::size_t groups, std::size_t steps) : steps_{steps}, used_(groups * steps) {}

  void add(std::size_t group, std::size_t at, std::chrono::nanoseconds cpu) {
    if (at < steps_) {
      used_[group * steps_ + at].fetch_add(cpu.count(), std::memory_order_relaxed);
    }
  }
  double between(std::size_t group, std::size_t from, std::size_t to) const {
    double sum = 0;
    for (std::size_t at = from; at < to; ++at) {
      sum += static_cast<double>(used_[group * steps_ + at].load(std::memory_order_relaxed));
    }
    return sum;
  }
  std::size_t steps() const { return steps_; }

 private:
  std::size_t steps_;
  std::vector<std::atomic<std::int64_t>> used_;
};

class saturated_run {
 public:
  saturated_run(const plan& p, unsigned workers, std::chrono::milliseconds duration)
      : server_{{.workers = workers, .policy = serving::fair}},
        got_{p.leaves.size(), static_cast<std::size_t>(duration / step)} {
    const std::size_t each = p.upper.empty() ? p.leaves.size() : p.leaves.size() / p.upper.size();
    for (std::size_t g = 0; g < p.upper.size(); ++g) {
      upper_.emplace_back(server_.io(), "upper", p.upper[g]);
    }
    for (std::size_t n = 0; n < p.leaves.size(); ++n) {
      const leaf& l = p.leaves[n];
      groups_.emplace_back(server_.io(), l.name, l.weight,
                           p.upper.empty() ? nullptr : &upper_[n / each]);
      const std::size_t chains = std::max<std::size_t>(2, chains_in_all / p.leaves.size());
      for (std::size_t c = 0; c < chains; ++c) {
        tasks_.emplace_back(server_.io(), 0ns, 10ms, bench::task_place{.of = &groups_.back()});
        const bench::task_scope scope{tasks_.back()};
        asio::post(server_.io(), chain{*this, n, l.handler});
      }
    }
    start_ = clock_type::now() + settling;
    end_ = start_ + duration;
    server_.run();
  }

  const shares_got& got() const { return got_; }
  const server& counts() const { return server_; }
  clock_type::time_point start() const { return start_; }

 private:
  /// A handler that posts itself again.
  struct chain {
    saturated_run& of;
    std::size_t group;
    std::chrono::nanoseconds length;

    void operator()() {
      bench::spin(length);
      const auto now = clock_type::now();
      thread_local std::chrono::nanoseconds before = bench::thread_cpu_time();
      const auto cpu = bench::thread_cpu_time();
      if (now >= of.start_) {
        of.got_.add(group, static_cast<std::size_t>((now - of.start_) / step), cpu - before);
      }
      before = cpu;
      if (now < of.end_) asio::post(of.server_.io(), chain{*this});
    }
  };

  server server_;
  shares_got got_;
  std::deque<bench::group> upper_;
  std::deque<bench::group> groups_;
  std::deque<bench::task> tasks_;
  clock_type::time_point start_;
  clock_type::time_point end_;
};

/// The worst over each second that begins at a step.
struct worst {
  double deviation = 0;  ///< of a group's CPU time from its part, in percent of that part
  double points = 0;     ///< the same in percent of the CPU
  double jain = 1;       ///< Jain's index of what the groups got for their parts
  bool each_ran = true;
};

worst compare(const plan& p, const shares_got& got) {
  worst result;
  for (std::size_t from = 0; from + steps_a_second <= got.steps(); ++from) {
    std::vector<double> used;
    for (std::size_t n = 0; n < p.leaves.size(); ++n) {
      used.push_back(got.between(n, from, from + steps_a_second));
    }
    const double all = std::accumulate(used.begin(), used.end(), 0.0);
    double sum = 0;
    double squares = 0;
    for (std::size_t n = 0; n < used.size(); ++n) {
      const double part = p.leaves[n].part;
      const double relative = used[n] / all / part;
      result.deviation = std::max(result.deviation, 100 * std::abs(relative - 1));
      result.points = std::max(result.points, 100 * std::abs(used[n] / all - part));
      result.each_ran = result.each_ran && used[n] > 0;
      sum += relative;
      squares += relative * relative;
    }
    result.jain = std::min(result.jain, sum * sum / (static_cast<double>(used.size()) * squares));
  }
  return result;
}

worst run(const plan& p, const request& r, outcome& to) {
  const saturated_run done{p, r.workers, r.duration};
  const worst w = compare(p, done.got());
  to.check(done.got().steps() >= steps_a_second, "it was measured for a second or longer");
  to.check(w.each_ran, "each group ran in each second");
  done.counts().add_counts(to, done.start());
  return w;
}

}  // namespace

outcome shares_weights(const request& r) {
  outcome result;
  double deviation = 0;
  for (const plan& p :
       {flat("2_groups", {1, 100}), flat("64_groups", weights(64, 100)), nested()}) {
    const worst w = run(p, r, result);
    result.values["deviation_percent." + p.name] = w.deviation;
    result.values["points." + p.name] = w.points;
    deviation = std::max(deviation, w.deviation);
  }
  result.values["deviation_percent"] = deviation;
  if (result.verified) result.verification = "each group ran in each second";
  return result;
}

outcome shares_lengths(const request& r) {
  outcome result;
  plan p = flat("lengths", std::vector<unsigned>(8, 100));
  for (std::size_t n = 0; n < p.leaves.size(); n += 2) p.leaves[n].handler = 500us;
  result.values["jain"] = run(p, r, result).jain;
  if (result.verified) result.verification = "each group ran in each second";
  return result;
}

}  // namespace worker
