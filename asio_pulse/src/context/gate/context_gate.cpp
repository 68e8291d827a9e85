// SPDX-License-Identifier: BSL-1.0
//
// Decides which operations are held back.
#include "current_poll.hpp"
#include "parking.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/serial_queue.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>

#include <algorithm>
#include <atomic>

namespace asio_pulse::detail {

using hooks::yield_reason;
using hooks::detail::always_preempt;

// Work that a closed connection has left behind becomes unnamed work. Returns false if the
// operation has to wait behind others of the task, and stays the task's.
bool context_core::make_unnamed(task_state& t, hooks::tracked_operation& op) noexcept {
  if (t.held.load(std::memory_order_relaxed)) return false;
  op.assign(nullptr);
  return true;
}

bool context_core::hold_back(hooks::thread_state& ts, hooks::tracked_operation& op, void* operation,
                             void* owner, hooks::completes how, const hooks::site& what) noexcept {
  task_state& t = op.task() != nullptr ? state_of(*op.task()) : *unnamed_;
  if (t.ended.load(std::memory_order_relaxed) && make_unnamed(t, op)) return false;
  asio_port* const port = port_;
  if (port == nullptr || closed()) return false;
  const bool shadow = live_.shadow();
  if (t.home != this) return false;  // the gate of the task's own context is responsible
  if (owner != port->scheduler()) {
    // Inside a strand. The first handler of a turn always runs, so that the strand makes progress.
    // For strands in a task's executor see next_in_batch().
    if (shadow) return false;
    const hooks::poll_frame* host = ts.top.load(std::memory_order_relaxed);
    if (host == nullptr || host->names()) return false;
    if (current_site().drains ? host->inner_polls() == 0 : !host->has_run(owner)) return false;
    if (!always_preempt() && !gives_way(t, ts)) return false;
    switch (port->break_strand(owner, operation)) {
      case asio_port::strand_break::refused:
        return false;
      case asio_port::strand_break::rest:
        op.set(hooks::tracked_operation::resumes);  // the strand stays locked until its drain ends
        break;
      case asio_port::strand_break::joined:
        break;
    }
    counters_.add<&statistics::strand_breaks>();
    // The strand is locked until its drain ends, so the operation keeps the task.
    if (hooks_.wants_yields()) announce_yield(t, what.type_name, yield_reason::strand);
    return true;
  }
  if (port->in_legacy_strand()) return false;
  if (always_preempt() && op.has(hooks::tracked_operation::held_once)) return false;
  const timing::ticks now = ts.clock.last();
  // Relaxed: a change by another worker at this moment may as well come a little later. In shadow
  // mode too the operation goes behind what its task has parked before.
  const bool queued = t.held.load(std::memory_order_relaxed) ||
                      (!shadow && (t.deferred.load(std::memory_order_relaxed) || always_preempt()));
  const bool may_hold = !shadow && gate_->may_hold(t, ts);
  const bool by_policy = may_hold && t.id() != 0 && gate_->by_policy() && saturated(now);
  const bool over_budget = may_hold && !by_policy && overspent(t, now);
  if (!queued && !over_budget && !by_policy) return false;
  const parking::passing p{.task = t,
                           .op = op,
                           .operation = operation,
                           .over_budget = over_budget,
                           .by_policy = by_policy,
                           .how = how,
                           .now = now};
  // Once the operation is parked, another worker may run it, and with it the task may end.
  const bool told = hooks_.wants_yields();
  const task_ref kept = told || ts.recorder != nullptr ? task_ref(t) : task_ref();
  const parking::outcome o = gate_->pass(p, ts);
  if (o.what == parking::verdict::run) return false;
  mark(hooks::poll_recorder::kind::parked, t, o.held);
  ++ts.phantom_turns;
  if (told) announce_yield(t, what.type_name, o.why, o.held);
  return true;
}

// Whether operations wait in the queue for longer than options::saturation. While that is not known,
// probes measure it.
bool context_core::saturated(timing::ticks now) noexcept {
  const parking::pressure p = gate_->pressed(now);
  if (p == parking::pressure::unknown) {
    asio_port* const port = port_for_probe();
    if (port != nullptr && port->post_probe(true)) gate_->probing(now);
  }
  return p == parking::pressure::saturated;
}

bool context_core::gives_way(task_state& t, const hooks::thread_state& ts) noexcept {
  const timing::ticks now = ts.clock.last();
  const bool pressed = gate_->by_policy() && gate_->pressed(now) == parking::pressure::saturated;
  return (pressed || overspent(t, now)) && gate_->gives_way(t, now, ts);
}

bool context_core::turn_is_over(task_state& t, timing::ticks now) noexcept {
  if (gives_way(t, hooks::this_thread())) return true;
  const serial_queue& queue = *t.serial.load(std::memory_order_acquire);
  return now - std::min(queue.turn_started(), now) >= live_.slice().quantum;
}

bool context_core::drains_strand(void* owner) noexcept {
  const asio_port* const port = port_;
  return port != nullptr && port->drains_strand(owner);
}

// A strand over a task's executor drains its batch inside a single handler of the executor. One
// handler of the batch always runs. Then the strand goes back through the executor, where the turn
// ends as it does after any other handler.
void context_core::next_in_batch(hooks::thread_state& ts, hooks::task_record& record,
                                 void* strand) noexcept {
  task_state& t = state_of(record);
  asio_port* const port = port_;
  if (port == nullptr || t.home != this || live_.shadow() || closed()) return;
  if (ts.owner != port->scheduler()) return;  // on the isolation pool, where no other work waits
  if (!always_preempt() && !turn_is_over(t, ts.clock.last())) return;
  if (!port->put_back_rest(strand)) return;
  counters_.add<&statistics::strand_breaks>();
  if (hooks_.wants_yields()) announce_yield(t, current_site().type_name, yield_reason::strand);
}

void* context_core::release_next() noexcept {
  void* const operation = gate_->release();
  note_turn();
  if (gate_->fault_to_report()) {
    send_report(
        report_kind::misuse, *unnamed_, nullptr, std::chrono::nanoseconds{0},
        "options::custom_policy: pick() threw, or its index was too high; the task that has waited "
        "longest was served instead (see statistics::policy_faults)");
  }
  return operation;
}

void context_core::released_ended(bool stopped) noexcept { gate_->released_ended(stopped); }

void context_core::run_begins() noexcept { gate_->run_begins(); }
bool context_core::stop_noted() const noexcept { return gate_->stop_noted(); }
bool context_core::parks() const noexcept { return gate_->parked() != 0; }

bool context_core::requeue_overtaken() noexcept { return gate_->requeue_overtaken(); }

void* context_core::take_any_parked() noexcept { return gate_->take_any(); }

}  // namespace asio_pulse::detail
