// SPDX-License-Identifier: BSL-1.0
//
// How a context reacts to a hint that other threads wait for a worker's CPU.
#include "context_companion.hpp"
#include "parking.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <mutex>
#include <utility>

namespace asio_pulse::detail {

void context_core::defer(task_state& t) noexcept {
  if (&t == unnamed_.get() || options_.shadow || closed()) return;
  gate_->defer(t);
}

void context_core::hinted(hooks::thread_state& ts, hooks::task_record& record,
                          timing::ticks now) noexcept {
  companion_->hinted(ts, static_cast<task_state&>(record), now);
}

void context_core::renew(hooks::thread_state& ts) noexcept {
  ts.service_epoch = hooks::service_epoch.load(std::memory_order_relaxed);
  companion_->renew(ts);
}

}  // namespace asio_pulse::detail
