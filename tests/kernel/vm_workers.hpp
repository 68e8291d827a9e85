// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "scheduler.hpp"
#include "vm_support.hpp"

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

/// \file
/// SCHED_EXT threads for the tests in the virtual machine.

namespace vm {

/// Runs in a SCHED_EXT thread, again and again, until its owner ends. It is not a worker, because
/// it is not registered.
///
/// \par Thread safety  Distinct objects: safe. Shared objects: constant members are safe.
class spinner {
 public:
  /// The thread is SCHED_EXT when the constructor returns.
  explicit spinner(std::function<void()> turn = [] {}) : turn_(std::move(turn)) {
    thread_ = std::thread{[this] {
      enter_sched_ext();
      tid_ = this_thread();
      while (!stop_.load(std::memory_order_relaxed)) {
        turn_();
        turns_.fetch_add(1, std::memory_order_relaxed);
      }
    }};
    // An ordinary thread that spins here could keep it from the CPU for ever.
    while (tid_.load() == 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  spinner(const spinner&) = delete;
  spinner& operator=(const spinner&) = delete;
  ~spinner() {
    stop_ = true;
    thread_.join();
  }

  [[nodiscard]] pid_t tid() const noexcept { return tid_; }
  [[nodiscard]] std::uint64_t turns() const noexcept { return turns_; }
  /// Whether it does another thousand turns in time.
  [[nodiscard]] bool goes_on(std::uint64_t turns = 1000) const {
    const std::uint64_t before = turns_;
    return eventually([&] { return turns_ >= before + turns; });
  }

 private:
  std::function<void()> turn_;
  std::atomic<pid_t> tid_{0};
  std::atomic<std::uint64_t> turns_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// The identity of a thread of this process, as the scheduler needs it.
inline scx_pulse_registration registration_of(pid_t tid, std::uint32_t slot) {
  return {start_ticks(tid), static_cast<std::uint32_t>(getpid()), slot};
}

/// \name Words of a control block
/// Its other side writes them at any time.
/// @{
template <class T>
T load(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}
template <class T>
void store(T& word, T value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}
/// Reacts to a hint, if there is one, as the runtime does, and returns whether there was one.
inline bool acknowledge(asio_pulse_scb& block) {
  const std::uint64_t seen = load(block.preempt_seq);
  if (seen == load(block.last_ack_seq)) return false;
  store(block.yield_reason, std::uint8_t{ASIO_PULSE_YIELD_CHECKPOINT});
  store(block.last_ack_seq, seen);
  store(block.acks, load(block.acks) + 1);
  return true;
}
/// @}

}  // namespace vm
