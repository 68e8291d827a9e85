// SPDX-License-Identifier: BSL-1.0
//
// Polls that do not end are found, named and reported while they last.

#include <support/competing_load.hpp>
#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/strand.hpp>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::stall_cause;
using asio_pulse::tier;
namespace asio = boost::asio;

// No step here takes this long on a working machine.
constexpr auto for_ever = 30s;

std::uint64_t kernel_id() { return static_cast<std::uint64_t>(::gettid()); }

/// Keeps the thread busy until `done()`, but at most for half a minute.
template <class Done>
[[gnu::noinline]] bool spin_until(Done done) {
  const auto end = std::chrono::steady_clock::now() + for_ever;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

/// The contents of a report.
struct copy {
  report_kind kind;
  std::string task;
  std::string site;
  std::chrono::nanoseconds poll;
  stall_cause cause;
  std::uint64_t thread;
  std::uint64_t suppressed;
  std::size_t frames;
  std::string detail;
  std::string line;
};

/// Collects reports, on whatever thread they come.
class inbox {
 public:
  void add(const report& r) {
    {
      const std::lock_guard lock(mutex_);
      all_.push_back({r.kind, std::string(r.task), std::string(r.site), r.poll, r.cause, r.thread,
                      r.suppressed, r.stack.size(), std::string(r.detail), asio_pulse::format(r)});
    }
    changed_.notify_all();
  }
  template <class Filter>
  std::vector<copy> some(Filter filter) const {
    const std::lock_guard lock(mutex_);
    std::vector<copy> found;
    std::copy_if(all_.begin(), all_.end(), std::back_inserter(found), filter);
    return found;
  }
  std::vector<copy> of(report_kind kind, const std::string& task = {}) const {
    return some([&](const copy& c) { return c.kind == kind && (task.empty() || c.task == task); });
  }
  bool has(report_kind kind, const std::string& task = {}) const { return !of(kind, task).empty(); }
  /// Blocks until a report passes.
  template <class Filter>
  [[nodiscard]] bool wait(Filter filter) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, for_ever,
                             [&] { return std::any_of(all_.begin(), all_.end(), filter); });
  }
  [[nodiscard]] bool wait(report_kind kind) const {
    return wait([kind](const copy& c) { return c.kind == kind; });
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<copy> all_;
};

class watchdog : public testing::Test {
 protected:
  /// Two milliseconds are a stall; nothing else is of interest, and everything is reported.
  asio_pulse::options opts() {
    asio_pulse::options o = steady();
    o.stall_threshold = 2ms;
    o.on_report = [this](const report& r) { got.add(r); };
    return o;
  }
  /// Runs all handlers, and then waits until the end of the last stall is reported.
  static void run(asio_pulse::io_context& io) {
    io.restart();
    io.run();
  }
  inbox got;
};

TEST_F(watchdog, an_endless_loop_is_reported_while_it_goes_on) {
  asio_pulse::io_context io{opts()};
  const asio_pulse::task t{io, unlimited("hog")};
  std::uint64_t thread = 0;
  asio_pulse::post(t, [&] {
    thread = kernel_id();
    EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); }));
  });
  run(io);
  ASSERT_TRUE(got.wait(report_kind::stall_ended));
  const copy began = got.of(report_kind::stall).front();
  EXPECT_EQ(began.task, "hog");
  EXPECT_EQ(began.thread, thread);
  EXPECT_GE(began.poll, 2ms);
  EXPECT_NE(began.cause, stall_cause::blocked);
  EXPECT_NE(began.site, "");
  const copy ended = got.of(report_kind::stall_ended).front();
  EXPECT_EQ(ended.task, "hog");
  EXPECT_EQ(ended.thread, thread);
  EXPECT_GE(ended.poll, began.poll);
  EXPECT_FALSE(got.has(report_kind::slow_poll)) << "told twice";
  const asio_pulse::statistics s = io.stats();
  EXPECT_EQ(s.stalls, 1U);
  EXPECT_EQ(s.stall_reports, got.of(report_kind::stall).size() + 1);
}

