// SPDX-License-Identifier: BSL-1.0
//
// The whole chain: an asio_pulse::io_context, the command scx_pulse, and the kernel.
#include "vm_support.hpp"
#include "vm_workers.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/bpf/control_block.h>
#include <asio_pulse/hints.hpp>
#include <support/fixed_program.hpp>

#include <boost/asio/post.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using asio_pulse::hint_source;
using clock_type = std::chrono::steady_clock;

const std::string socket_path = "/run/scx_pulse_test.sock";
constexpr int sched_ext = 7;

asio_pulse_scb* block_here() { return asio_pulse::hooks::this_thread().block; }

std::chrono::nanoseconds thread_cpu() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec};
}
void spin(std::chrono::nanoseconds wall) {
  const auto end = clock_type::now() + wall;
  while (clock_type::now() < end) {
  }
}
/// Binds both the worker and the thread that has to wait for it to one CPU.
void bind_here_to(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ASSERT_EQ(::sched_setaffinity(0, sizeof set, &set), 0);
}

class runtime : public testing::Test {
 protected:
  void SetUp() override { ::sched_getaffinity(0, sizeof before_, &before_); }
  void TearDown() override {
    ::sched_setaffinity(0, sizeof before_, &before_);
    if (loader) stop_loader();
  }

  void start_loader(std::vector<std::string> more = {}) {
    std::vector<std::string> command{"scx_pulse", "--socket", socket_path};
    command.insert(command.end(), more.begin(), more.end());
    loader = std::make_unique<vm::child>(command);
    ASSERT_TRUE(vm::eventually(
        [&] {
          return !loader->running() ||
                 (vm::sched_ext_state() == "enabled" && ::access(socket_path.c_str(), F_OK) == 0);
        },
        30s));
    ASSERT_TRUE(loader->running()) << loader->output();
  }
  void stop_loader() {
    loader->signal(SIGTERM);
    EXPECT_EQ(loader->wait(), 0) << loader->output();
    loader.reset();
    EXPECT_EQ(vm::sched_ext_state(), "disabled");
  }

  static asio_pulse::options opts() {
    asio_pulse::options o;
    o.stall_threshold = o.yield_threshold = o.isolate_threshold = 0ns;
    o.on_report = [](const asio_pulse::report&) {};
    o.max_critical = 0ns;
    o.quantum = 1h;  // a yield is the reaction to a hint
    o.hints = hint_source::kernel;
    o.hint_socket = socket_path;
    return o;
  }

  /// Runs `turn` as one handler after another until it returns true. Returns false if it never did.
  static bool run(asio_pulse::io_context& io, const std::function<bool()>& turn,
                  std::chrono::seconds limit = 30s) {
    bool done = false;
    const auto end = clock_type::now() + limit;
    std::function<void()> next = [&] {
      done = turn();
      if (!done && clock_type::now() < end) asio::post(io, next);
    };
    asio::post(io, next);
    io.restart();
    io.run();
    return done;
  }
  /// The same, once the worker has its control block.
  static bool run_attached(asio_pulse::io_context& io, const std::function<bool()>& turn,
                           std::chrono::seconds limit = 30s) {
    return run(
        io,
        [&] {
          if (block_here() != nullptr) return turn();
          spin(100us);
          return false;
        },
        limit);
  }

  std::unique_ptr<vm::child> loader;

 private:
  cpu_set_t before_{};
};

TEST_F(runtime, a_worker_is_scheduled_by_bpf_while_it_runs_and_not_afterwards) {
  ASSERT_NO_FATAL_FAILURE(start_loader());
  asio_pulse::io_context io{opts()};
  int turns = 0;
  EXPECT_TRUE(run_attached(io, [&] {
    EXPECT_EQ(::sched_getscheduler(0), sched_ext);
    if (++turns < 10) return false;
    EXPECT_TRUE(vm::scheduled_by_bpf(vm::this_thread()));
    EXPECT_EQ(vm::load(block_here()->worker_state), ASIO_PULSE_WORKER_RUNNING);
    EXPECT_EQ(vm::load(block_here()->mode), ASIO_PULSE_MODE_OBSERVER_ONLY);
    EXPECT_EQ(asio_pulse::current_hints().source, hint_source::kernel);
    EXPECT_EQ(asio_pulse::hooks::this_thread().clock.kind(),
              asio_pulse::timing::clock_kind::published);
    return true;
  })) << asio_pulse::current_hints().why;
  EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
  EXPECT_EQ(block_here(), nullptr);
}

