// SPDX-License-Identifier: BSL-1.0
//
// What a context does about a hint that others wait for a worker's CPU.
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/hint_hub.hpp>
#include <mutex>
#include <utility>

#include "instruments.hpp"

namespace asio_pulse::detail {

void context_core::defer(task_state& t) noexcept {
  if (&t == unnamed_ || options_.shadow || closed()) return;
  const std::lock_guard lock(mutex_);
  t.deferred.store(true, std::memory_order_relaxed);
  set_gate(t);
}

void context_core::hinted(hooks::thread_state& ts, hooks::task_record& record,
                          timing::ticks now) noexcept {
  ts.hint_seen = ts.hint->load(std::memory_order_relaxed);
  hint_link* const link = ts.link;
  if (link == nullptr) {
    ts.pressured = false;
    ts.pressure = 0;
    return;
  }
  asio_pulse_scb& block = *link->block;
  const hint_watch::outcome o = link->watch.look({.now = now,
                                                  .sequence = ts.hint_seen,
                                                  .lost = read_word(block.lost_hints),
                                                  .pressure = read_word(block.pressure)});
  ts.pressured = o.mode != determinism::deterministic;
  ts.pressure = options_.shadow ? 0 : o.pressure;
  write_word(block.determinism, static_cast<std::uint8_t>(o.mode));
  if (o.lost != 0) hints_lost_.fetch_add(o.lost, std::memory_order_relaxed);
  if (!o.hint) return;
  hints_.fetch_add(1, std::memory_order_relaxed);
  const std::uint8_t reason = std::exchange(link->reason, ASIO_PULSE_YIELD_NONE);
  if (options_.shadow) return;  // nothing gives way, so nothing is acknowledged
  auto& t = static_cast<task_state&>(record);
  t.core().defer(t);
  acknowledge(block, ts.hint_seen,
              reason != ASIO_PULSE_YIELD_NONE ? reason : std::uint8_t{ASIO_PULSE_YIELD_POLL_END});
}

void context_core::renew(hooks::thread_state& ts) noexcept {
  ts.service_epoch = hooks::service_epoch.load(std::memory_order_relaxed);
  if (hints_from_ != hint_source::off) take_hints(ts);
  instruments_->renew(ts);
}

}  // namespace asio_pulse::detail