TEST_F(watchdog, names_the_function_that_is_stuck) {
  if (asio_pulse::stack_support() != asio_pulse::stack_detail::full) {
    GTEST_SKIP() << "built without libdw";
  }
  if (thread_sanitizer) {
    GTEST_SKIP() << "ThreadSanitizer delivers the signal inside its own code, which has no unwind "
                    "tables to the end";
  }
  asio_pulse::io_context io{opts()};
  // On a busy machine a thread may not answer in time: one report of several names it.
  const auto names_it = [](const copy& c) {
    return c.frames != 0 && c.line.find("watchdog_test.cpp:") != std::string::npos;
  };
  asio::post(io, [&] { EXPECT_TRUE(spin_until([&] { return !got.some(names_it).empty(); })); });
  run(io);
}

TEST_F(watchdog, a_blocked_handler_is_told_from_a_spinning_one) {
  asio_pulse::io_context io{opts()};
  const asio_pulse::task t{io, unlimited("sleeper")};
  asio_pulse::post(t, [&] {
    EXPECT_TRUE(got.wait([](const copy& c) { return c.cause == stall_cause::blocked; }));
  });
  run(io);
  ASSERT_TRUE(got.wait(report_kind::stall_ended));
  EXPECT_EQ(got.of(report_kind::stall).front().task, "sleeper");
  EXPECT_EQ(io.stats().stalls, 1U);
}

TEST_F(watchdog, repeats_its_report_and_tells_the_whole_length_in_the_end) {
  asio_pulse::io_context io{opts()};
  asio::post(
      io, [&] { EXPECT_TRUE(spin_until([&] { return got.of(report_kind::stall).size() >= 4; })); });
  run(io);
  ASSERT_TRUE(got.wait(report_kind::stall_ended));
  const auto stalls = got.of(report_kind::stall);
  for (std::size_t n = 1; n < stalls.size(); ++n) EXPECT_GT(stalls[n].poll, stalls[n - 1].poll);
  EXPECT_GE(stalls.back().poll, 16ms);  // 2, 4, 8, 16
  EXPECT_GE(got.of(report_kind::stall_ended).front().poll, stalls.back().poll);
  EXPECT_EQ(io.stats().stalls, 1U);
}

TEST_F(watchdog, the_user_hook_is_called_while_it_lasts) {
  asio_pulse::io_context io{opts()};
  std::atomic<int> calls{0};
  std::thread::id seen;
  const auto connection =
      io.hooks().install({.stall = [&](const asio_pulse::hooks::stall_event& e) {
        if (calls == 0) seen = e.thread;
        ++calls;  // the handler reads it from here on
      }});
  asio::post(io, [&] { EXPECT_TRUE(spin_until([&] { return calls != 0; })); });
  run(io);
  EXPECT_EQ(seen, std::this_thread::get_id());
}

TEST_F(watchdog, nested_polls_are_blamed_each_for_itself) {
  asio_pulse::io_context io{opts()};
  const asio_pulse::task outer{io, unlimited("outer")};
  const asio_pulse::task inner{io, unlimited("inner")};
  asio_pulse::post(outer, [&] {
    asio_pulse::post(inner, [&] {
      EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); }));
      EXPECT_FALSE(got.has(report_kind::stall, "outer"));
    });
    while (!got.has(report_kind::stall)) io.poll();
    EXPECT_TRUE(got.wait(report_kind::stall_ended));
    EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall, "outer"); }));
  });
  run(io);
  EXPECT_TRUE(got.wait(
      [](const copy& c) { return c.kind == report_kind::stall_ended && c.task == "outer"; }));
  EXPECT_TRUE(got.has(report_kind::stall_ended, "inner"));
}

TEST_F(watchdog, a_handler_in_a_strand_is_named) {
  asio_pulse::io_context io{opts()};
  const asio_pulse::task t{io, unlimited("stranded")};
  auto strand = asio::make_strand(io);
  {
    const asio_pulse::task_scope scope(t);
    asio::post(strand, [] {});
    asio::post(strand,
               [&] { EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); })); });
    asio::post(strand, [] {});
  }
  run(io);
  EXPECT_TRUE(got.wait(report_kind::stall_ended));
  EXPECT_EQ(got.of(report_kind::stall).front().task, "stranded");
}

