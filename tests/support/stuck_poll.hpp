// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "support/stalls.hpp"

#include <asio_pulse/hooks/poll_path.hpp>

#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <latch>
#include <mutex>
#include <thread>
#include <utility>

/// \file
/// A poll that stays where a test wants it, without Asio and without a watchdog, for tests of code
/// that looks at stuck threads.

namespace pulse_test {

/// An arbiter that makes no decisions.
class plain_arbiter final : public asio_pulse::hooks::path_arbiter {
 public:
  void before_poll(const asio_pulse::hooks::poll_frame&) noexcept override {}
  void after_poll(const asio_pulse::hooks::poll_frame&, asio_pulse::hooks::task_record&,
                  const asio_pulse::timing::lap&,
                  const asio_pulse::hooks::poll_sum&) noexcept override {}
  asio_pulse::hooks::task_record* accepted(asio_pulse::hooks::task_record*) noexcept override {
    return nullptr;
  }
  asio_pulse::hooks::task_record* listener_of(asio_pulse::hooks::task_record* t) noexcept override {
    return t;
  }
  bool hold_back(asio_pulse::hooks::thread_state&, asio_pulse::hooks::tracked_operation&, void*,
                 void*, asio_pulse::hooks::completes,
                 const asio_pulse::hooks::site&) noexcept override {
    return false;
  }
  void destroy(asio_pulse::hooks::task_record&) noexcept override {}
  asio_pulse::hooks::task_record& unnamed() noexcept override { return unnamed_; }
  void attached(asio_pulse::hooks::thread_state&) noexcept override {}
  void detached(asio_pulse::hooks::thread_state&) noexcept override {}
  asio_pulse::timing::clock_kind clock() const noexcept override {
    return asio_pulse::timing::clock_kind::steady;
  }

 private:
  asio_pulse::hooks::task_record unnamed_{*this};
};

/// A thread that runs `body` as one poll of a task of its own.
class stuck_poll {
 public:
  explicit stuck_poll(std::function<void()> body)
      : thread_([this, work = std::move(body)] { run(work); }) {
    begun_.wait();
  }
  /// Releases the body, if it is one of those in stalls.hpp. Any other must be on its way to its
  /// end.
  ~stuck_poll() {
    stalls::released = true;
    let_go();
    thread_.join();
  }
  stuck_poll(const stuck_poll&) = delete;
  stuck_poll& operator=(const stuck_poll&) = delete;

  /// Lets the thread end, when no other thread looks at it any more.
  void let_go() {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    left_.notify_one();
  }

  [[nodiscard]] pid_t tid() const noexcept { return tid_; }
  [[nodiscard]] const asio_pulse::hooks::thread_state& state() const noexcept { return *state_; }
  /// Identifies the poll.
  [[nodiscard]] asio_pulse::timing::ticks start() const noexcept { return start_; }
  [[nodiscard]] asio_pulse::hooks::task_record& task() noexcept { return task_; }
  [[nodiscard]] plain_arbiter& arbiter() noexcept { return arbiter_; }
  [[nodiscard]] const asio_pulse::hooks::site& site() const noexcept { return site_; }

 private:
  struct operation : asio_pulse::hooks::tracked_operation {};

  void run(const std::function<void()>& body) {
    auto& ts = asio_pulse::hooks::this_thread();
    {
      const asio_pulse::hooks::worker_scope worker(&scheduler_, arbiter_, true);
      ts.current = &task_;
      operation op;
      op.announce();  // of the task
      ts.current = nullptr;
      const asio_pulse::hooks::poll_frame frame(&scheduler_, op, site_);
      tid_ = ::gettid();
      state_ = &ts;
      start_ = ts.clock.last();
      begun_.count_down();
      body();
    }
    // The thread's state must outlive its readers. Not a latch: ThreadSanitizer delivers
    // signals in functions of pthreads.
    std::unique_lock lock(mutex_);
    left_.wait(lock, [this] { return gone_; });
  }

  char scheduler_ = 0;
  plain_arbiter arbiter_;
  asio_pulse::hooks::task_record task_{arbiter_};
  asio_pulse::hooks::site site_{"operation", false};
  pid_t tid_ = 0;
  const asio_pulse::hooks::thread_state* state_ = nullptr;
  asio_pulse::timing::ticks start_ = 0;
  bool gone_ = false;
  std::latch begun_{1};
  std::mutex mutex_;
  std::condition_variable left_;
  std::thread thread_;
};

}  // namespace pulse_test
