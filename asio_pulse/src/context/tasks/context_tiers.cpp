// SPDX-License-Identifier: BSL-1.0
//
// The consequences of a poll for its task: its tier, and what a change of the tier implies.
#include "current_poll.hpp"
#include "decision_lock.hpp"
#include "gate/parking.hpp"
#include "groups/task_groups.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/recording.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace asio_pulse::detail {

using timing::to_ns;

tier_limits context_core::limits_of(const task_state& t) const noexcept {
  const tier_limits limits = live_.limits();
  return &t == unnamed_.get() ? without_enforcement(limits) : limits;
}

void context_core::before_poll(const hooks::poll_frame& frame) noexcept {
  const task_state& t = frame.task() != nullptr ? state_of(*frame.task()) : *unnamed_;
  hooks_.before_poll({.task_id = t.id(),
                      .task_name = t.name.get(),
                      .site = current_site().type_name,
                      .thread = std::this_thread::get_id(),
                      .start = hooks::this_thread().clock.last(),
                      .cost = 0,
                      .exact = true});
}

void context_core::after_poll(const hooks::poll_frame& frame, hooks::task_record& record,
                              const timing::lap& last, const hooks::poll_sum& sum) noexcept {
  task_state& t = state_of(record);
  // Time off the CPU is not the task's fault.
  if (const shard_figures* const s = shard(); s != nullptr && sum.total >= s->stuck_ticks &&
                                              (last.exact || live_.limits().trust_occupancy)) {
    t.long_polls.fetch_add(1, std::memory_order_relaxed);
  }
  if (!sum.part && hooks_.wants_polls()) {
    hooks_.after_poll({.task_id = t.id(),
                       .task_name = t.name.get(),
                       .site = current_site().type_name,
                       .thread = std::this_thread::get_id(),
                       .start = sum.started,
                       .cost = sum.total,
                       .exact = last.exact});
  }
  // The task's own context decides about it, whichever context runs it.
  t.core().judge(frame, t, last, sum);
}

void context_core::judge(const hooks::poll_frame& frame, task_state& t, const timing::lap& last,
                         const hooks::poll_sum& sum) noexcept {
  decision_lock deciding(t);
  if (!deciding) return;
  const tier_limits limits = limits_of(t);
  const tier_decision decision = tier_manager::on_poll(
      t.tiers, t.budget,
      {.now = last.now,
       .cost = sum.total,
       .over_budget = sum.over_budget,
       .exact = last.exact,
       .would_park = limits.shadow && holds_back(t.tiers.level) && sum.over_budget},
      limits);
  apply(t, decision);
  deciding.unlock();
  announce(t, decision);
  if (decision.promoted() && isolates(decision.to) && !limits.shadow && !may_isolate(t)) {
    refuse_isolation(t, &frame);
  }
  if (!decision.report) return;
  // The watchdog has reported the poll while it lasted, and reports its end.
  if (decision.slow && sum.stalled) return;
  // A used up budget alone does no harm. It is reported if the program has set the budget and the
  // task was held back because other work was waiting, and in shadow mode, where nothing is held
  // back.
  if (!decision.slow && !limits.shadow && !(t.declared() && gate_->held_since_asked(t))) return;
  report r;
  r.kind = decision.slow ? report_kind::slow_poll : report_kind::over_budget;
  r.site = current_site().type_name;
  r.poll = to_ns(last.now - std::min(sum.started, last.now));
  r.cpu_or_occupancy = to_ns(sum.total);
  r.exact = last.exact;
  r.before = decision.from;
  r.after = decision.to;
  r.why = decision.why;
  send(r, t, &frame);
}

void context_core::announce(const task_state& t, const tier_decision& decision) noexcept {
  decision.for_each_step([&](tier from, tier to, reason) {
    hooks_.tier_changed({.task_id = t.id(),
                         .task_name = t.name.get(),
                         .from = static_cast<int>(from),
                         .to = static_cast<int>(to)});
  });
}

void context_core::apply(task_state& t, const tier_decision& decision) noexcept {
  metrics_.count(decision);
  const bool quiet = t.tiers.level == tier::monitor && !t.tiers.excused;
  show_attention(t, quiet);
  if (!decision.changed()) return;
  t.level.store(t.tiers.level, std::memory_order_relaxed);
  mark(hooks::poll_recorder::kind::tier, t,
       recorded_event::tier_change(decision.from, decision.to));
  gate_->set_gate(t);
}

timing::ticks context_core::quiet_below(const task_state& t) const noexcept {
  const timing::ticks below = limits_of(t).quiet_below;
  const shard_figures* const s = shard();
  return s == nullptr ? below : std::min(below, s->stuck_ticks);
}

// An update publishes the limits, and then changes the attention of each task, unless it is 0. Both
// are sequentially consistent, as are the store and the load here. So if this store replaces the
// update's, the load after it sees the update's limits.
void context_core::show_attention(task_state& t, bool quiet) noexcept {
  if (!quiet) return t.attention.store(0, std::memory_order_relaxed);
  for (;;) {
    const timing::ticks below = quiet_below(t);
    if (t.attention.load(std::memory_order_relaxed) == below) return;
    t.attention.store(below, std::memory_order_seq_cst);
  }
}

void context_core::come_down(task_state& t, timing::ticks now) noexcept {
  decision_lock deciding(t);
  if (!deciding) return;
  const tier_decision decision = tier_manager::on_idle(t.tiers, t.budget, now, limits_of(t));
  apply(t, decision);
  deciding.unlock();
  announce(t, decision);
}

bool context_core::overspent(task_state& t, timing::ticks now) noexcept {
  if (live_.shadow()) return false;
  if (group_over_budget(t, now)) return true;
  if (!holds_back(t.level.load(std::memory_order_relaxed))) return false;
  if (t.budget.over(now)) return true;
  come_down(t, now);  // it may have been clean for long enough to be demoted
  return false;
}

void context_core::refuse_isolation(task_state& t, const hooks::poll_frame* frame) noexcept {
  counters_.add<&statistics::isolations_refused>();
  if (!t.declared()) return;  // the program did not declare it, so it cannot be isolatable
  const char* why =
      !t.isolatable
          ? "the task was not declared isolatable: its handlers may share state with others "
            "(set task_options::isolatable, and use the task's executor)"
      : one_thread_
          ? "the context has a concurrency hint for one thread, and its handlers may rely on that"
      : options_.isolation_threads == 0
          ? "the context has no isolation threads (options::isolation_threads is 0)"
          : "the isolation pool could not start a thread (no thread, memory or descriptor); it "
            "tries again with the next isolatable task";
  send_report(report_kind::isolation_refused, t, frame, std::chrono::nanoseconds{0}, why);
}

}  // namespace asio_pulse::detail
