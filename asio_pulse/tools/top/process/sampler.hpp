// SPDX-License-Identifier: BSL-1.0
//
// Reads a process on a separate thread, so that keys work while a process does not answer.

#pragma once

#include "machine.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

namespace asio_pulse::top {

/// \par Thread safety  Only one thread may use it.
class sampler {
 public:
  /// The first reading is made after one interval.
  sampler(watcher from, std::chrono::milliseconds interval);
  sampler(const sampler&) = delete;
  sampler& operator=(const sampler&) = delete;

  /// The newest reading, if it was not taken yet.
  std::optional<reading> take();
  /// Changes the interval. A reading that is then due is made at once.
  void set_interval(std::chrono::milliseconds);
  /// Stops sending requests (true), or resumes (false).
  void pause(bool);

 private:
  void run(const std::stop_token&);

  watcher from_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::chrono::milliseconds interval_;
  bool paused_ = false;
  std::optional<reading> newest_;
  std::jthread thread_;  // the last member, because it uses the others
};

}  // namespace asio_pulse::top
