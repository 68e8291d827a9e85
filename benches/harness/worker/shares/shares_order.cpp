// SPDX-License-Identifier: BSL-1.0
//
// The policies that order work: by deadline, and by priority with aging.

#include "../../../measure.hpp"
#include "../server.hpp"
#include "shares.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <deque>
#include <queue>
#include <random>
#include <thread>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// ---- deadlines

/// A kind of work: which part of the jobs, and how long after its arrival each must be done.
struct job_class {
  double part;
  nanoseconds deadline;
};
constexpr std::array<job_class, 3> classes{{{0.3, 5ms}, {0.3, 20ms}, {0.4, 100ms}}};

constexpr double load = 0.9;
constexpr nanoseconds short_job = 200us;
constexpr nanoseconds long_job = 800us;
constexpr double part_of_long = 0.2;

/// Times in ns since the start.
struct job {
  std::size_t of = 0;
  std::int64_t planned = 0;
  nanoseconds work{0};
  std::int64_t arrival = 0;
  std::int64_t begin = -1;
  std::int64_t end = -1;
  std::int64_t taken = 0;  ///< of the time before it, if the kernel ran another thread instead

  /// For how long it kept the CPU from others, as one may not blame a policy for another thread.
  std::int64_t length() const { return end - begin + taken; }
  std::int64_t due() const { return arrival + classes[of].deadline.count(); }
};

/// A Poisson process with a fixed seed.
std::vector<job> plan_jobs(std::chrono::milliseconds duration) {
  std::mt19937_64 random{7};
  const double mean = static_cast<double>(short_job.count()) * (1 - part_of_long) +
                      static_cast<double>(long_job.count()) * part_of_long;
  std::exponential_distribution<double> gap{load / mean};
  std::uniform_real_distribution<double> part{0, 1};
  std::vector<job> jobs;
  const auto end = static_cast<double>(nanoseconds{duration}.count());
  for (double at = gap(random); at < end; at += gap(random)) {
    job j;
    const double which = part(random);
    j.of = which < classes[0].part ? 0 : which < classes[0].part + classes[1].part ? 1 : 2;
    j.work = part(random) < part_of_long ? long_job : short_job;
    j.planned = static_cast<std::int64_t>(at);
    jobs.push_back(j);
  }
  return jobs;
}

/// Which jobs the earliest deadline first would have finished too late on one CPU, given when they
/// arrived and how long they took. With preemption no order is better on one CPU: if a set of jobs
/// can be on time at all, this order has them on time (Liu and Layland 1973; Dertouzos 1974).
std::vector<bool> late_by_deadline(const std::vector<job>& jobs, bool preemptive) {
  struct part {
    std::int64_t due;
    std::size_t number;
    std::int64_t left;
    bool operator<(const part& other) const {  // the top of the queue is the earliest
      return due != other.due ? due > other.due : number > other.number;
    }
  };
  std::vector<bool> late(jobs.size());
  std::priority_queue<part> ready;
  std::size_t next = 0;
  std::int64_t now = 0;
  const auto arrive = [&] {
    for (; next < jobs.size() && jobs[next].arrival <= now; ++next) {
      ready.push({jobs[next].due(), next, jobs[next].length()});
    }
  };
  while (next < jobs.size() || !ready.empty()) {
    if (ready.empty()) now = std::max(now, jobs[next].arrival);
    arrive();
    part one = ready.top();
    ready.pop();
    const bool interrupted =
        preemptive && next < jobs.size() && jobs[next].arrival < now + one.left;
    const std::int64_t runs = interrupted ? jobs[next].arrival - now : one.left;
    now += runs;
    one.left -= runs;
    if (one.left > 0) {
      ready.push(one);
    } else {
      late[one.number] = now > one.due;
    }
  }
  return late;
}

class job_server {
 public:
  explicit job_server(std::vector<job> jobs)
      : server_{{.policy = serving::deadline}}, jobs_{std::move(jobs)} {
    for (const job_class& c : classes) {
      tasks_.emplace_back(server_.io(), 0ns, 10ms, bench::task_place{.deadline = c.deadline});
    }
    auto guard = asio::make_work_guard(server_.io());
    start_ = clock_type::now() + 10ms;
    std::thread generator{[&] {
      for (job& j : jobs_) {
        while (since_start() < j.planned) {
        }
        const bench::task_scope scope{tasks_[j.of]};
        j.arrival = since_start();
        asio::post(server_.io(), [this, &j] { run(j); });
      }
      guard.reset();
    }};
    server_.run();
    generator.join();
  }

  const std::vector<job>& jobs() const { return jobs_; }
  const server& counts() const { return server_; }
  clock_type::time_point start() const { return start_; }

 private:
  std::int64_t since_start() const { return nanoseconds{clock_type::now() - start_}.count(); }

  void run(job& j) {
    j.begin = since_start();
    const nanoseconds on_cpu = bench::thread_cpu_time() - cpu_;
    if (bench::involuntary_switches() != switches_) {
      const std::int64_t off_cpu = j.begin - std::max(ended_, j.arrival) - on_cpu.count();
      j.taken = std::max<std::int64_t>(0, off_cpu);
    }
    bench::spin(j.work);
    switches_ = bench::involuntary_switches();
    cpu_ = bench::thread_cpu_time();
    ended_ = j.end = since_start();
  }

