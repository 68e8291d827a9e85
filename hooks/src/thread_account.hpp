// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <algorithm>
#include <utility>

/// \file
/// A thread's account: the cost of polls of one task that was not charged yet, and the references
/// to the task that the thread has cached for its operations. Inline, because several files of the
/// poll path use it.

namespace asio_pulse::hooks {

/// The task to which the pending ticks belong. To be called only while the thread has an arbiter:
/// then one of the two is set.
inline task_record& account_of(thread_state& ts) noexcept {
  task_record* const t = ts.account != nullptr ? ts.account : ts.unnamed;
  ASIO_PULSE_ASSERT(t != nullptr);
  // NOLINTNEXTLINE(clang-analyzer-core.*): one of the two is set, see above
  return *t;
}

[[nodiscard]] inline bool pending(const thread_state& ts) noexcept {
  return (ts.pending_polls | ts.pending) != 0;
}

/// Charges what is pending to the account's task. Returns whether it is over its budget now.
inline bool settle(thread_state& ts, timing::ticks now) noexcept {
  task_record& t = account_of(ts);
  const timing::ticks cost = std::exchange(ts.pending, 0);
  const std::uint64_t polls = std::exchange(ts.pending_polls, 0);
  ts.charged += cost;
  // Under pressure up to twice the cost is charged, so that a budget lasts half as long.
  const timing::ticks charged = cost + cost * ts.pressure / 100;
  if (ts.charging != 0) {
    if ((ts.charging & charging_mode::shared) != 0) {
      t.count_shared(polls, cost);
      if (t.is_grouped()) t.home->charged(t, cost, false);
      return t.budget.charge_shared(now, charged);
    }
    t.home->charged(t, cost, true);
  }
  t.count_alone(polls, cost);
  return t.budget.charge(now, charged);
}

/// Call it when the account has changed, or when it is settled at another time.
inline void watch_account(thread_state& ts) noexcept {
  const task_record& t = account_of(ts);
  ts.settle_at = std::min(ts.longest_pending, t.attention.load(std::memory_order_relaxed));
  set_recorder(ts, ts.recorder);
  ts.watched_account.store(ts.account, std::memory_order_relaxed);
}

/// Charges what is pending, and releases the references. The thread has no account afterwards.
inline void close_current_account(thread_state& ts) noexcept {
  if (ts.arbiter != nullptr && pending(ts)) settle(ts, ts.clock.last());
  const std::int64_t cached = std::exchange(ts.cached_refs, 0);
  if (task_record* t = std::exchange(ts.account, nullptr)) {
    ASIO_PULSE_ASSERT(cached >= 0);
    ts.watched_account.store(nullptr, std::memory_order_relaxed);
    release(*t, static_cast<std::uint64_t>(1 + cached));  // last: hooks may run in it
  }
}

}  // namespace asio_pulse::hooks
