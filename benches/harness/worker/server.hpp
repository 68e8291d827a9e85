// SPDX-License-Identifier: BSL-1.0
//
// The context of a scenario, that of Asio or of asio-pulse, and what the latter has reported.

#pragma once

#include "../../annotations.hpp"
#include "worker.hpp"

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace worker {

/// Of asio-pulse: options::policy. In stock it is always the order of the queue.
enum class serving { queue, fair, priority, deadline };

struct server_options {
  unsigned workers = 1;
  std::size_t spare_workers = 0;                 ///< of asio-pulse
  std::chrono::milliseconds stall_threshold{5};  ///< of asio-pulse
  bool count_reports = false;                    ///< of asio-pulse: no limit on reports
  serving policy = serving::queue;
  bool always_saturated =
      false;  ///< of asio-pulse: `policy` decides although nothing waits for long
  /// Of asio-pulse: options::admission. Zero: the defaults.
  std::chrono::microseconds admission_target{0};
  std::chrono::microseconds admission_interval{0};
};

class server {
 public:
  explicit server(const server_options& o);
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  bench::io_context& io();

  /// Calls run() on all workers, including this thread, until no work is left.
  void run();

  /// The counters of asio-pulse as values by name, and its events as marks since \p start. Empty in
  /// stock.
  void add_counts(outcome& to, clock_type::time_point start) const;

 private:
  struct state;
  std::unique_ptr<state> state_;
  unsigned workers_;
};

}  // namespace worker