asio::awaitable<void> stuck_after_a_while(const inbox& got) {
  const auto executor = co_await asio::this_coro::executor;
  co_await asio::post(executor, asio::use_awaitable);
  EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); }));
  co_await asio::post(executor, asio::use_awaitable);
}

TEST_F(watchdog, a_coroutine_is_named) {
  asio_pulse::io_context io{opts()};
  const asio_pulse::task t{io, unlimited("coroutine")};
  {
    const asio_pulse::task_scope scope(t);
    asio::co_spawn(io, stuck_after_a_while(got), asio::detached);
  }
  run(io);
  EXPECT_TRUE(got.wait(report_kind::stall_ended));
  EXPECT_EQ(got.of(report_kind::stall).front().task, "coroutine");
}

TEST_F(watchdog, each_worker_is_blamed_for_its_own_stall) {
  asio_pulse::io_context io{opts()};
  const asio_pulse::task a{io, unlimited("a")};
  const asio_pulse::task b{io, unlimited("b")};
  const asio_pulse::task quiet{io, unlimited("quiet")};
  std::atomic<std::uint64_t> thread_of_a{0};
  std::atomic<std::uint64_t> thread_of_b{0};
  const auto both = [&] {
    return got.has(report_kind::stall, "a") && got.has(report_kind::stall, "b");
  };
  asio_pulse::post(quiet, [] {});
  asio_pulse::post(a, [&] {
    thread_of_a = kernel_id();
    EXPECT_TRUE(spin_until(both));
  });
  asio_pulse::post(b, [&] {
    thread_of_b = kernel_id();
    EXPECT_TRUE(spin_until(both));
  });
  run_on(io, 2);
  for (const copy& c : got.of(report_kind::stall, "a")) EXPECT_EQ(c.thread, thread_of_a);
  for (const copy& c : got.of(report_kind::stall, "b")) EXPECT_EQ(c.thread, thread_of_b);
  EXPECT_FALSE(got.has(report_kind::stall, "quiet"));
  EXPECT_EQ(io.stats().stalls, 2U);
}

TEST_F(watchdog, what_the_limit_holds_back_is_counted_exactly) {
  asio_pulse::options o = opts();
  o.stall_threshold = 5ms;
  o.report_interval = 1h;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("ten times")};
  const auto start = std::chrono::steady_clock::now;
  for (std::uint64_t n = 1; n <= 10; ++n) {
    asio_pulse::post(t, [&, n] {
      const auto end = start() + 20ms;
      EXPECT_TRUE(spin_until([&] { return start() >= end && io.stats().stalls == n; }));
    });
  }
  run(io);
  EXPECT_TRUE(spin_until([&] { return io.stats().reports_suppressed >= 9; }));
  ASSERT_TRUE(got.wait(report_kind::stall_ended));
  const asio_pulse::statistics s = io.stats();
  EXPECT_EQ(s.stalls, 10U);
  EXPECT_EQ(s.reports_suppressed, 9U) << "one stall was shown, with its end";
  EXPECT_EQ(got.of(report_kind::stall_ended).size(), 1U);
  EXPECT_EQ(s.reports, got.some([](const copy&) { return true; }).size());
}

TEST_F(watchdog, the_next_report_says_how_many_were_held_back) {
  asio_pulse::options o = opts();
  o.report_interval = 200ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("again")};
  std::uint64_t stalls = 0;
  const auto stall_once = [&] {
    asio_pulse::post(
        t, [&, n = ++stalls] { EXPECT_TRUE(spin_until([&] { return io.stats().stalls == n; })); });
    run(io);
  };
  stall_once();
  ASSERT_TRUE(got.wait(report_kind::stall_ended));
  while (io.stats().reports_suppressed < 3) stall_once();
  // One that lasts until it may be shown.
  const auto begun = got.of(report_kind::stall).size();
  const auto shown = got.of(report_kind::stall_ended).size();
  asio_pulse::post(t, [&] {
    EXPECT_TRUE(spin_until([&] { return got.of(report_kind::stall).size() > begun; }));
  });
  run(io);
  EXPECT_TRUE(spin_until([&] { return got.of(report_kind::stall_ended).size() > shown; }));
  std::uint64_t told = 0;
  for (const copy& c : got.some([](const copy&) { return true; })) told += c.suppressed;
  EXPECT_EQ(told, io.stats().reports_suppressed);
}

