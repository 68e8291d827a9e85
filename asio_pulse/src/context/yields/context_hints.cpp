// SPDX-License-Identifier: BSL-1.0
//
// How a context reacts to a hint that other threads wait for a worker's CPU.
#include "context_companion.hpp"
#include "current_poll.hpp"
#include "gate/parking.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>

#include <mutex>
#include <utility>

namespace asio_pulse::detail {

void context_core::defer(task_state& t) noexcept {
  if (&t == unnamed_.get() || live_.shadow() || closed()) return;
  gate_->defer(t);
}

void context_core::hinted(hooks::thread_state& ts, hooks::task_record& record,
                          timing::ticks now) noexcept {
  companion_->hinted(ts, static_cast<task_state&>(record), now);
}

void context_core::renew(hooks::thread_state& ts) noexcept {
  ts.service_epoch = hooks::service_epoch.load(std::memory_order_relaxed);
  companion_->renew(ts);
  if (ts.recorder == nullptr) return;
  constexpr std::uint64_t unseen = hooks::poll_recorder::unseen;
  const std::uint64_t updates = updates_.load(std::memory_order_relaxed);
  // Updates from before the thread was traced are not events of its trace.
  const bool traced = ts.recorder->ring_size() != 0;
  const std::uint64_t before = std::exchange(ts.recorder->updates_seen, traced ? updates : unseen);
  if (before != unseen && before != updates) {
    mark(hooks::poll_recorder::kind::updated, *unnamed_, static_cast<std::uint32_t>(updates));
  }
}

}  // namespace asio_pulse::detail
