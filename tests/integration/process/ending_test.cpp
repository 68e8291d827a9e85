// SPDX-License-Identifier: BSL-1.0
//
// Threads and processes that end while handlers run.

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include "told.hpp"

#include <asio_pulse/preemptible.hpp>

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>

namespace {

using namespace pulse_test;
namespace asio = boost::asio;

// ---- pthread_cancel()

void* run_in_thread(void* io) {
  static_cast<asio_pulse::io_context*>(io)->run();
  return nullptr;
}

void cancel(pthread_t thread) {
  void* result = nullptr;
  require(::pthread_cancel(thread) == 0 && ::pthread_join(thread, &result) == 0,
          "the thread is cancelled");
  require(result == PTHREAD_CANCELED, "it ended by the cancellation");
}

/// One worker is cancelled in a handler, and another while it waits for work. The context continues
/// to work.
int cancelled_workers() {
  told reports;
  auto io = std::make_unique<asio_pulse::io_context>(reports.options());
  auto work = asio::make_work_guard(*io);
  for (int n = 0; n != 20; ++n) {
    std::atomic<bool> inside{false};
    pthread_t stuck{};
    require(::pthread_create(&stuck, nullptr, &run_in_thread, &*io) == 0, "a worker begins");
    if (n % 2 == 0) {
      const asio_pulse::task t{*io, {.name = "cancelled"}};
      asio_pulse::post(t, [&] {
        inside = true;
        for (;;) ::sleep(1);
      });
      require(until([&] { return inside.load(); }), "it is in the handler");
      const std::size_t before = reports.count();
      if (n == 0) require(until([&] { return reports.count() > before; }), "its stall is reported");
    } else {
      std::this_thread::sleep_for(5ms);  // then the thread is usually in the reactor
    }
    cancel(stuck);
    bool ran = false;
    asio::post(*io, [&] { ran = true; });
    io->poll();
    require(ran, "the context continues to work");
  }
  work.reset();
  io->run();
  io.reset();
  return 0;
}
const program with_cancelled_workers{"cancelled_workers", &cancelled_workers};

TEST(ends, workers_can_be_cancelled) {
  if (sanitized) GTEST_SKIP() << "sanitizers do not follow pthread_cancel()";
  EXPECT_TRUE(succeeded(with_cancelled_workers.run()));
}

// ---- exit()

/// Is alive until static objects are destroyed.
struct static_object {
  ~static_object() {
    alive = false;
    std::this_thread::sleep_for(500ms);  // long enough for a report
  }
  std::atomic<bool> alive{true};
} a_static_object;

/// A handler calls exit() while another worker is stuck in a handler.
int exit_beside_a_stall() {
  static asio_pulse::options o;
  o.stall_threshold = 1ms;
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  static std::atomic<int> stalls{0};
  o.on_report = [](const asio_pulse::report&) {
    if (!a_static_object.alive) ::_exit(7);
    ++stalls;
    std::this_thread::sleep_for(2ms);
    if (!a_static_object.alive) ::_exit(8);
  };
  auto& io = *new asio_pulse::io_context{o};
  asio::post(io, [] {
    for (;;) asm volatile("");
  });
  std::thread([&io] { io.run(); }).detach();
  require(until([] { return stalls > 0; }), "the stall is reported");
  asio::post(io, [] { std::exit(0); });
  io.run();
  return 1;
}
const program exits_beside_a_stall{"exit_beside_a_stall", &exit_beside_a_stall};

TEST(ends, nothing_is_reported_after_static_objects_are_gone) {
  if (thread_sanitizer) GTEST_SKIP() << "its own exit looks for races with threads that run on";
  for (int n = 0; n != 5; ++n) {
    EXPECT_TRUE(succeeded(exits_beside_a_stall.run()));
  }
}

/// on_report calls exit().
int exit_in_a_report() {
  asio_pulse::options o;
  o.on_report = [](const asio_pulse::report&) { std::exit(0); };
  static asio_pulse::io_context io{o};  // destroyed by exit() while its worker is in a handler
  asio::post(io, [] {
    for (;;) ::pause();
  });
  std::thread([] { io.run(); }).join();
  return 1;
}
const program exits_in_a_report{"exit_in_a_report", &exit_in_a_report};

TEST(ends, a_report_may_end_the_process) {
  if (thread_sanitizer) GTEST_SKIP() << "its own exit looks for races with threads that run on";
  EXPECT_TRUE(succeeded(exits_in_a_report.run()));
}

// ---- fork()

/// A handler on a spare worker forks. The child continues to use the context, and destroys it.
int fork_on_a_spare_worker() {
  asio_pulse::options o;
  o.spare_workers = 1;
  o.stall_threshold = 2ms;
  o.on_report = [](const asio_pulse::report&) {};
  auto io = std::make_unique<asio_pulse::io_context>(o);
  std::atomic<bool> over{false};
  const std::thread::id main_thread = std::this_thread::get_id();
  std::atomic<pid_t> child{-1};
  asio::post(*io, [&] {
    asio::post(*io, [&] {
      require(std::this_thread::get_id() != main_thread, "this runs on a spare worker");
      io->notify_fork(asio::execution_context::fork_prepare);
      const pid_t forked = ::fork();
      io->notify_fork(forked == 0 ? asio::execution_context::fork_child
                                  : asio::execution_context::fork_parent);
      if (forked == 0) {
        ::alarm(60);
        int ran = 0;
        asio::post(*io, [&] { ++ran; });
        io->poll();
        io->stop();
        ::_exit(ran == 1 ? 0 : 1);
      }
      child = forked;
    });
    while (!over) std::this_thread::sleep_for(1ms);
  });
  std::thread judge([&] {
    require(until([&] { return child > 0; }), "the spare worker forks");
    int status = -1;
    require(::waitpid(child, &status, 0) == child && status == 0, "the child continues, and ends");
    over = true;
  });
  io->run();
  judge.join();
  io.reset();
  return 0;
}
const program forks_on_a_spare_worker{"fork_on_a_spare_worker", &fork_on_a_spare_worker};

TEST(ends, a_handler_on_a_spare_worker_may_fork) {
  if (thread_sanitizer) GTEST_SKIP() << "ThreadSanitizer does not follow forks";
  EXPECT_TRUE(succeeded(forks_on_a_spare_worker.run()));
}

/// Runs a handler on a fiber.
void use_a_fiber() {
  asio_pulse::io_context io;
  bool ran = false;
  const std::function<void()> handler = [&] { ran = true; };
  asio::post(io, asio_pulse::preemptible(handler));
  io.run();
  require(ran, "a handler runs on a fiber");
}

/// A child of a process with one thread: its second thread uses the first fiber of the process, and
/// `delay` rounds later the first thread forks.
void fork_beside_the_first_fiber(int delay) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::atomic<bool> begin{false};
    std::thread other([&] {
      while (!begin) {
      }
      use_a_fiber();
    });
    begin = true;
    for (int i = 0; i != delay; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
      ::alarm(20);
      use_a_fiber();
      ::_exit(0);
    }
    int status = -1;
    const bool ended = ::waitpid(grandchild, &status, 0) == grandchild && status == 0;
    other.join();
    ::_exit(ended ? 0 : 1);
  }
  int status = -1;
  require(::waitpid(child, &status, 0) == child && status == 0, "the grandchild has used a fiber");
}

int forks_beside_the_first_fiber() {
  asio_pulse::io_context first;
  asio::post(first, [] {});
  first.run();  // what is made once for a process is there, but for the fibers
  for (int round = 0; round != 60; ++round) fork_beside_the_first_fiber(round * 50000);
  return 0;
}
const program forks_beside_first_fiber{"forks_beside_first_fiber", &forks_beside_the_first_fiber};

TEST(ends, a_fork_beside_the_first_fiber_leaves_no_lock) {
  if (sanitized) GTEST_SKIP() << "a sanitizer's own locks are not made for a fork";
  EXPECT_TRUE(succeeded(forks_beside_first_fiber.run()));
}

}  // namespace
