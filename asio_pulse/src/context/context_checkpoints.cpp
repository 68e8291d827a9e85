// SPDX-License-Identifier: BSL-1.0
//
// Decides whether a checkpoint yields.
#include "current_poll.hpp"
#include "tightened_quantum.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {

namespace {

using hooks::detail::always_preempt;

// The most checkpoints between two readings of the clock. A loop whose steps suddenly take 20 us is
// noticed after 0.64 ms, and a tight loop pays 1/32 of a reading for each checkpoint.
constexpr std::int32_t max_fuel = 32;

}  // namespace

bool context_core::wants_yield(hooks::thread_state& ts) noexcept {
  const timing::ticks now = timing::timebase::get().now();
  const timing::ticks stamped = ts.clock.last();
  const timing::ticks segment = now - std::min(stamped, now);
  // Fuel is the number of checkpoints until the clock is read again.
  if (ts.checked_at <= stamped) {
    ts.fuel_step = 1;  // the first one in this poll
  } else {
    const timing::ticks since = now - std::min(ts.checked_at, now);
    if (since < check_interval_ / 2) {
      ts.fuel_step = std::min(ts.fuel_step * 2, max_fuel);
    } else if (since > check_interval_) {
      ts.fuel_step = std::max(ts.fuel_step / 2, 1);
    }
  }
  ts.checked_at = now;
  ts.fuel = ts.fuel_step;

  const hooks::poll_frame& frame = *ts.top.load(std::memory_order_relaxed);
  const timing::ticks elapsed = frame.accrued() + segment;
  const timing::ticks quantum =
      ts.pressure == 0 ? quantum_ : tightened_quantum(quantum_, min_slice_, ts.pressure);
  const bool hinted = ts.hint->load(std::memory_order_relaxed) != ts.hint_seen;
  bool wanted = always_preempt() || hinted || elapsed >= quantum;
  if (!wanted && elapsed >= min_slice_ && frame.task() != nullptr) {
    // The segment since the last stamp was not charged yet.
    wanted = frame.task()->budget.remaining(now) < segment;
  }
  if (options_.shadow) wanted = false;
  if (wanted) {
    ts.fuel = 0;  // the next call looks again, in case that the caller does not yield
    if (hinted) {
      ts.flush_at = ts.settle_at = 0;  // so that the end of the poll looks at the hint
      ts.yields_for_hint = true;
    }
    counters_.add<&statistics::checkpoint_yields>();
    mark(hooks::poll_recorder::kind::yielded,
         frame.task() != nullptr ? state_of(*frame.task()) : *unnamed_, 0);
  }
  return wanted;
}

}  // namespace asio_pulse::detail