TEST_F(runtime, its_cpu_clock_is_right_beside_others) {
  ASSERT_NO_FATAL_FAILURE(start_loader());
  bind_here_to(0);
  asio_pulse::io_context io{opts()};
  const asio_pulse::task t{io, {.name = "measured", .budget = 0ns}};
  std::chrono::nanoseconds cpu{};
  std::chrono::nanoseconds wall{};
  std::chrono::nanoseconds charged{};
  {
    vm::spinner rival;  // on this CPU, as its thread was started here
    EXPECT_TRUE(run_attached(io, [&, begun = false]() mutable {
      if (begun) return charged.count() != 0;
      begun = true;
      asio_pulse::post(t, [&] {
        const auto cpu_before = thread_cpu();
        const auto before = clock_type::now();
        spin(500ms);
        wall = clock_type::now() - before;
        cpu = thread_cpu() - cpu_before;
      });
      asio::post(io, [&] { charged = t.stats().cpu; });
      return false;
    }));
  }
  std::printf("wall %.1f ms, CPU %.1f ms, charged %.1f ms\n", 1e-6 * double(wall.count()),
              1e-6 * double(cpu.count()), 1e-6 * double(charged.count()));
  EXPECT_LT(cpu, wall * 9 / 10) << "no other thread has run";
  // Every switch costs a little that one of the clocks has and the other has not, and an emulated
  // one costs a lot. Wall time would be twice as much and more.
  EXPECT_NEAR(double(charged.count()), double(cpu.count()), 0.15 * double(cpu.count()));
}

TEST_F(runtime, a_checkpoint_yields_for_the_kernels_hint_and_that_is_enough) {
  ASSERT_NO_FATAL_FAILURE(start_loader({"--mode", "enforced", "--grace-ms", "200"}));
  bind_here_to(0);
  auto o = opts();
  o.escalation = asio_pulse::escalation_policy::hybrid;
  asio_pulse::io_context io{o};
  vm::spinner rival;
  int yields = 0;
  asio_pulse_scb last{};
  EXPECT_TRUE(run_attached(io, [&] {
    const auto begun = clock_type::now();
    while (!asio_pulse::should_yield()) {
      if (clock_type::now() - begun > 5s) {
        ADD_FAILURE() << "no hint came";
        return true;
      }
    }
    last = *block_here();
    return ++yields == 50;
  }));
  EXPECT_GE(io.stats().hints, 49U);
  EXPECT_EQ(last.escalations, 0U);
  EXPECT_GE(last.acks, 48U);
  EXPECT_EQ(last.yield_reason, ASIO_PULSE_YIELD_CHECKPOINT);
}

/// A handler that ignores hints for a while, beside a thread that waits for the CPU.
struct ignorant_poll {
  std::uint32_t escalations = 0;
  std::uint32_t violations = 0;
  bool attached = false;
  bool hinted = false;
};
ignorant_poll ignore_hints(asio_pulse::options o, const std::function<void()>& what) {
  asio_pulse::io_context io{std::move(o)};
  ignorant_poll result;
  const auto end = clock_type::now() + 30s;
  std::function<void()> turn = [&] {
    if (block_here() == nullptr) {
      spin(100us);
      if (clock_type::now() < end) asio::post(io, turn);
      return;
    }
    result.attached = true;
    const std::uint64_t before = vm::load(block_here()->preempt_seq);
    what();
    result.hinted = vm::load(block_here()->preempt_seq) != before;
    result.escalations = vm::load(block_here()->escalations);
    result.violations = vm::load(block_here()->violations);
  };
  asio::post(io, turn);
  io.run();
  EXPECT_TRUE(result.attached) << asio_pulse::current_hints().why;
  return result;
}

TEST_F(runtime, only_who_agreed_and_did_not_listen_is_escalated_against) {
  ASSERT_NO_FATAL_FAILURE(
      start_loader({"--mode", "enforced", "--grace-ms", "20", "--max-critical-ms", "1000"}));
  bind_here_to(0);
  vm::spinner rival;
  auto o = opts();
  const auto stuck = [] { spin(400ms); };
  ignorant_poll r = ignore_hints(o, stuck);
  EXPECT_TRUE(r.hinted);
  EXPECT_EQ(r.escalations, 0U) << "no policy";
  o.escalation = asio_pulse::escalation_policy::thread_kick;
  r = ignore_hints(o, stuck);
  EXPECT_GE(r.escalations, 1U) << "agreed";
  r = ignore_hints(o, [&] {
    const asio_pulse::critical_section guard;
    stuck();
  });
  EXPECT_EQ(r.escalations, 0U) << "in a critical section";
  EXPECT_EQ(r.violations, 0U);
  r = ignore_hints(o, [&] {
    const asio_pulse::escapable_scope no(false);
    stuck();
  });
  EXPECT_EQ(r.escalations, 0U) << "in a scope that is not escapable";
  o.escapable = false;
  EXPECT_EQ(ignore_hints(o, stuck).escalations, 0U) << "in a context that is not escapable";
  o.escapable = true;
  o.shadow = true;
  EXPECT_EQ(ignore_hints(o, stuck).escalations, 0U) << "in shadow mode";
}

