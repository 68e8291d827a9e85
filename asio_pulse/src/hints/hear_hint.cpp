// SPDX-License-Identifier: BSL-1.0
//
// What a worker does at the end of a poll if there is a hint, or was one recently.
#include "hint_hub.hpp"
#include "hint_link.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <utility>

namespace asio_pulse::detail {

void hear_hint(hooks::thread_state& ts, context_core& core, task_state& t,
               timing::ticks now) noexcept {
  ts.hint_seen = ts.hint->load(std::memory_order_relaxed);
  hint_link* const link = ts.link;
  if (link == nullptr) {
    ts.pressured = false;
    ts.pressure = 0;
    return;
  }
  const bool shadow = core.shadow();
  asio_pulse_scb& block = *link->block;
  const hint_watch::outcome o = link->watch.look({.now = now,
                                                  .sequence = ts.hint_seen,
                                                  .lost = read_word(block.lost_hints),
                                                  .pressure = read_word(block.pressure)});
  ts.pressured = o.mode != determinism::deterministic;
  ts.pressure = shadow ? 0 : o.pressure;
  write_word(block.determinism, static_cast<std::uint8_t>(o.mode));
  if (o.lost != 0) core.counted().add<&statistics::hints_lost>(o.lost);
  if (!o.hint) return;
  core.counted().add<&statistics::hints>();
  const bool yielded = std::exchange(ts.yields_for_hint, false);
  if (shadow) return;  // nothing yields, so nothing is acknowledged
  t.core().defer(t);
  const auto how = yielded ? ASIO_PULSE_YIELD_CHECKPOINT : ASIO_PULSE_YIELD_POLL_END;
  acknowledge(block, ts.hint_seen, static_cast<std::uint8_t>(how));
}

}  // namespace asio_pulse::detail
