// SPDX-License-Identifier: BSL-1.0
//
// A recording, prepared to be replayed many times. asio_pulse/replay.hpp describes the model.

#pragma once

#include <asio_pulse/recording.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace asio_pulse::detail {

inline constexpr std::uint32_t no_poll = std::numeric_limits<std::uint32_t>::max();

struct replay_poll {
  std::chrono::nanoseconds start{0};
  std::chrono::nanoseconds end{0};  ///< includes the polls inside it
  std::chrono::nanoseconds cost{0};
  std::uint32_t task = 0;  ///< index in replay_model::tasks
};

/// A poll that is not inside another one.
struct queued_poll {
  std::chrono::nanoseconds start{0};
  std::chrono::nanoseconds ready{0};  ///< not before that of the previous poll
  std::chrono::nanoseconds takes{0};  ///< until the next poll of the stretch starts
  std::uint32_t poll = 0;             ///< index in replay_model::polls
  std::uint32_t task = 0;             ///< index in replay_model::tasks
};

/// Polls of one worker with no idle time between them: indexes in replay_model::queued.
struct busy_stretch {
  std::size_t first = 0;
  std::size_t end = 0;
};

struct replay_model {
  explicit replay_model(const recording&);

  std::vector<recorded_task> tasks{};  ///< those with polls; ended ones have default budgets
  std::vector<replay_poll> polls{};
  /// The begins and ends of polls, ordered by time: index * 2, and + 1 for an end.
  std::vector<std::uint32_t> steps{};
  std::vector<queued_poll> queued{};
  std::vector<busy_stretch> stretches{};
  std::chrono::nanoseconds length{0};
  std::uint64_t lost = 0;

 private:
  // A probe: when it became ready, and when it ran.
  struct probe {
    std::chrono::nanoseconds ran{0};
    std::chrono::nanoseconds delay{0};
  };

  // A time in which something was ready and had not run.
  struct pending {
    std::chrono::nanoseconds begin{0};
    std::chrono::nanoseconds end{0};
  };

  /// The waits of the probes without overlaps. `probes` is sorted by the time of running.
  static std::vector<pending> merged(const std::vector<probe>& probes);
  void add_worker(const std::vector<recorded_event>& events,
                  const std::vector<std::uint32_t>& task_of, const std::vector<pending>& waits);
  void estimate_ready(const busy_stretch&, const std::vector<probe>& probes);
  void order_steps();
};

/// Simulates the loop of one worker. It keeps its memory from one stretch to the next.
class replay_loop {
 public:
  explicit replay_loop(const replay_model&);

  /// \param put_back  For each poll, whether it is put back.
  /// \param waits     For each queued poll, the time from ready to run. Those of the stretch are
  ///                  written.
  void run(const busy_stretch&, std::span<const char> put_back,
           std::span<std::chrono::nanoseconds> waits);

 private:
  struct parked_list {
    std::uint32_t front = no_poll;
    std::uint32_t back = no_poll;
  };

  void park(std::uint32_t index);
  std::uint32_t release();

  const replay_model& model_;
  std::vector<std::uint32_t> queue_{};  // indexes in replay_model::queued, and the driver
  std::size_t queue_front_ = 0;
  std::vector<std::uint32_t> round_robin_{};  // tasks with parked polls, in round-robin order
  std::size_t round_robin_front_ = 0;
  std::vector<parked_list> parked_;    // indexed by task
  std::vector<std::uint32_t> behind_;  // for each queued poll, the next parked one of its task
  bool driver_posted_ = false;
};

}  // namespace asio_pulse::detail
