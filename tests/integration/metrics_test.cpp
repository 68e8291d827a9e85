// SPDX-License-Identifier: BSL-1.0
//
// The metrics of a context's workers, sites and tasks.

#include <support/cpu_work.hpp>
#include <support/scenario.hpp>
#include <support/stuck.hpp>
//
#include <asio_pulse/metrics.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <latch>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
using asio_pulse::context_metrics;
using asio_pulse::instrument_mode;
using pulse_test::burn;
using pulse_test::until;

asio_pulse::options collecting(instrument_mode mode = instrument_mode::on) {
  asio_pulse::options o;
  o.name = "tested";
  o.metrics = mode;
  o.on_report = [](const asio_pulse::report&) {};
  return o;
}

std::uint64_t sum_of_polls(const context_metrics& m) {
  std::uint64_t sum = m.other_sites.polls;
  for (const auto& s : m.sites) sum += s.polls;
  return sum;
}

TEST(metrics, every_poll_is_in_the_histogram_a_site_and_a_worker) {
  asio_pulse::io_context io(collecting());
  asio_pulse::task named(io, {.name = "named", .budget = 0ns});
  for (int i = 0; i < 100; ++i) asio::post(io, [] {});
  for (int i = 0; i < 50; ++i) asio_pulse::post(named, [] {});
  auto strand = asio::make_strand(io);
  for (int i = 0; i < 30; ++i) asio::post(strand, [] {});
  io.run();
  const context_metrics m = io.metrics();
  EXPECT_TRUE(m.collecting);
  EXPECT_EQ(m.name, "tested");
  EXPECT_EQ(m.poll_duration.count, sum_of_polls(m));
  ASSERT_EQ(m.workers.size(), 1U);
  EXPECT_EQ(m.workers[0].polls, m.poll_duration.count);
  EXPECT_EQ(m.workers[0].thread, 0U);  // it has left
  EXPECT_GE(m.poll_duration.count, 180U);
  EXPECT_EQ(m.polls, m.poll_duration.count);
  std::uint64_t buckets = 0;
  for (const auto& b : m.poll_duration.buckets) buckets += b.count;
  EXPECT_EQ(buckets, m.poll_duration.count);
  EXPECT_GT(m.poll_duration.sum, 0ns);
  const auto task =
      std::find_if(m.tasks.begin(), m.tasks.end(), [](const auto& t) { return t.name == "named"; });
  ASSERT_NE(task, m.tasks.end());
  EXPECT_EQ(task->polls, named.stats().polls);
  EXPECT_EQ(task->cpu, named.stats().cpu);
  EXPECT_EQ(task->id, named.id());
}

TEST(metrics, on_demand_begins_with_the_first_question) {
  asio_pulse::io_context io(collecting(instrument_mode::on_demand));
  asio::post(io, [] {});
  io.run();
  EXPECT_FALSE(io.metrics().collecting);
  EXPECT_EQ(io.metrics().poll_duration.count, 0U);
  io.restart();
  asio::post(io, [] {});
  io.run();
  const context_metrics m = io.metrics();
  EXPECT_TRUE(m.collecting);
  EXPECT_EQ(m.poll_duration.count, 1U);
  EXPECT_EQ(m.polls, 2U);
}

