// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "../vm_support.hpp"
#include "scheduler.hpp"
#include "service/control_blocks.hpp"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// \file
/// For tests of the attached scheduler. They run as root in a virtual machine with two CPUs, whose
/// clock is that of the host, but whose speed is not. So they assert counts, ticks and shares of
/// CPU time.

namespace sched_test {

using namespace std::chrono_literals;
namespace scx = asio_pulse::scx;

inline std::uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}
inline std::uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }
inline std::uint64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

/// A clock that advances with the ticks of the machine. It distinguishes lateness of the scheduler
/// from that of the virtual machine, whose ticks come late when the host is busy.
inline std::uint64_t tick_clock_ns() { return clock_ns(CLOCK_MONOTONIC_COARSE); }

/// The machine's tick, as its kernel was built: 4 ms (250 Hz) in Debian's, 1 ms where CONFIG_HZ is
/// 1000.
inline const std::chrono::nanoseconds tick = [] {
  timespec step{};
  ::clock_getres(CLOCK_MONOTONIC_COARSE, &step);
  return std::chrono::nanoseconds{std::chrono::seconds{step.tv_sec}} +
         std::chrono::nanoseconds{step.tv_nsec};
}();

/// The scheduler's slice where a test does not set another one.
inline const std::chrono::nanoseconds default_slice = scx::scheduler_options{}.slice;

/// The most ticks for which a thread that does not sleep keeps its CPU: it loses the CPU at the
/// first tick after the end of its slice, which began at any time between two ticks.
inline unsigned ticks_of(std::chrono::nanoseconds slice) {
  return static_cast<unsigned>((slice + tick - 1ns) / tick) + 1;
}

inline std::uint64_t in_ns(std::chrono::nanoseconds d) {
  return static_cast<std::uint64_t>(d.count());
}

/// A word that the other side changes meanwhile.
template <class T>
T peek(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_ACQUIRE);
}
template <class T>
void poke(T& word, std::type_identity_t<T> value) {
  __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}

inline void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

inline void spin_for(std::chrono::nanoseconds d) {
  const std::uint64_t until = now_ns() + in_ns(d);
  while (now_ns() < until) {
  }
}

/// Acknowledges as the runtime does.
inline bool acknowledge(asio_pulse_scb& block) {
  const std::uint64_t seq = peek(block.preempt_seq);
  if (seq == block.last_ack_seq) return false;
  poke(block.last_ack_seq, seq);
  poke(block.acks, block.acks + 1);
  return true;
}

inline scx::scheduler_options enforced() {
  scx::scheduler_options options;
  options.mode = ASIO_PULSE_MODE_ENFORCED;
  return options;
}

/// The scheduler, attached, with this process's control blocks. Calls into it are serialized.
class bench {
 public:
  explicit bench(const scx::scheduler_options& options = {})
      : scheduler_(options), blocks_(scheduler_.open_process(::getpid()).blocks) {}

  asio_pulse_scb& block(unsigned slot) { return blocks_[slot]; }

  /// The calling thread becomes the worker of this slot. It is not SCHED_EXT yet.
  asio_pulse_scb& register_this(unsigned slot) {
    const std::scoped_lock lock(mutex_);
    scx::prepare_block(block(slot), scheduler_.settings().mode);
    const pid_t tid = vm::this_thread();
    scheduler_.add_worker(tid,
                          {vm::start_ticks(tid), static_cast<std::uint32_t>(::getpid()), slot});
    return block(slot);
  }
  void remove_this(unsigned slot) {
    const std::scoped_lock lock(mutex_);
    scheduler_.remove_worker(vm::this_thread());
    scx::retire_block(block(slot));
  }

  template <class F>
  decltype(auto) with(F f) {
    const std::scoped_lock lock(mutex_);
    return f(scheduler_);
  }
  scx_pulse_counts counts() {
    return with([](scx::scheduler& s) { return s.counts(); });
  }
  void change(const std::function<void(scx_pulse_settings&)>& f) {
    with([&](scx::scheduler& s) {
      scx_pulse_settings settings = s.settings();
      f(settings);
      s.set(settings);
    });
  }
  std::vector<asio_pulse_hint> records() {
    std::vector<asio_pulse_hint> result;
    with([&](scx::scheduler& s) {
      s.consume_hints([&](const asio_pulse_hint& record) { result.push_back(record); });
    });
    return result;
  }
  /// Empty while the scheduler is attached; else why it is not.
  std::string trouble() {
    const auto exit = with([](scx::scheduler& s) { return s.exited(); });
    if (exit) return exit->reason + ": " + exit->message;
    const std::string state = vm::sched_ext_state();
    return state == "enabled" ? "" : "sched_ext is " + state;
  }

 private:
  std::mutex mutex_;
  scx::scheduler scheduler_;
  std::span<asio_pulse_scb> blocks_;
};

/// A SCHED_EXT thread, registered where it has a slot, that runs `body` until it is told to stop.
/// Starting it returns when it is SCHED_EXT.
class ext_thread {
 public:
  using body = std::function<void(const std::atomic<bool>& stop)>;

  explicit ext_thread(body f, int cpu = -1) : ext_thread(nullptr, 0, std::move(f), cpu) {}
  ext_thread(bench& b, unsigned slot, body f, int cpu = -1)
      : ext_thread(&b, slot, std::move(f), cpu) {}
  ext_thread(const ext_thread&) = delete;
  ext_thread& operator=(const ext_thread&) = delete;
  ~ext_thread() { join(); }

  void stop() { stop_ = true; }
  void join() {
    stop();
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] pid_t tid() const { return tid_; }
  /// CPU time of the thread so far.
  [[nodiscard]] std::uint64_t cpu_ns() const { return clock_ns(clock_); }

 private:
  ext_thread(bench* b, unsigned slot, body f, int cpu) {
    std::promise<void> ready;
    thread_ = std::thread([&, f = std::move(f), cpu, b, slot] {
      const body mine = f;
      tid_ = vm::this_thread();
      ::pthread_getcpuclockid(::pthread_self(), &clock_);
      if (cpu >= 0) pin_to(cpu);
      if (b != nullptr) b->register_this(slot);
      vm::enter_sched_ext();
      ready.set_value();
      mine(stop_);
    });
    ready.get_future().wait();
  }

  std::atomic<bool> stop_{false};
  pid_t tid_ = 0;
  clockid_t clock_{};
  std::thread thread_;
};

/// Runs until it is stopped, and counts its turns of the loop where told to.
inline ext_thread::body hog(std::atomic<std::uint64_t>* turns = nullptr) {
  return [turns](const std::atomic<bool>& stop) {
    while (!stop.load(std::memory_order_relaxed))
      if (turns != nullptr) turns->fetch_add(1, std::memory_order_relaxed);
  };
}

/// The p-th of `values`, from 0 to 1.
inline double quantile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto at = static_cast<std::size_t>(p * static_cast<double>(values.size()));
  return values[std::min(at, values.size() - 1)];
}

}  // namespace sched_test