TEST_F(watchdog, the_task_climbs_while_it_is_stuck_and_once) {
  asio_pulse::options o = opts();
  o.yield_threshold = 4ms;
  o.isolate_threshold = 8ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("climber")};
  asio_pulse::post(
      t, [&] { EXPECT_TRUE(spin_until([&] { return t.current_tier() == tier::isolate; })); });
  run(io);
  EXPECT_TRUE(got.wait(report_kind::stall_ended));
  EXPECT_EQ(t.current_tier(), tier::isolate);
  EXPECT_FALSE(got.has(report_kind::slow_poll));
  EXPECT_TRUE(got.has(report_kind::isolation_refused))
      << "it is not isolatable, and that is reported";
  EXPECT_LE(io.stats().promotions, 3U);
  EXPECT_EQ(io.stats().demotions, 0U);
}

TEST_F(watchdog, in_shadow_mode_it_only_tells) {
  asio_pulse::options o = opts();
  o.shadow = true;
  o.yield_threshold = 2ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("shadow")};
  asio_pulse::post(t, [&] {
    EXPECT_TRUE(spin_until([&] { return got.of(report_kind::stall).size() >= 3; }));
    EXPECT_EQ(t.current_tier(), tier::monitor) << "decided at the end of the poll, as usual";
  });
  run(io);
  EXPECT_TRUE(got.wait(report_kind::stall_ended));
}

TEST_F(watchdog, is_switched_off_with_its_option_its_threshold_and_the_context) {
  for (int way = 0; way < 3; ++way) {
    asio_pulse::options o = opts();
    if (way == 0) o.watchdog = false;
    if (way == 1) o.stall_threshold = 0ns;
    if (way == 2) o.enabled = false;
    asio_pulse::io_context io{o};
    // A watched context beside it, so that the watchdog is awake.
    asio_pulse::io_context other{opts()};
    asio::post(io, [&] { burn(10ms); });
    run(io);
    asio::post(other, [&] { EXPECT_TRUE(spin_until([&] { return other.stats().stalls == 1; })); });
    run(other);
    EXPECT_EQ(io.stats().stalls, 0U);
  }
}

TEST_F(watchdog, a_critical_section_is_named_and_its_overstay_told_while_it_lasts) {
  asio_pulse::options o = opts();
  o.max_critical = 1ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("critical")};
  asio_pulse::post(t, [&] {
    const asio_pulse::critical_section guard;
    EXPECT_TRUE(spin_until(
        [&] { return got.has(report_kind::stall) && got.has(report_kind::critical_overstay); }));
  });
  run(io);
  const auto overstay = got.of(report_kind::critical_overstay);
  ASSERT_FALSE(overstay.empty());
  EXPECT_EQ(overstay.front().task, "critical");
  EXPECT_NE(overstay.front().detail.find("has not ended"), std::string::npos);
  EXPECT_EQ(got.of(report_kind::stall).front().detail, "in a critical section");
}

TEST_F(watchdog, sees_a_run_through_the_base_class) {
  asio_pulse::io_context io{opts()};
  asio::io_context& base = io;
  asio::post(base, [&] { EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); })); });
  std::thread([&] { base.run(); }).join();
  EXPECT_TRUE(got.wait(report_kind::stall_ended));
}

TEST_F(watchdog, sees_poll_one_and_threads_that_come_and_go) {
  asio_pulse::io_context io{opts()};
  for (std::uint64_t n = 1; n <= 5; ++n) {
    asio::post(io, [&, n] { EXPECT_TRUE(spin_until([&] { return io.stats().stalls == n; })); });
    std::thread([&] {
      io.restart();
      io.poll_one();
    }).join();
  }
}