// A worker that is in the middle of a long run() also begins to collect.
TEST(metrics, a_running_worker_begins_to_collect) {
  asio_pulse::io_context io(collecting(instrument_mode::on_demand));
  std::atomic<bool> stop{false};
  std::function<void()> again = [&] {
    if (!stop) asio::post(io, again);
  };
  asio::post(io, again);
  std::jthread worker([&] { io.run(); });
  (void)io.metrics();
  const auto patience = std::chrono::steady_clock::now() + 10s;
  while (io.metrics().poll_duration.count == 0 && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_GT(io.metrics().poll_duration.count, 0U);
  stop = true;
}

TEST(metrics, off_is_off) {
  auto o = collecting(instrument_mode::off);
  o.trace = instrument_mode::off;
  asio_pulse::io_context io(o);
  (void)io.metrics();
  asio::post(io, [] {});
  io.run();
  const context_metrics m = io.metrics();
  EXPECT_FALSE(m.collecting);
  EXPECT_EQ(m.poll_duration.count, 0U);
  EXPECT_EQ(m.instrument_bytes, 0U);
  EXPECT_EQ(m.polls, 1U);
}

TEST(metrics, top_tasks_by_cpu_and_the_rest_in_one) {
  asio_pulse::io_context io(collecting());
  std::vector<asio_pulse::task> tasks;
  for (int i = 0; i < 400; ++i) {
    tasks.emplace_back(io, asio_pulse::task_options{.name = std::to_string(i), .budget = 0ns});
  }
  for (int i = 0; i < 400; ++i) {
    asio_pulse::post(tasks[static_cast<std::size_t>(i)], [i] {
      if (i % 100 == 7) burn(20ms);
    });
  }
  io.run();
  context_metrics m = io.metrics({.top_tasks = 4, .top_sites = 1});
  ASSERT_EQ(m.tasks.size(), 4U);
  std::vector<std::string> names;
  for (const auto& t : m.tasks) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"107", "207", "307", "7"}));
  EXPECT_TRUE(std::is_sorted(m.tasks.begin(), m.tasks.end(),
                             [](const auto& a, const auto& b) { return a.cpu > b.cpu; }));
  EXPECT_EQ(m.task_count, 400U);
  std::uint64_t polls = m.other_tasks.polls;
  for (const auto& t : m.tasks) polls += t.polls;
  EXPECT_EQ(polls, m.polls);
  EXPECT_EQ(m.sites.size(), 1U);
  tasks.clear();           // what they used is not forgotten
  EXPECT_TRUE(until([&] {  // the report of a stall may still have one of them
    m = io.metrics({.top_tasks = 0});
    return m.task_count == 0;
  }));
  EXPECT_EQ(m.polls, polls);
  EXPECT_GE(m.cpu, 4ms);
}

TEST(metrics, queue_delay_is_what_a_slow_handler_makes_the_others_wait) {
  asio_pulse::io_context io(collecting());
  std::uint64_t ran = 0;
  // On a busy machine the thread that puts the probes into the queue may come late.
  const auto enough = [&] { return ran >= 15 && io.metrics().queue_delay.count > 5; };
  std::function<void()> slow = [&] {
    ++ran;
    burn(40ms);
    if (ran < 500 && !enough()) asio::post(io, slow);
  };
  asio::post(io, slow);
  const std::size_t counted = io.run();
  EXPECT_EQ(counted, ran);  // probes do not count as handlers
  const context_metrics m = io.metrics();
  EXPECT_GT(m.queue_delay.count, 5U);
  EXPECT_GE(m.queue_delay.quantile(0.99), 15ms);
  EXPECT_EQ(m.poll_duration.count, ran);
}

TEST(metrics, run_counts_are_kept_while_queues_are_probed) {
  asio_pulse::io_context io(collecting());
  auto work = asio::make_work_guard(io);
  std::atomic<std::size_t> counted{0};
  std::atomic<std::size_t> ran{0};
  std::atomic<bool> stop{false};
  std::vector<std::jthread> workers;
  workers.emplace_back([&] {
    while (!stop) counted += io.poll();
  });
  workers.emplace_back([&] {
    while (!stop) counted += io.run_one_for(5ms);
  });
  workers.emplace_back([&] {
    while (!stop) counted += io.run_for(10ms);
  });
  const auto end = std::chrono::steady_clock::now() + 300ms;
  std::size_t posted = 0;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 20; ++i, ++posted) asio::post(io, [&] { ++ran; });
    std::this_thread::sleep_for(200us);
  }
  while (ran < posted) std::this_thread::sleep_for(1ms);
  stop = true;
  workers.clear();
  EXPECT_EQ(counted, posted);
}

