// SPDX-License-Identifier: BSL-1.0
//
// Reads a process on a thread of its own: keys are answered while a process does not answer.

#pragma once

#include "machine.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

namespace asio_pulse::top {

/// \par Thread safety  One thread uses it.
class sampler {
 public:
  /// Its first reading is due after one interval.
  sampler(watcher from, std::chrono::milliseconds interval);
  sampler(const sampler&) = delete;
  sampler& operator=(const sampler&) = delete;

  /// The newest reading that was not taken yet.
  std::optional<reading> take();
  /// From now on. One that is due already is made at once.
  void set_interval(std::chrono::milliseconds);
  /// No requests meanwhile.
  void pause(bool);

 private:
  void run(const std::stop_token&);

  watcher from_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::chrono::milliseconds interval_;
  bool paused_ = false;
  std::optional<reading> newest_;
  std::jthread thread_;  // the last: it uses the others
};

}  // namespace asio_pulse::top