TEST_F(watchdog, stop_during_a_stall_waits_for_the_handler_alone) {
  asio_pulse::io_context io{opts()};
  std::atomic<bool> released{false};
  bool other_ran = false;
  asio::post(io, [&] { EXPECT_TRUE(spin_until([&] { return released.load(); })); });
  asio::post(io, [&] { other_ran = true; });
  std::thread worker([&] { io.run(); });
  EXPECT_TRUE(got.wait(report_kind::stall));
  io.stop();
  released = true;
  worker.join();
  EXPECT_FALSE(other_ran);
  EXPECT_TRUE(got.wait(report_kind::stall_ended));
}

// The context is destroyed as early as Asio allows, whatever the watchdog does.
TEST_F(watchdog, no_report_comes_after_the_context_is_gone) {
  asio_pulse::options o = opts();
  o.stall_threshold = 1ms;
  std::atomic<bool> gone{false};
  std::atomic<int> late{0};
  o.on_report = [&](const report&) { late += gone.load() ? 1 : 0; };
  for (int n = 0; n < 100; ++n) {
    gone = false;
    {
      asio_pulse::io_context io{o};
      const asio_pulse::task t{io, unlimited("short")};
      const auto end = std::chrono::steady_clock::now() + 900us + n * 2us;
      asio_pulse::post(t,
                       [&] { spin_until([&] { return std::chrono::steady_clock::now() > end; }); });
      io.run();
    }
    gone = true;
  }
  EXPECT_EQ(late, 0);
}

TEST_F(watchdog, the_destructor_waits_for_a_report_in_progress) {
  std::atomic<bool> inside{false};
  std::atomic<bool> let_go{false};
  std::atomic<bool> returned{false};
  asio_pulse::options o = opts();
  o.on_report = [&](const report& r) {
    if (r.kind != report_kind::stall_ended) return;
    inside = true;
    EXPECT_TRUE(spin_until([&] { return let_go.load(); }));
    returned = true;
  };
  auto io = std::make_unique<asio_pulse::io_context>(o);
  asio::post(*io, [&] { EXPECT_TRUE(spin_until([&] { return io->stats().stall_reports != 0; })); });
  io->run();
  ASSERT_TRUE(spin_until([&] { return inside.load(); }));
  std::thread destroyer([&] {
    io.reset();
    EXPECT_TRUE(returned);
  });
  let_go = true;
  destroyer.join();
}

TEST_F(watchdog, a_report_may_throw_or_destroy_what_it_likes) {
  asio_pulse::options o = opts();
  std::atomic<bool> idle{false};
  std::atomic<bool> done{false};
  auto other = std::make_unique<asio_pulse::io_context>(opts());
  std::unique_ptr<asio_pulse::io_context> io;
  o.on_report = [&](const report& r) {
    if (r.kind == report_kind::stall) {
      other.reset();
      throw 42;
    }
    if (r.kind == report_kind::stall_ended) {
      EXPECT_TRUE(spin_until([&] { return idle.load(); }));
      auto own = std::move(io);
      EXPECT_GE(own->stats().callback_errors, 1U);
      own.reset();  // this function is destroyed with it at the end of the call
      done = true;
    }
  };
  io = std::make_unique<asio_pulse::io_context>(std::move(o));
  asio::post(*io, [&] { EXPECT_TRUE(spin_until([&] { return io->stats().stall_reports != 0; })); });
  io->run();
  idle = true;
  EXPECT_TRUE(spin_until([&] { return done.load(); }));
  EXPECT_EQ(other, nullptr);
  // It is still there for others.
  asio_pulse::io_context next{opts()};
  asio::post(next, [&] { EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); })); });
  run(next);
}

using watchdog_timing = watchdog;

