// SPDX-License-Identifier: BSL-1.0
//
// Decides whether a checkpoint yields, and tells the program's hooks about yields.
#include "current_poll.hpp"
#include "groups/task_groups.hpp"
#include "tightened_quantum.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/serial_queue.hpp>
#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <thread>

namespace asio_pulse::detail {

namespace {

using hooks::yield_reason;
using hooks::detail::always_preempt;

// The most checkpoints between two readings of the clock. A loop whose steps suddenly take 20 us is
// noticed after 0.64 ms, and a tight loop pays 1/32 of a reading for each checkpoint.
constexpr std::int32_t max_fuel = 32;

}  // namespace

bool context_core::wants_yield(hooks::thread_state& ts) noexcept {
  const timing::ticks now = timing::timebase::get().now();
  const timing::ticks stamped = ts.clock.last();
  const slice_limits slice = live_.slice();
  // Fuel is the number of checkpoints until the clock is read again.
  if (ts.checked_at <= stamped) {
    ts.fuel_step = 1;  // the first one in this poll
  } else {
    const timing::ticks since = now - std::min(ts.checked_at, now);
    if (since < slice.check_interval / 2) {
      ts.fuel_step = std::min(ts.fuel_step * 2, max_fuel);
    } else if (since > slice.check_interval) {
      ts.fuel_step = std::max(ts.fuel_step / 2, 1);
    }
  }
  ts.checked_at = now;
  ts.fuel = ts.fuel_step;

  const slice_verdict verdict = judge_slice(ts, now);
  if (verdict.wanted) {
    yields(ts, verdict);
    ts.fuel = 0;  // the next call looks again, in case that the caller does not yield
  }
  return verdict.wanted;
}

context_core::slice_verdict context_core::judge_slice(const hooks::thread_state& ts,
                                                      timing::ticks now, bool in_check) noexcept {
  const hooks::poll_frame& frame = *ts.top.load(std::memory_order_relaxed);
  const timing::ticks segment = now - std::min(ts.clock.last(), now);
  const slice_limits slice = live_.slice();
  const timing::ticks elapsed = frame.accrued() + segment;
  const timing::ticks quantum =
      ts.pressure == 0 ? slice.quantum
                       : tightened_quantum(slice.quantum, slice.min_slice, ts.pressure);
  slice_verdict verdict;
  verdict.hinted = ts.hint->load(std::memory_order_relaxed) != ts.hint_seen;
  verdict.wanted = verdict.hinted || elapsed >= quantum;
  verdict.why = verdict.hinted ? yield_reason::hint : yield_reason::quantum;
  if (!verdict.wanted && elapsed >= slice.min_slice && frame.task() != nullptr) {
    // The segment since the last stamp was not charged yet.
    const task_state& t = state_of(*frame.task());
    verdict.wanted = t.budget.remaining(now) < segment ||
                     (in_check ? group_known_over_budget(t, now) : group_over_budget(t, now));
    verdict.why = yield_reason::budget;
  }
  if (!verdict.wanted && always_preempt()) {
    verdict.wanted = true;
    verdict.why = yield_reason::forced;
  }
  if (live_.shadow()) verdict.wanted = false;
  return verdict;
}

void context_core::yields(hooks::thread_state& ts, const slice_verdict& verdict) noexcept {
  counters_.add<&statistics::checkpoint_yields>();
  if (verdict.hinted) {
    ts.flush_at = ts.settle_at = 0;  // so that the end of the poll looks at the hint
    ts.yields_for_hint = true;
  }
  hooks::task_record* const record = ts.top.load(std::memory_order_relaxed)->task();
  const task_state& t = record != nullptr ? state_of(*record) : *unnamed_;
  mark(hooks::poll_recorder::kind::yielded, t, 0);
  if (hooks_.wants_yields()) announce_yield(t, current_site().type_name, verdict.why);
}

void context_core::turn_ends(task_state& t) noexcept {
  if (!hooks_.wants_yields()) return;
  serial_queue& queue = *t.serial.load(std::memory_order_acquire);
  if (queue.empty()) return;
  queue.left();  // so that the hook does not run the task's handlers inline
  announce_yield(t, current_site().type_name, yield_reason::turn);
}

void context_core::announce_yield(const task_state& t, std::string_view site, yield_reason why,
                                  std::uint32_t operations) noexcept {
  hooks_.yielded({.task_id = t.id(),
                  .task_name = t.name.get(),
                  .site = site,
                  .thread = std::this_thread::get_id(),
                  .reason = why,
                  .operations = operations});
}

}  // namespace asio_pulse::detail
