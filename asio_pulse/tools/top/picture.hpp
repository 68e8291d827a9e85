// SPDX-License-Identifier: BSL-1.0
//
// What two readings of a process say: rates and what happened in between. Pure: no terminal, no
// connection.

#pragma once

#include <asio_pulse/metrics.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace asio_pulse::top {

/// A handler that has been running for so long stands out.
inline constexpr std::chrono::nanoseconds long_running = std::chrono::milliseconds{5};
inline constexpr std::chrono::nanoseconds stuck_running = std::chrono::milliseconds{100};

/// Rates are a second's. Empty: not known, for there is no earlier reading of it.
using rate = std::optional<double>;

struct worker_view {
  std::uint64_t thread = 0;
  rate load{};  ///< CPU time of an interval, 1: all of it
  rate polls{};
  std::string running{};  ///< any bytes, as all names here
  std::uint64_t running_task = 0;
  std::chrono::nanoseconds running_for{0};
  std::string waits_in{};  ///< stuck in this system call
};

struct task_view {
  task_metrics now{};
  rate load{};  ///< recent CPU time, 1: a CPU
  rate polls{};
};

struct site_view {
  site_metrics now{};
  rate load{};
  rate polls{};
  std::chrono::nanoseconds mean{0};  ///< CPU time of a poll, since the beginning
};

/// Of what was counted in the interval, or since the beginning where there is none.
struct duration_view {
  std::uint64_t count = 0;
  std::chrono::nanoseconds p50{0};
  std::chrono::nanoseconds p99{0};
  std::chrono::nanoseconds most{0};
};

struct totals_view {
  rate polls{};
  rate load{};  ///< of all workers and tasks, 1: a CPU
  rate yields{};
  rate checkpoint_yields{};
  rate isolated{};
  rate stalls{};
  rate reports{};
  rate hints{};
};

struct context_view {
  context_metrics now{};  ///< the reading; of what is below, only what it says itself
  std::vector<worker_view> workers{};
  std::vector<task_view> tasks{};
  std::vector<site_view> sites{};
  totals_view totals{};
  duration_view queue_delay{};
  duration_view poll_duration{};
};

struct picture {
  std::uint64_t pid = 0;
  std::string program{};
  std::string version{};
  std::chrono::system_clock::time_point at{};
  std::optional<std::chrono::nanoseconds> age{};       ///< of the process, where known
  std::optional<std::chrono::nanoseconds> interval{};  ///< between the readings
  std::vector<context_view> contexts{};
  std::vector<lint> lints{};
};

/// \param before  an earlier reading; null, of another process, or not earlier: no rates.
picture make_picture(const process_metrics& now, const process_metrics* before,
                     std::optional<std::chrono::nanoseconds> age = {});

/// What a context is about, in words: "enforcing", "watching only (shadow)", "off".
std::string_view mode_of(const context_metrics&) noexcept;

}  // namespace asio_pulse::top