TEST_F(watchdog_timing, cooperative_handlers_are_never_reported) {
  asio_pulse::options o = opts();
  o.stall_threshold = 1ms;
  o.yield_threshold = o.isolate_threshold = 0ns;
  asio_pulse::io_context io{o};
  const int handlers = thread_sanitizer ? 1'000 : 10'000;
  // If a hypervisor takes the CPU in the middle of a handler, that time may be charged to the
  // thread. So such a handler may count as slow.
  std::uint64_t overran = 0;
  for (int n = 0; n < handlers; ++n) {
    asio::post(io, [&overran] {
      const auto begun = thread_cpu();
      burn(800us);
      if (thread_cpu() - begun > 950us) ++overran;
    });
  }
  run(io);
  EXPECT_LT(overran, static_cast<std::uint64_t>(handlers) / 2);
  // ThreadSanitizer makes the watchdog's looks many times slower than the handlers that it looks
  // at.
  const std::uint64_t allowed = overran + (thread_sanitizer ? 5 : 0);
  EXPECT_LE(io.stats().stalls, allowed);
  if (io.stats().stalls <= allowed) return;
  for (const copy& c : got.of(report_kind::stall)) ADD_FAILURE() << c.line;
}

TEST_F(watchdog_timing, competing_load_is_nobodys_fault) {
  const competing_load load;
  asio_pulse::options o = opts();
  o.stall_threshold = 2ms;
  o.yield_threshold = o.isolate_threshold = 0ns;
  asio_pulse::io_context io{o};
  std::uint64_t overran = 0;  // as above
  for (int n = 0; n < 1'000; ++n) {
    asio::post(io, [&overran] {
      const auto begun = thread_cpu();
      burn(500us);
      if (thread_cpu() - begun > 1900us) ++overran;
    });
  }
  run(io);
  EXPECT_LE(overran, 100U);
  const std::uint64_t allowed = overran + (thread_sanitizer ? 5 : 0);  // as above
  EXPECT_LE(io.stats().stalls, allowed);
  if (io.stats().stalls <= allowed) return;
  for (const copy& c : got.of(report_kind::stall)) ADD_FAILURE() << c.line;
}

TEST_F(watchdog_timing, a_stopped_process_is_nobodys_fault) {
  asio_pulse::options o = opts();
  o.stall_threshold = 5ms;
  asio_pulse::io_context io{o};
  const pid_t helper = ::fork();
  ASSERT_GE(helper, 0);
  if (helper == 0) {
    // Async-signal-safe calls only.
    const pid_t parent = ::getppid();
    const timespec moment{.tv_sec = 0, .tv_nsec = 200'000'000};
    const timespec pause{.tv_sec = 2, .tv_nsec = 0};
    ::nanosleep(&moment, nullptr);
    ::kill(parent, SIGSTOP);
    ::nanosleep(&pause, nullptr);
    ::kill(parent, SIGCONT);
    ::_exit(0);
  }
  std::function<void()> next = [&] {
    burn(500us);
    int status = 0;
    if (::waitpid(helper, &status, WNOHANG) == 0) asio::post(io, next);
  };
  asio::post(io, next);
  run(io);
  EXPECT_EQ(io.stats().stalls, 0U);
  for (const copy& c : got.of(report_kind::stall)) ADD_FAILURE() << c.line;
}

// ---- workers that come and go