TEST(metrics, a_stall_is_kept_with_what_it_was) {
  auto o = collecting();
  o.stall_threshold = 5ms;
  asio_pulse::io_context io(o);
  asio_pulse::task t(io, {.name = "stuck"});
  // It spins in its own code: a stack that begins in the kernel's vDSO may end there.
  std::atomic<bool> over{false};
  asio_pulse::post(t, [&over] {
    while (!over) {
    }
  });
  // On a busy machine a stall can look like the kernel's doing for a while.
  const std::jthread timer([&] {
    const auto patience = std::chrono::steady_clock::now() + 20s;
    while (io.metrics().stalls.empty() && std::chrono::steady_clock::now() < patience) {
      std::this_thread::sleep_for(1ms);
    }
    std::this_thread::sleep_for(100ms);  // for its stack
    over = true;
  });
  io.run();
  context_metrics m;
  const auto patience = std::chrono::steady_clock::now() + 10s;
  do {
    m = io.metrics();
    std::this_thread::sleep_for(1ms);
  } while ((m.stalls.empty() || !m.stalls.front().ended) &&
           std::chrono::steady_clock::now() < patience);
  ASSERT_FALSE(m.stalls.empty());
  const auto& s = m.stalls.front();
  EXPECT_TRUE(s.ended);
  EXPECT_EQ(s.task, "stuck");
  EXPECT_EQ(s.task_id, t.id());
  EXPECT_GE(s.lasted, 5ms);
  EXPECT_NE(s.thread, 0U);
  EXPECT_FALSE(s.site.empty());
  // There is no stack if the thread did not answer in time.
  ASSERT_LE(s.stack.size(), 32U);
  for (const asio_pulse::stack_frame& frame : s.stack) EXPECT_NE(frame.address, 0U);
  if (asio_pulse::stack_support() != asio_pulse::stack_detail::full || s.stack.empty()) return;
  ASSERT_LT(s.blamed, s.stack.size()) << asio_pulse::format(s.stack);
  EXPECT_FALSE(s.stack[s.blamed].module.empty()) << asio_pulse::format(s.stack);
}

TEST(metrics, a_running_poll_is_shown) {
  asio_pulse::io_context io(collecting());
  asio_pulse::task t(io, {.name = "long"});
  std::latch inside(1);
  std::latch leave(1);
  asio::post(io, [] {});
  asio_pulse::post(t, [&] {
    inside.count_down();
    leave.wait();
  });
  std::jthread worker([&] { io.run(); });
  inside.wait();
  std::this_thread::sleep_for(20ms);
  const context_metrics m = io.metrics();
  leave.count_down();
  ASSERT_EQ(m.workers.size(), 1U);
  EXPECT_FALSE(m.workers[0].running.empty());
  EXPECT_GE(m.workers[0].running_for, 15ms);
  EXPECT_EQ(m.workers[0].running_task, t.id());
  EXPECT_NE(m.workers[0].thread, 0U);
}

TEST(metrics, memory_is_bounded_by_the_option_and_who_has_no_room_is_counted) {
  auto o = collecting();
  o.trace = instrument_mode::on;
  o.instrument_bytes = 65536;
  asio_pulse::io_context io(o);
  auto work = asio::make_work_guard(io);
  std::vector<std::jthread> workers;
  std::latch all(8);
  std::latch leave(1);
  for (int i = 0; i < 8; ++i) workers.emplace_back([&] { io.run(); });
  for (int i = 0; i < 8; ++i) {
    asio::post(io, [&] {
      all.count_down();
      leave.wait();
    });
  }
  all.wait();
  const context_metrics m = io.metrics();
  leave.count_down();
  work.reset();
  workers.clear();
  EXPECT_LE(m.instrument_bytes, 65536U);
  EXPECT_GT(m.instrument_bytes, 0U);
  EXPECT_GT(m.uncollected_workers, 0U);
}

