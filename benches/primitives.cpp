// SPDX-License-Identifier: BSL-1.0
//
// The cost of the parts of the poll path: budget, clock, checkpoint. One process suffices, since
// the baselines are loops of the same shape. Prints one line of JSON.

#include "measure.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/bpf/control_block.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

/// The code of should_yield(), which the runner reads.
extern "C" [[gnu::noinline, gnu::used]] bool bench_should_yield();
extern "C" bool bench_should_yield() { return asio_pulse::should_yield(); }

namespace {

namespace asio = boost::asio;
namespace timing = asio_pulse::timing;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr std::uint64_t loops = 2'000'000;
constexpr int rounds = 9;

using figures = std::map<std::string, double>;

template <class Body>
double ns_each(Body&& body) {
  return bench::ns_per_operation(loops, rounds, [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) body(i);
  });
}

void measure_budget(figures& out) {
  const double loop = ns_each([](std::uint64_t i) { bench::keep(i); });
  // A tenth of the CPU. The task below uses nearly all of it, the one after is always in debt.
  asio_pulse::task_budget budget;
  budget.configure(1'000'000, 10'000'000);
  std::uint64_t now = 0;
  bool over = false;
  out["budget charge"] = ns_each([&](std::uint64_t i) {
                           bench::keep(i);
                           over |= budget.charge(now += 1000, 90);
                         }) -
                         loop;
  if (over) throw std::runtime_error("a task within its budget counted as over budget");
  out["budget charge, over budget"] = ns_each([&](std::uint64_t i) {
                                        bench::keep(i);
                                        over &= budget.charge(now += 1000, 900);
                                      }) -
                                      loop;
  if (!budget.over(now))
    throw std::runtime_error("a task over its budget did not count as over budget");
}

void measure_clocks(figures& out) {
  const double loop = ns_each([](std::uint64_t i) { bench::keep(i); });
  timing::poll_clock clock;
  clock.attach(timing::default_clock().kind);
  const auto before = bench::thread_cpu_time();
  clock.stamp();
  std::uint64_t cost = 0;
  out["poll clock, start+stop (chained)"] = ns_each([&](std::uint64_t i) {
                                              bench::keep(i);
                                              cost += clock.take().cost;
                                            }) -
                                            loop;
  const std::chrono::duration<double> used = bench::thread_cpu_time() - before;
  const std::chrono::duration<double> counted = timing::timebase::get().to_ns(cost);
  if (std::abs(counted.count() - used.count()) > 0.01 * used.count()) {
    throw std::runtime_error("the poll clock did not count the loop");
  }
  out["poll clock, start+stop (two reads)"] = ns_each([&](std::uint64_t i) {
                                                bench::keep(i);
                                                clock.stamp();
                                                bench::keep(clock.take());
                                              }) -
                                              loop;
  out["timebase read"] = ns_each([&](std::uint64_t i) {
                           bench::keep(i);
                           bench::keep(timing::timebase::get().now());
                         }) -
                         loop;
  out["CLOCK_THREAD_CPUTIME_ID"] =
      bench::ns_per_operation(loops / 10, rounds,
                              [](std::uint64_t count) {
                                for (std::uint64_t i = 0; i < count; ++i) {
                                  bench::keep(i);
                                  bench::keep(bench::thread_cpu_time());
                                }
                              }) -
      loop;
}

void pin(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (pthread_setaffinity_np(thread, sizeof set, &set) != 0) {
    throw std::runtime_error("cannot pin a thread");
  }
}

/// Segments of 1 ms beside a competitor on the same CPU, measured with the poll clock and the
/// kernel's clock. The latter is read before and after each stamp, which gives an interval, so that
/// an interrupt between the readings does not count as an error.
void measure_accuracy(figures& out) {
  const int cpu = sched_getcpu();
  std::atomic<bool> over{false};
  std::thread competitor{[&over] {
    while (!over.load(std::memory_order_relaxed)) {
    }
  }};
  std::thread measured{[&out, cpu] {
    pin(pthread_self(), cpu);
    timing::poll_clock clock;
    clock.attach(timing::default_clock().kind);
    int disturbed = 0;
    double worst_ns = 0;
    for (int segment = 0; segment < 300; ++segment) {
      const auto wall = clock_type::now();
      const auto before_stamp = bench::thread_cpu_time();
      clock.stamp();
      const auto after_stamp = bench::thread_cpu_time();
      bench::spin(1ms);
      const auto before_take = bench::thread_cpu_time();
      const auto lap = clock.take();
      const auto after_take = bench::thread_cpu_time();
      const auto passed = clock_type::now() - wall;
      const auto least = before_take - after_stamp;
      const auto most = after_take - before_stamp;
      disturbed += passed > most + 100us;
      const auto counted = timing::timebase::get().to_ns(lap.cost);
      const auto error = std::max(least - counted, counted - most);
      worst_ns = std::max(worst_ns, static_cast<double>((error - most / 100).count()));
    }
    out["accuracy: segments of 300 that were preempted"] = disturbed;
    out["accuracy: worst error beyond 1 %, ns"] = worst_ns;
  }};
  pin(competitor.native_handle(), cpu);
  measured.join();
  over = true;
  competitor.join();
}

