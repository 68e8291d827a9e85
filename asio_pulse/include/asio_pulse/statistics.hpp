// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/tier.hpp>
#include <asio_pulse/timing/clock.hpp>
#include <chrono>
#include <cstdint>

namespace asio_pulse {

/// What a context has done so far. Every count only grows, `tasks` excepted.
struct statistics {
  std::uint64_t warns = 0;              ///< promotions into Warn
  std::uint64_t yields = 0;             ///< operations put back at the poll path
  std::uint64_t strand_breaks = 0;      ///< strand batches cut short
  std::uint64_t checkpoint_yields = 0;  ///< times that a checkpoint was told to yield
  std::uint64_t isolated = 0;           ///< handlers run on the isolation pool
  std::uint64_t isolations_refused =
      0;                         ///< times that isolation was wanted and would have been unsafe
  std::uint64_t promotions = 0;  ///< all tiers
  std::uint64_t demotions = 0;   ///< all tiers
  std::uint64_t reports = 0;     ///< sent
  std::uint64_t reports_suppressed = 0;  ///< held back by the limits
  std::uint64_t callback_errors = 0;     ///< exceptions thrown by on_report or by a hook, caught
  std::uint64_t stalls = 0;              ///< polls found stuck, reported or not
  std::uint64_t stalls_spinning = 0;     ///< of these: using their CPU when they were found
  std::uint64_t stalls_blocked = 0;      ///< of these: waiting in the kernel when they were found
  std::uint64_t stall_reports = 0;       ///< sent: the first, repeated ones and those of their end
  std::uint64_t spares_started = 0;      ///< threads that were started to stand in for stuck ones
  std::uint64_t spares = 0;              ///< of these: there are now
  std::uint64_t hints = 0;               ///< of a scheduler, that others wait (hints.hpp)
  std::uint64_t hints_lost = 0;          ///< that the scheduler could not deliver
  std::uint64_t deferrals = 0;           ///< tasks put behind everybody else for a hint
  std::uint64_t parked = 0;              ///< operations put back and not yet released, now
  std::uint64_t tasks = 0;               ///< alive now, without the unnamed one
  /// Shadow mode: CPU time of polls that enforcement would have put behind everybody else's.
  std::chrono::nanoseconds shadow_saved{0};
  timing::clock_kind clock = timing::clock_kind::none;  ///< in use by the workers
  friend bool operator==(const statistics&, const statistics&) = default;
};

/// What one task has done so far.
struct task_statistics {
  std::uint64_t polls = 0;
  std::chrono::nanoseconds cpu{0};
};

}  // namespace asio_pulse
