// SPDX-License-Identifier: BSL-1.0
//
// What two readings of a process show: rates, and what happened in between. A pure function,
// without terminal or connection.

#pragma once

#include <asio_pulse/lints.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace asio_pulse::top {

/// A handler that has been running for this long is highlighted.
inline constexpr std::chrono::nanoseconds long_running = std::chrono::milliseconds{5};
inline constexpr std::chrono::nanoseconds stuck_running = std::chrono::milliseconds{100};

/// A rate per second. Empty if there is no earlier reading.
using rate = std::optional<double>;

struct worker_view {
  worker_metrics now{};  ///< names may be any bytes, as all names here
  rate load{};           ///< share of the interval in which it used a CPU; 1 is all of it
  rate polls{};
  std::string waits_in{};  ///< the system call that it is stuck in
};

struct task_view {
  task_metrics now{};
  rate load{};  ///< recent CPU use; 1 is one CPU
  rate polls{};
};

struct site_view {
  site_metrics now{};
  rate load{};
  rate polls{};
  std::chrono::nanoseconds mean{0};  ///< CPU time of a poll, since the beginning
};

struct group_view {
  group_metrics now{};
  rate load{};  ///< recent CPU use; 1 is one CPU
  // Shares of the recent CPU time of all groups, of one. Empty if they have used none.
  rate got{};
  rate asked{};
  rate admitted{};
  rate refused{};  ///< for both reasons
};

/// Durations that were counted in the interval, or since the beginning if there is none.
struct duration_view {
  std::uint64_t count = 0;
  std::chrono::nanoseconds p50{0};
  std::chrono::nanoseconds p99{0};
  std::chrono::nanoseconds most{0};
};

struct totals_view {
  rate polls{};
  rate load{};                                         ///< of all workers and tasks; 1 is one CPU
  std::array<rate, statistic_table.size()> counted{};  ///< of each counter, by its row in the table
  [[nodiscard]] rate of(std::uint64_t statistics::*member) const noexcept;
};

struct context_view {
  context_metrics now{};  ///< the reading itself; the members below are derived from it
  std::vector<worker_view> workers{};
  std::vector<task_view> tasks{};
  std::vector<site_view> sites{};
  std::vector<group_view> groups{};
  totals_view totals{};
  rate moves_in{};   ///< of a shard
  rate moves_out{};  ///< likewise
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

/// \param before  An earlier reading. If it is null, of another process, or not earlier, there are
///                no rates.
picture make_picture(const process_metrics& now, const process_metrics* before,
                     std::optional<std::chrono::nanoseconds> age = {});

/// The mode of a context in words: "enforcing", "watching only (shadow)", "off".
std::string_view mode_of(const context_metrics&) noexcept;

}  // namespace asio_pulse::top