TEST(metrics, tasks_come_and_go_while_they_are_counted) {
  asio_pulse::io_context io(collecting());
  auto work = asio::make_work_guard(io);
  std::atomic<bool> stop{false};
  std::array<std::atomic<std::uint64_t>, 2> ran{};
  std::jthread worker([&] { io.run(); });
  std::vector<std::jthread> makers;
  for (std::atomic<std::uint64_t>& mine_ran : ran) {
    makers.emplace_back([&] {
      std::vector<asio_pulse::task> mine;
      for (std::uint64_t made = 0; !stop; ++made) {
        while (made > mine_ran + 1'000 && !stop) std::this_thread::yield();  // the worker is slower
        mine.emplace_back(io, asio_pulse::task_options{.name = "t", .budget = 0ns});
        asio_pulse::post(mine.back(), [&] { ++mine_ran; });
        if (mine.size() > 700) mine.erase(mine.begin(), mine.begin() + 350);
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    const context_metrics m = io.metrics({.top_tasks = 10});
    ASSERT_LE(m.tasks.size(), 10U);
  }
  stop = true;
  makers.clear();
  work.reset();
  worker.join();
  EXPECT_EQ(io.metrics().polls, ran[0] + ran[1]);
}

TEST(metrics, a_nested_run_of_another_context_is_counted_where_it_belongs) {
  asio_pulse::io_context outer(collecting());
  asio_pulse::io_context inner(collecting());
  asio::post(outer, [&] {
    for (int i = 0; i < 10; ++i) asio::post(inner, [] {});
    inner.run();
  });
  asio::post(outer, [] {});
  outer.run();
  EXPECT_EQ(outer.metrics().poll_duration.count, 2U);
  EXPECT_EQ(inner.metrics().poll_duration.count, 10U);
}

TEST(metrics, collect_has_all_contexts) {
  asio_pulse::io_context one(collecting());
  auto o = collecting();
  o.name = "other";
  asio_pulse::io_context two(o);
  const asio_pulse::process_metrics p = asio_pulse::collect();
  std::vector<std::string> names;
  for (const auto& c : p.contexts) names.push_back(c.name);
  EXPECT_NE(std::find(names.begin(), names.end(), "tested"), names.end());
  EXPECT_NE(std::find(names.begin(), names.end(), "other"), names.end());
  EXPECT_EQ(p.pid, static_cast<std::uint64_t>(::getpid()));
  EXPECT_FALSE(p.program.empty());
  EXPECT_FALSE(p.version.empty());
}

TEST(trace, says_what_the_worker_did) {
  auto o = collecting();
  o.trace = instrument_mode::on;
  asio_pulse::io_context io(o);
  asio_pulse::task t(io, {.name = "traced", .budget = 0ns});
  for (int i = 0; i < 5; ++i) asio_pulse::post(t, [] { burn(200us); });
  io.run();
  const asio_pulse::recording r = io.trace();
  ASSERT_EQ(r.workers.size(), 1U);
  EXPECT_EQ(r.workers[0].lost, 0U);
  std::size_t polls = 0;
  std::chrono::nanoseconds end{0};
  for (const auto& e : r.workers[0].events) {
    if (e.kind() != asio_pulse::event_kind::poll || e.task() != t.id()) continue;
    ++polls;
    EXPECT_GE(e.start() + 1us, end);
    EXPECT_GE(e.duration(), 150us);
    EXPECT_LT(e.site(), r.sites.size());
    end = e.start() + e.duration();
  }
  EXPECT_EQ(polls, 5U);
  EXPECT_GE(r.length, 1ms);
  EXPECT_EQ(r.context, "tested");
  const auto named = std::find_if(r.tasks.begin(), r.tasks.end(),
                                  [&](const auto& task) { return task.id == t.id(); });
  ASSERT_NE(named, r.tasks.end());
  EXPECT_EQ(named->name, "traced");
}

}  // namespace
