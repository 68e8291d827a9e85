// SPDX-License-Identifier: BSL-1.0
#include "../bpf_statistics.hpp"
#include "minimal_bpf.skel.h"
#include "scheduler_support.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include <cstdio>
#include <cstdlib>
#include <latch>

// The cost of scheduling, from the kernel's own statistics of BPF programs: compared with a minimal
// scheduler in the same machine, and with few and many threads. Time in an emulator means little
// and depends on the host's load, so one boot counts instructions.

namespace {

using namespace sched_test;

/// How many nanoseconds an instruction takes in a machine whose clocks count instructions
/// (tests/kernel/run --counted NS); 0 in any other. There only the length of the path is measured.
unsigned ns_per_instruction() {
  const char* const counted = std::getenv("ASIO_PULSE_COUNTED");
  return counted == nullptr ? 0 : static_cast<unsigned>(std::stoul(counted));
}
const char* unit() { return ns_per_instruction() == 0 ? "ns" : "instructions"; }

struct program_time {
  std::uint64_t run_ns = 0;
  std::uint64_t runs = 0;
  std::uint64_t switches = 0;  // runs of `running`
};

/// The sum over programs whose names have this prefix, without ticks, which depend on time and not
/// on switches.
program_time time_of(const std::string& prefix) {
  program_time sum;
  for_each_program([&](const std::string& name, const bpf_prog_info& info, scx::unique_fd&) {
    if (name.rfind(prefix, 0) != 0 || name.find("_tick") != std::string::npos) return;
    sum.run_ns += info.run_time_ns;
    sum.runs += info.run_cnt;
    if (name.find("_runn") != std::string::npos) sum.switches += info.run_cnt;
  });
  return sum;
}

/// Threads with small stacks, on one CPU, that only yield or only sleep. On two, the result would
/// mostly be the time that one virtual CPU waits for a lock of the other.
class crowd {
 public:
  enum class work { yield, sleep };
  crowd(unsigned count, work what) : count_(count), what_(what), there_(count) {
    pin_to(1);  // its threads inherit this, and the policy
    vm::enter_sched_ext();
    ::pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setstacksize(&attributes, 64 * 1024);
    ::pthread_attr_setguardsize(&attributes, 0);
    for (unsigned i = 0; i < count; ++i) {
      ::pthread_t thread{};
      if (::pthread_create(&thread, &attributes, &crowd::run, this) != 0) {
        there_.count_down();
        ++failed_;
        continue;
      }
      threads_.push_back(thread);
    }
    ::pthread_attr_destroy(&attributes);
    vm::leave_sched_ext();
    pin_to(0);
    there_.wait();
  }
  ~crowd() {
    stop_ = true;
    go();
    for (const ::pthread_t thread : threads_) ::pthread_join(thread, nullptr);
  }
  void go() {
    started_ = true;
    started_.notify_all();
  }
  [[nodiscard]] unsigned failed() const { return failed_; }

 private:
  static void* run(void* self) {
    auto& me = *static_cast<crowd*>(self);
    me.there_.count_down();
    me.started_.wait(false);
    timespec nap{0, 200'000};
    while (!me.stop_.load(std::memory_order_relaxed)) {
      if (me.what_ == work::yield)
        ::sched_yield();
      else
        ::clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
    }
    return nullptr;
  }

  const unsigned count_;
  const work what_;
  std::latch there_;
  std::atomic<bool> started_{false};
  std::atomic<bool> stop_{false};
  unsigned failed_ = 0;
  std::vector<::pthread_t> threads_;
};

/// The smallest of several short measurements, because interruptions by the host and other work of
/// the kernel only add to the time.
double cost_of_a_switch(const std::string& prefix, unsigned threads, crowd::work what) {
  const bpf_statistics statistics;
  crowd c(threads, what);
  EXPECT_EQ(c.failed(), 0U);
  c.go();
  const unsigned scale = ns_per_instruction();
  // By then each of the ten thousand threads has had a turn, and the scheduler knows it.
  std::this_thread::sleep_for(scale == 0 ? 300ms : 500ms);
  std::vector<double> each;
  double programs = 0;
  const std::size_t wanted = scale == 0 ? 12 : 5;
  program_time before = time_of(prefix);
  // A thread of the kernel's own may hold the CPU for a while: those come first.
  for (std::size_t i = 0; i < 3 * wanted && each.size() < wanted; ++i) {
    std::this_thread::sleep_for(125ms);
    const program_time after = time_of(prefix);
    const auto switches = static_cast<double>(after.switches - before.switches);
    if (switches > 100) {
      each.push_back(static_cast<double>(after.run_ns - before.run_ns) / switches /
                     std::max(scale, 1U));
      programs = static_cast<double>(after.runs - before.runs) / switches;
    }
    before = after;
  }
  EXPECT_GE(each.size(), 3U);
  std::printf("%-10s %5u threads that %s: %6.0f %s (median %6.0f), %.1f programs a switch\n",
              prefix.c_str(), threads, what == crowd::work::yield ? "yield" : "sleep",
              quantile(each, 0), unit(), quantile(each, 0.5), programs);
  return quantile(each, 0);
}

class minimal_scheduler {
 public:
  minimal_scheduler() : skeleton_(minimal_bpf__open()) {
    bpf_program__set_flags(skeleton_->progs.minimal_init, BPF_F_SLEEPABLE);
    bpf_map__set_map_flags(skeleton_->maps.minimal,
                           1U << 13);  // BPF_F_LINK: it is detached when this process ends
    EXPECT_EQ(minimal_bpf__load(skeleton_), 0);
    bpf_link* const filled = bpf_map__attach_struct_ops(skeleton_->maps.minimal);
    EXPECT_NE(filled, nullptr);
    bpf_link__disconnect(filled);
    bpf_link__destroy(filled);
    bpf_attr attr{};
    attr.link_create.prog_fd = static_cast<std::uint32_t>(bpf_map__fd(skeleton_->maps.minimal));
    attr.link_create.attach_type = 44;  // BPF_STRUCT_OPS
    link_ =
        scx::unique_fd(static_cast<int>(::syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr))));
    EXPECT_TRUE(link_);
  }
  ~minimal_scheduler() {
    link_.reset();
    minimal_bpf__destroy(skeleton_);
    EXPECT_TRUE(vm::eventually([] { return vm::sched_ext_state() == "disabled"; }));
  }