constexpr int calls = 10'000;
constexpr int polls = 400;

/// Runs \p body many times inside polls that are too short to be asked to yield. Returns
/// nanoseconds for each call. A poll in which \p body was asked to yield, because the kernel ran
/// another thread meanwhile, does not count.
template <class Body>
double ns_in_polls(asio_pulse::io_context& io, const asio_pulse::task& task, Body body) {
  std::vector<double> results;
  for (int poll = 0; poll < polls; ++poll) {
    asio_pulse::post(task, [&results, &body] {
      int wanted = 0;
      const auto start = clock_type::now();
      for (int i = 0; i < calls; ++i) wanted += body(i);
      const std::chrono::duration<double, std::nano> took = clock_type::now() - start;
      if (wanted == 0) results.push_back(took.count() / calls);
    });
    io.restart();
    io.run();
  }
  if (results.size() < polls / 2) throw std::runtime_error("a yield was wanted, but none was due");
  return bench::median(results);
}

enum class loop_kind { empty, function, macro };

template <loop_kind Kind>
double ns_in_coroutine(asio_pulse::io_context& io, const asio_pulse::task& task) {
  std::vector<double> results;
  const auto loop = [&results]() -> asio::awaitable<void> {
    for (int poll = 0; poll < polls; ++poll) {
      const auto start = clock_type::now();
      for (int i = 0; i < calls; ++i) {
        bench::keep(i);
        if constexpr (Kind == loop_kind::function) co_await asio_pulse::checkpoint();
        if constexpr (Kind == loop_kind::macro) ASIO_PULSE_CHECKPOINT();
      }
      const std::chrono::duration<double, std::nano> took = clock_type::now() - start;
      results.push_back(took.count() / calls);
      co_await asio::post(asio::use_awaitable);
    }
  };
  io.restart();
  asio_pulse::co_spawn(task, loop(), asio::detached);
  io.run();
  return bench::median(results);
}

/// Makes the checkpoints of the calling thread use a control block.
class shared_block {
 public:
  shared_block() {
    memory_ = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::runtime_error("no memory to share");
    auto& block = static_cast<asio_pulse_scb*>(memory_)[1];
    asio_pulse::hooks::this_thread().hint =
        reinterpret_cast<const std::atomic<std::uint64_t>*>(&block.preempt_seq);
  }
  ~shared_block() {
    asio_pulse::hooks::this_thread().hint = &asio_pulse::hooks::thread_state::no_hint;
    ::munmap(memory_, 4096);
  }
  shared_block(const shared_block&) = delete;
  shared_block& operator=(const shared_block&) = delete;

 private:
  void* memory_;
};

void measure_checkpoints(figures& out) {
  asio_pulse::io_context io{1};
  const asio_pulse::task task{
      io, asio_pulse::task_options{.name = "checkpoints", .budget = 5ms, .per = 5ms}};
  const double loop = ns_in_polls(io, task, [](int i) {
    bench::keep(i);
    return 0;
  });
  const auto asked = [](int i) {
    bench::keep(i);
    return static_cast<int>(asio_pulse::should_yield());
  };
  out["should_yield(), not wanted"] = ns_in_polls(io, task, asked) - loop;
  {
    // A word that a scheduler changes, in shared memory, instead of a word of the program.
    const shared_block block;
    out["should_yield(), not wanted, with a control block"] = ns_in_polls(io, task, asked) - loop;
  }
  const double empty = ns_in_coroutine<loop_kind::empty>(io, task);
  out["co_await checkpoint(), not wanted"] = ns_in_coroutine<loop_kind::function>(io, task) - empty;
  out["ASIO_PULSE_CHECKPOINT(), not wanted"] = ns_in_coroutine<loop_kind::macro>(io, task) - empty;
}

}  // namespace

int main() try {
  figures out;
  measure_budget(out);
  measure_clocks(out);
  measure_accuracy(out);
  measure_checkpoints(out);
  std::string json = "{\"clock\":\"" + std::string(to_string(timing::default_clock().kind)) + "\"";
  for (const auto& [name, value] : out) {
    json += ",\"" + name + "\":" + std::to_string(value);
  }
  std::printf("%s}\n", json.c_str());
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "primitives: %s\n", e.what());
  return 1;
}