TEST_F(runtime, goes_on_without_the_loader_and_finds_it_again) {
  ASSERT_NO_FATAL_FAILURE(start_loader());
  asio_pulse::io_context io{opts()};
  int killed = 0;
  bool down = false;
  EXPECT_TRUE(run(
      io,
      [&] {
        const bool attached = block_here() != nullptr;
        spin(100us);
        if (!down && attached) {
          if (killed == 2) return true;
          loader->signal(SIGKILL);
          loader->wait();
          down = true;
          ++killed;
        } else if (down && !attached) {
          EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
          if (!vm::eventually([] { return vm::sched_ext_state() == "disabled"; }, 1s)) {
            ADD_FAILURE() << "the scheduler outlives its loader";
            return true;
          }
          start_loader();
          if (HasFatalFailure()) return true;
          down = false;
        }
        return false;
      },
      60s));
  EXPECT_EQ(killed, 2);
}

TEST_F(runtime, an_idle_scheduler_changes_nothing) {
  auto o = opts();
  o.hints = hint_source::off;
  const std::vector<int> without = pulse_test::fixed_program(o);
  ASSERT_NO_FATAL_FAILURE(start_loader(
      {"--slice-ms", "1000"}));  // no thread overruns this slice here, so there is no hint
  o.hints = hint_source::kernel;
  EXPECT_EQ(without, pulse_test::fixed_program(o));
  EXPECT_GE(without.size(), 2000U);
}

// ---- demonstrations: the effect on other threads on the worker's CPU

/// How late a thread that sleeps for a millisecond is woken on this CPU, in microseconds.
std::vector<long> lateness_beside(const std::function<void()>& worker) {
  std::atomic<bool> over{false};
  std::vector<long> late;
  std::thread victim([&] {
    vm::enter_sched_ext();
    // It is CPU-bound itself: any scheduler runs a thread that mostly sleeps at once.
    while (!over) {
      const auto begun = clock_type::now();
      spin(1ms);
      late.push_back(
          std::chrono::duration_cast<std::chrono::microseconds>(clock_type::now() - begun - 1ms)
              .count());
    }
  });
  worker();
  over = true;
  victim.join();
  return late;
}

void tell(const char* what, std::vector<long> samples, const ignorant_poll& worker) {
  std::printf("%s: %zu samples, escalations %u, violations %u, in us:", what, samples.size(),
              worker.escalations, worker.violations);
  for (const long s : samples) std::printf(" %ld", s);
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double q) {
    return samples[std::min(samples.size() - 1, std::size_t(q * double(samples.size())))];
  };
  std::printf("\n%s: p50 %ld p99 %ld max %ld us\n", what, at(0.5), at(0.99), samples.back());
}

TEST_F(runtime, starvation_and_liars_beside_a_victim) {
  bind_here_to(0);
  struct arm {
    const char* name;
    const char* mode;
    asio_pulse::escalation_policy policy;
    bool lies;
  };
  const arm arms[] = {
      {"hog, observer", "observer", asio_pulse::escalation_policy::hybrid, false},
      {"hog, enforced", "enforced", asio_pulse::escalation_policy::hybrid, false},
      {"liar (critical for ever), observer", "observer", asio_pulse::escalation_policy::hybrid,
       true},
      {"liar (critical for ever), enforced", "enforced", asio_pulse::escalation_policy::hybrid,
       true},
  };
  for (const arm& a : arms) {
    ASSERT_NO_FATAL_FAILURE(
        start_loader({"--mode", a.mode, "--grace-ms", "20", "--max-critical-ms", "50"}));
    auto o = opts();
    o.escalation = a.policy;
    ignorant_poll worker;
    const std::vector<long> late = lateness_beside([&] {
      worker = ignore_hints(o, [&] {
        if (a.lies) vm::store(block_here()->critical, std::uint8_t{1});
        spin(1500ms);
      });
    });
    ASSERT_FALSE(late.empty()) << a.name;
    tell(a.name, late, worker);
    const long worst = *std::max_element(late.begin(), late.end());
    // A slice of 5 ms, and a tick of at most 4 ms, emulated. A worker that claims to be in a
    // critical section is protected for 50 ms, once.
    EXPECT_LT(worst, a.lies ? 200'000 : 100'000) << a.name;
    EXPECT_GE(late.size(), 200U) << a.name << ": the other thread got almost no CPU time";
    if (std::string(a.mode) == "observer") {
      EXPECT_EQ(worker.escalations, 0U) << a.name;
    } else {
      EXPECT_GE(worker.escalations, 1U) << a.name;
    }
    EXPECT_EQ(worker.violations != 0, a.lies) << a.name;
    stop_loader();
  }
}

}  // namespace