  server server_;
  std::vector<job> jobs_;
  std::deque<bench::task> tasks_;
  clock_type::time_point start_;
  // The end of the job before. Only the worker uses them.
  std::int64_t ended_ = 0;
  nanoseconds cpu_{0};
  long switches_ = 0;
};

// ---- priorities

/// What options::policy says about scheduling::priority.
constexpr nanoseconds aging = 50ms;
constexpr int aged_get = 8;

struct priority_class {
  unsigned priority;
  std::size_t chains;
};
constexpr std::array<priority_class, 3> ladder{{{7, 8}, {3, 4}, {0, 4}}};
constexpr nanoseconds piece = 100us;

class priority_server {
 public:
  explicit priority_server(std::chrono::milliseconds duration)
      : server_{{.policy = serving::priority}} {
    start_ = clock_type::now();
    measured_ = start_ + 2 * aging;
    end_ = measured_ + duration;
    for (std::size_t n = 0; n < ladder.size(); ++n) {
      for (std::size_t c = 0; c < ladder[n].chains; ++c) {
        tasks_.emplace_back(server_.io(), 0ns, 10ms,
                            bench::task_place{.priority = ladder[n].priority});
        post(n, tasks_.size() - 1);
      }
    }
    server_.run();
  }

  std::array<std::vector<std::int64_t>, ladder.size()> waits;
  std::int64_t longest_poll = 0;
  const server& counts() const { return server_; }
  clock_type::time_point start() const { return start_; }

 private:
  void post(std::size_t rank, std::size_t task) {
    const bench::task_scope scope{tasks_[task]};
    asio::post(server_.io(), [this, rank, task, posted = clock_type::now()] {
      const auto begin = clock_type::now();
      bench::spin(piece);
      const auto end = clock_type::now();
      if (posted >= measured_) {
        waits[rank].push_back(nanoseconds{begin - posted}.count());
        longest_poll = std::max(longest_poll, nanoseconds{end - begin}.count());
      }
      if (end < end_) post(rank, task);
    });
  }

  server server_;
  std::deque<bench::task> tasks_;
  clock_type::time_point start_;
  clock_type::time_point measured_;
  clock_type::time_point end_;
};

}  // namespace

outcome shares_deadline(const request& r) {
  outcome result;
  const job_server done{plan_jobs(r.duration)};
  const std::vector<job>& jobs = done.jobs();
  const std::vector<bool> best = late_by_deadline(jobs, true);
  const std::vector<bool> without_preemption = late_by_deadline(jobs, false);
  double missed = 0;
  double missed_needlessly = 0;
  double missed_needlessly_in_polls = 0;
  double busy = 0;
  for (std::size_t n = 0; n < jobs.size(); ++n) {
    const job& j = jobs[n];
    const bool late = j.end > j.due();
    missed += late;
    missed_needlessly += late && !best[n];
    missed_needlessly_in_polls += late && !without_preemption[n];
    busy += static_cast<double>(j.length());
    result.samples_ns["response"].push_back(j.end - j.arrival);
    if (j.of == 0) result.samples_ns["urgent_response"].push_back(j.end - j.arrival);
    result.check(j.begin >= j.arrival && j.end >= j.begin, "each job ran once");
  }
  const auto count = static_cast<double>(jobs.size());
  const auto of_all = [count](double n) { return 100 * n / count; };
  result.values["jobs"] = count;
  result.values["load_percent"] = 100 * busy / static_cast<double>(jobs.back().arrival);
  result.values["missed_percent"] = of_all(missed);
  result.values["missed"] = missed;
  result.values["missed_by_edf"] = static_cast<double>(std::count(best.begin(), best.end(), true));
  result.values["missed_by_edf_in_polls"] =
      static_cast<double>(std::count(without_preemption.begin(), without_preemption.end(), true));
  result.values["missed_needlessly"] = missed_needlessly;
  result.values["missed_needlessly_in_polls"] = missed_needlessly_in_polls;
  done.counts().add_counts(result, done.start());
  if (result.verified) result.verification = "each job ran once";
  return result;
}

outcome shares_priority(const request& r) {
  outcome result;
  const priority_server done{r.duration};
  result.samples_ns["urgent_wait"] = done.waits.front();
  result.samples_ns["lowest_wait"] = done.waits.back();
  result.check(!done.waits.back().empty(), "the lowest class ran");
  std::size_t chains = 0;
  for (const priority_class& c : ladder) chains += c.chains;
  // At most all other tasks have waited for longer.
  const double bound = static_cast<double>(aging.count()) +
                       static_cast<double>(aged_get) * static_cast<double>(chains) *
                           static_cast<double>(done.longest_poll);
  double longest = 0;
  for (const auto wait : done.waits.back()) longest = std::max(longest, static_cast<double>(wait));
  result.values["longest_wait_ms"] = longest / 1e6;
  result.values["bound_ms"] = bound / 1e6;
  result.values["longest_wait_of_bound"] = longest / bound;
  result.values["lowest_per_s"] = static_cast<double>(done.waits.back().size()) /
                                  std::chrono::duration<double>(r.duration).count();
  done.counts().add_counts(result, done.start());
  if (result.verified) result.verification = "each class ran";
  return result;
}

}  // namespace worker