 private:
  minimal_bpf* skeleton_;
  scx::unique_fd link_;
};

double of_minimal(unsigned threads, crowd::work what) {
  const minimal_scheduler s;
  return cost_of_a_switch("minimal", threads, what);
}

double of_ours(unsigned threads, crowd::work what, scx_pulse_local_policy policy,
               bool with_worker = false) {
  scx::scheduler_options options;
  options.policy = policy;
  bench b(options);
  std::unique_ptr<ext_thread> worker;  // a registration makes look-ups, also for the others
  if (with_worker)
    worker = std::make_unique<ext_thread>(
        b, 1,
        [](const std::atomic<bool>& stop) {
          while (!stop) ::sched_yield();
        },
        1);
  const double each = cost_of_a_switch("scx_pulse", threads, what);
  EXPECT_EQ(b.trouble(), "");
  return each;
}

TEST(scheduler_cost, at_most_twice_a_minimal_scheduler) {
  for (const crowd::work what : {crowd::work::yield, crowd::work::sleep}) {
    double minimal = of_minimal(10, what);
    const double ours = of_ours(10, what, SCX_PULSE_ROUND_ROBIN);
    const double priority = of_ours(10, what, SCX_PULSE_PRIORITY);
    const double fair = of_ours(10, what, SCX_PULSE_FAIR);
    minimal = std::min(minimal, of_minimal(10, what));  // the machine may still have been booting
    std::printf("of the minimal one's: round-robin %.2f, priority %.2f, fair %.2f\n",
                ours / minimal, priority / minimal, fair / minimal);
    RecordProperty(what == crowd::work::yield ? "ratio_yield" : "ratio_sleep",
                   std::to_string(ours / minimal));
    for (const double policy : {ours, priority, fair}) EXPECT_LE(policy / minimal, 2);
  }
}

// In instructions, the cost must not grow. By the clock, more threads mean more cache misses with
// any scheduler. The minimal scheduler shows how much that is, and the cost must not grow by more
// than a fifth beyond it.
TEST(scheduler_cost, does_not_grow_with_the_number_of_threads) {
  const double minimal_few = of_minimal(10, crowd::work::yield);
  const double minimal_many = of_minimal(10000, crowd::work::yield);
  // A worker is registered. So the scheduler looks up all threads, and publishes the CPU time of
  // the worker.
  const double few = of_ours(10, crowd::work::yield, SCX_PULSE_ROUND_ROBIN, true);
  const double many = of_ours(10000, crowd::work::yield, SCX_PULSE_ROUND_ROBIN, true);
  const double any = ns_per_instruction() != 0 ? 1.0 : std::max(1.0, minimal_many / minimal_few);
  std::printf("10 000 threads to 10, in %s: %.2f; the minimal scheduler: %.2f\n", unit(),
              many / few, minimal_many / minimal_few);
  RecordProperty("ratio_10000_to_10", std::to_string(many / few));
  RecordProperty("minimal_ratio_10000_to_10", std::to_string(minimal_many / minimal_few));
  EXPECT_LE(many / few, 1.2 * any);
}

// Threads that may not move, and a busy CPU that would take them over. It must not look for them
// all the time.
TEST(scheduler_cost, threads_that_may_not_move_stall_nobody) {
  bench b;
  ext_thread hungry(hog(), 0);
  const double each = cost_of_a_switch("scx_pulse", 2000, crowd::work::yield);
  EXPECT_EQ(b.trouble(), "");
  EXPECT_LT(each, 100e3);
}

}  // namespace
