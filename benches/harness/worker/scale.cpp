// SPDX-License-Identifier: BSL-1.0
//
// The cost of a poll, and the memory of a task, while 1 to 1 000 000 tasks are alive. In stock,
// which has no tasks, there are as many counters instead.

#include "../../measure.hpp"
#include "memory.hpp"
#include "server.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <deque>
#include <utility>

namespace worker {

namespace {

namespace asio = boost::asio;

constexpr std::size_t working_set = 100;
constexpr std::uint64_t least_polls = 100'000;  // a round: about 10 ms

/// A task that may use a whole CPU, so that it is accounted for but never held back; and a counter.
struct live_task {
  explicit live_task(bench::io_context& io)
      : task{io, std::chrono::milliseconds{5}, std::chrono::milliseconds{5}} {}
  bench::task task;
  std::uint64_t polls = 0;
};

/// Posts itself again, \c left times. One at a time of each task: the counter needs no lock.
struct chain {
  bench::io_context& io;
  live_task& of;
  std::uint64_t left;

  void operator()() {
    ++of.polls;
    if (--left > 0) asio::post(io, chain{io, of, left});
  }
};

class crowd {
 public:
  explicit crowd(server& s) : server_{s} {}

  void grow_to(std::size_t count) {
    while (tasks_.size() < count) tasks_.emplace_back(server_.io());
  }

  /// CPU time of a poll: this many polls of each of the tasks, which are \p step apart.
  double ns_a_poll(std::size_t count, std::size_t step, int rounds, outcome& to) {
    const std::uint64_t each = std::max<std::uint64_t>(1, least_polls / count);
    std::vector<double> results;
    for (int round = 0; round < rounds; ++round) {
      const auto before = process_cpu_ns();
      for (std::size_t n = 0; n < count; ++n) {
        live_task& one = tasks_[n * step];
        const bench::task_scope scope{one.task};
        asio::post(server_.io(), chain{server_.io(), one, each});
      }
      server_.io().restart();
      server_.run();
      results.push_back((process_cpu_ns() - before) / static_cast<double>(each * count));
      for (std::size_t n = 0; n < count; ++n) {
        to.check(std::exchange(tasks_[n * step].polls, 0) == each, "each poll ran once");
      }
      polls_ += each * count;
    }
    return bench::median(results);
  }

  std::uint64_t polls() const { return polls_; }

  /// The polls that asio-pulse has accounted for; in stock, all polls.
  std::uint64_t accounted_for() const {
#if defined(BENCH_STOCK)
    return polls_;
#else
    std::uint64_t sum = 0;
    for (const live_task& one : tasks_) sum += one.task.polls();
    return sum;
#endif
  }

 private:
  server& server_;
  std::deque<live_task> tasks_;  // which never moves them
  std::uint64_t polls_ = 0;
};

}  // namespace

outcome scale(const request& r) {
  outcome result;
  server s{{.workers = r.workers}};
  crowd all{s};
  const double empty = allocated_bytes();
  for (std::size_t count = 1; count <= r.most_tasks; count *= 10) {
    all.grow_to(count);
    const std::string suffix = "/" + std::to_string(count);
    result.values["bytes_a_task" + suffix] =
        (allocated_bytes() - empty) / static_cast<double>(count);
    const std::size_t polled = std::min(count, working_set);
    result.values["fixed_ns" + suffix] = all.ns_a_poll(polled, count / polled, 9, result);
    result.values["all_ns" + suffix] = all.ns_a_poll(count, 1, count < 1'000'000 ? 3 : 1, result);
  }
  result.check(all.accounted_for() == all.polls(), "asio-pulse accounted for every poll");
  for (const std::string kind : {"fixed", "all"}) {
    const auto most = result.values.find(kind + "_ns/1000000");
    if (most == result.values.end()) continue;
    result.values[kind + "_ratio"] = most->second / result.values[kind + "_ns/100"];
  }
  s.add_counts(result, clock_type::now());
  if (result.verified) {
    result.verification = "each poll of each task ran once, and was accounted for";
  }
  return result;
}

}  // namespace worker