/// Two workers are stuck, and one of them ends while the other is being reported. Both are due by
/// then, and the look that found both finds that the second one's thread has ended.
TEST_F(watchdog, a_worker_may_end_while_another_is_told_of) {
  struct stuck_worker {
    std::atomic<std::uint64_t> number{0};
    std::atomic<bool> released{false};
    std::thread thread;
  };
  std::array<stuck_worker, 2> workers;
  // Of the threads. One is joined once, by the receiver of the reports or by the test.
  std::mutex joining;
  const auto join = [&joining](stuck_worker& w) {
    const std::lock_guard lock(joining);
    if (w.thread.joinable()) w.thread.join();
  };
  int reports_of_both = 0;
  std::atomic<bool> ended{false};
  asio_pulse::options o = opts();
  o.on_report = [&](const report& r) {
    got.add(r);
    const auto told = [&](const stuck_worker& w) {
      return !got.some([&](const copy& c) { return c.thread == w.number; }).empty();
    };
    if (r.kind != report_kind::stall || !told(workers[0]) || !told(workers[1])) return;
    ++reports_of_both;
    if (reports_of_both == 1) {
      std::this_thread::sleep_for(300ms);  // both are due, several times over
    } else if (reports_of_both == 2) {
      stuck_worker& other = workers[r.thread == workers[0].number ? 1 : 0];
      other.released = true;
      join(other);
      ended = true;
    }
  };
  asio_pulse::io_context io{o};
  auto work = asio::make_work_guard(io);
  // Either worker may run either handler.
  const auto get_stuck = [&workers] {
    const stuck_worker& mine = workers[workers[0].number == kernel_id() ? 0 : 1];
    EXPECT_TRUE(spin_until([&mine] { return mine.released.load(); }));
  };
  for (stuck_worker& w : workers) {
    {
      const std::lock_guard lock(joining);
      w.thread = std::thread([&io, &w, &get_stuck] {
        w.number = kernel_id();
        asio::post(io, get_stuck);
        io.run_one();
      });
    }
    ASSERT_TRUE(spin_until([&] { return w.number != 0; }));
  }
  EXPECT_TRUE(spin_until([&] { return ended.load(); }));
  for (stuck_worker& w : workers) w.released = true;
  for (stuck_worker& w : workers) join(w);
  EXPECT_TRUE(spin_until([&] { return got.of(report_kind::stall_ended).size() == 2; }));
}

// ---- idle workers

/// Voluntary switches of the watchdog's thread: how often it has gone to sleep.
long sleeps_of_watchdog() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream name(entry.path() / "comm");
    std::string text;
    std::getline(name, text);
    if (text != "pulse-watch") continue;
    std::ifstream status(entry.path() / "status");
    for (std::string line; std::getline(status, line);) {
      const std::string key = "voluntary_ctxt_switches:";
      if (line.starts_with(key)) return std::stol(line.substr(key.size()));
    }
  }
  return -1;
}

TEST_F(watchdog, does_not_wake_while_nothing_runs_and_wakes_with_the_first_poll) {
  asio_pulse::io_context io{opts()};
  auto work = asio::make_work_guard(io);
  std::atomic<bool> ran{false};
  asio::post(io, [&] { ran = true; });
  std::thread worker([&] { io.run(); });
  ASSERT_TRUE(spin_until([&] { return ran.load(); }));
  ASSERT_TRUE(spin_until([&] { return sleeps_of_watchdog() >= 0; })) << "no thread pulse-watch";
  bool slept = false;
  for (int tries = 0; tries < 50 && !slept; ++tries) {
    const long before = sleeps_of_watchdog();
    std::this_thread::sleep_for(300ms);  // the measurement: nothing happens in this time
    slept = sleeps_of_watchdog() == before;
  }
  EXPECT_TRUE(slept);
  asio::post(io, [&] { EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); })); });
  EXPECT_TRUE(got.wait(report_kind::stall));
  work.reset();
  worker.join();
}

TEST_F(watchdog, a_forked_child_gets_its_own) {
  if (thread_sanitizer) GTEST_SKIP() << "ThreadSanitizer supports no threads in a forked child";
  asio_pulse::io_context io{opts()};
  asio::post(io, [&] { EXPECT_TRUE(spin_until([&] { return got.has(report_kind::stall); })); });
  run(io);
  ASSERT_TRUE(got.wait(report_kind::stall_ended));
  for (const bool new_thread : {false, true}) {
    io.notify_fork(asio::execution_context::fork_prepare);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      io.notify_fork(asio::execution_context::fork_child);
      const auto stalls = io.stats().stalls;
      asio::post(io, [&] { spin_until([&] { return io.stats().stalls > stalls; }); });
      const auto go = [&] { run(io); };
      if (new_thread) {
        std::thread(go).join();
      } else {
        go();
      }
      ::_exit(io.stats().stalls == stalls + 1 ? 0 : 1);
    }
    io.notify_fork(asio::execution_context::fork_parent);
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  const auto stalls = io.stats().stalls;
  asio::post(io, [&] { EXPECT_TRUE(spin_until([&] { return io.stats().stalls > stalls; })); });
  run(io);
}

}  // namespace
