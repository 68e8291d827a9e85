// SPDX-License-Identifier: BSL-1.0
//
// Statistics, metrics and recordings of a context.
#include "context_companion.hpp"
#include "gate/parking.hpp"
#include "groups/task_groups.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/recording.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>

namespace asio_pulse::detail {

namespace {

using timing::to_ns;
using timing::to_ticks;

// The time between two probes of the queue while the metrics are being read.
constexpr std::chrono::milliseconds probe_interval{10};

}  // namespace

context_metrics context_core::metrics(const metrics_request& what) {
  return companion_->metrics(what);
}

recording context_core::trace() { return companion_->trace(); }

asio_port* context_core::port_for_probe() const noexcept {
  return closed() || strangers_.load(std::memory_order_relaxed) ? nullptr : port_;
}

void context_core::probed(timing::ticks ready) noexcept {
  const timing::ticks now = timing::timebase::get().now();
  const timing::ticks delay = now - std::min(ready, now);
  if (!gate_->probed(delay, now)) return groups_->not_measured();
  groups_->waited(delay, now);
  if (hooks::poll_recorder* const recorder = hooks::this_thread().recorder)
    recorder->note_delay(now, delay, to_ticks(probe_interval));
}

// Under a policy, the probe shows how long the context is saturated, and not how long operations wait.
void context_core::note_turn() noexcept {
  hooks::poll_recorder* const recorder = hooks::this_thread().recorder;
  if (recorder == nullptr) return;
  if (const auto waited = gate_->wait_to_note(to_ticks(probe_interval)))
    recorder->note_delay(timing::timebase::get().now(), *waited, 0);
}

statistics context_core::stats() const noexcept {
  const tier_counts counts = metrics_.snapshot();
  statistics s = counters_.read();
  s.warns = counts.into(tier::warn);
  s.promotions = counts.promotions();
  s.demotions = counts.demotions();
  s.reports = limiter_.sent();
  s.reports_suppressed = limiter_.suppressed();
  s.reports_dropped = reports_dropped_->load(std::memory_order_relaxed);
  s.callback_errors += hooks_.hook_errors();
  s.shadow_saved = to_ns(counts.saved);
  const timing::clock_kind used = clock_in_use_.load(std::memory_order_relaxed);
  s.clock = used != timing::clock_kind::none ? used : clock_;
  s.updates = updates_.load(std::memory_order_relaxed);
  s.parked = gate_->parked();
  s.tasks = tasks_.totals().alive;
  return s;
}

}  // namespace asio_pulse::detail
