// SPDX-License-Identifier: BSL-1.0
//
// Changes of the options, and of tasks' budgets, while workers poll.
#include "context_companion.hpp"
#include "gate/parking.hpp"
#include "groups/task_groups.hpp"
#include "option_changes.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {

options context_core::current() const {
  const std::lock_guard lock(update_mutex_);
  return current_;
}

context_core::refusal context_core::update(const changes& what) {
  made_update made;
  refusal why = update(what, made);
  announce(made);
  return why;
}

context_core::refusal context_core::update(const changes& what, made_update& made) {
  return update_by(
      [&what](const options& before, options& to) -> refusal {
        to = changed(before, what);
        if (std::string fault = invalid_reason(to); !fault.empty()) {
          return {error::invalid_option, std::move(fault)};
        }
        return {};
      },
      made);
}

context_core::refusal context_core::update_to(const options& to) {
  if (std::string fault = invalid_reason(to); !fault.empty()) {
    return {error::invalid_option, std::move(fault)};
  }
  made_update made;
  refusal why = update_by(
      [&to](const options& before, options& next) -> refusal {
        if (std::string fault = fixed_reason(before, to); !fault.empty()) {
          return {error::fixed_option, std::move(fault)};
        }
        // Not `to` itself: its callback cannot be compared, and stays as it is.
        next = changed(before, difference(before, to));
        return {};
      },
      made);
  announce(made);
  return why;
}

// A policy that changes is made without the lock, since that may call a function of the program. Then
// another update may have come first.
template <class Next>
context_core::refusal context_core::update_by(const Next& next, made_update& made) {
  chosen_policy policy;
  std::optional<scheduling> made_for;
  for (;;) {
    std::unique_lock lock(update_mutex_);
    options now;
    if (refusal why = next(current_, now); !why.text.empty()) return why;
    if (now.policy == current_.policy || now.policy == made_for) {
      made = take_over(std::move(now), std::move(policy), std::move(lock));
      return {};
    }
    lock.unlock();
    policy = make_policy(now);
    made_for = now.policy;
  }
}

context_core::refusal context_core::update(task_state& t, const task_options& to) {
  if (std::string fault = invalid_reason(to); !fault.empty()) {
    return {error::invalid_option, std::move(fault)};
  }
  if (!to.name.empty() && to.name != t.name.get()) {
    return {error::fixed_option,
            "asio_pulse::task_options.name cannot change while the task exists: reports read it "
            "without a lock"};
  }
  if (to.isolatable != t.isolatable) {
    return {error::fixed_option,
            "asio_pulse::task_options.isolatable cannot change while the task exists: it is a "
            "promise about the program's handlers"};
  }
  if (to.group && to.group != t.group()) {
    return {
        error::fixed_option,
        "asio_pulse::task_options.group cannot change here: a handler of the task changes it with "
        "this_task::join(), which charges what the task has used to the group before"};
  }
  const task_options usual;
  const task_extras* const extras = t.ranked ? t.extras.load(std::memory_order_acquire) : nullptr;
  if (to.priority != usual.priority && (extras == nullptr || to.priority != extras->priority)) {
    return {error::fixed_option,
            "asio_pulse::task_options.priority cannot change while the task exists: the gate reads "
            "it without a lock"};
  }
  if (to.deadline != usual.deadline &&
      (extras == nullptr || timing::to_ticks(to.deadline) != extras->deadline)) {
    return {error::fixed_option,
            "asio_pulse::task_options.deadline cannot change while the task exists: the gate reads "
            "it without a lock"};
  }
  std::unique_lock lock(update_mutex_);
  configure(t.budget, to);
  const std::uint64_t number = count_update();
  lock.unlock();
  announce_update(number, &t, "budget, per, burst");
  return {};
}

// The steps that can fail come first, so that all options change or none does. `policy` is the one that
// the options ask for, and is not used if they do not change it.
context_core::made_update context_core::take_over(options now, chosen_policy policy,
                                                  std::unique_lock<std::mutex> held) {
  const changes what = difference(current_, now);
  if (what == changes{}) {
    held.unlock();  // before the policy ends, which may be the program's
    return {};
  }
  made_update made{.changed = names_of(what)};
  current_ = std::move(now);

  live_.set(current_);
  gate_->configure(current_);
  if (what.policy) policy = gate_->use(std::move(policy));  // the old one ends without a lock
  if (what.report_interval || what.reports_per_second) {
    limiter_.configure(timing::to_ticks(current_.report_interval), current_.reports_per_second,
                       static_cast<timing::ticks>(timing::timebase::get().ticks_per_second()));
  }
  if (what.admission) groups_->configure(current_.admission);
  if (what.unnamed != budget_changes{}) configure(unnamed_->budget, current_.unnamed);
  retune_tasks(what);
  made.number = count_update();
  // Each worker leaves the fast path at its next poll, and looks at its task's attention anew. The
  // release pairs with the acquire in poll_frame::begin_measured().
  if (!closed() && companion_->options_changed(what, current_)) {
    notify_workers();
  } else {
    state.fetch_add(hooks::path_state::generation, std::memory_order_release);
  }
  held.unlock();
  return made;
}

// For updates of which workers need to know only if they are traced.
void context_core::show_update() noexcept {
  if (companion_->tracing()) notify_workers();
}

context_core::made_update context_core::set_weight(group_state& g, unsigned weight) {
  made_update made{.changed = "weight", .group = path_of(g, group_name_bytes)};
  // A fork waits for this mutex, so that it finds that of the gate free.
  const std::lock_guard lock(update_mutex_);
  groups_->set_weight(g, weight);
  gate_->weight_changed(g);
  made.number = count_update();
  show_update();
  return made;
}

// Tasks that are made meanwhile are prepared with the new options: they are added with the list
// locked, after the options were published.
void context_core::retune_tasks(const changes& what) noexcept {
  const bool thresholds = what.stall_threshold || what.yield_threshold || what.isolate_threshold;
  if (!thresholds && !what.shadow && !what.policy && what.accepted == budget_changes{} &&
      what.connected == budget_changes{}) {
    return;
  }
  // Only two words are captured, so that std::function does not allocate.
  tasks_.walk([this, &what](task_state& t) {
    if (t.accepted && what.accepted != budget_changes{}) t.budget.configure(live_.accepted());
    if (t.connected && what.connected != budget_changes{}) t.budget.configure(live_.connected());
    // 0 stays: the arbiter is called for each poll of the task, and decides with the new limits. See
    // show_attention() for the order.
    timing::ticks seen = t.attention.load(std::memory_order_seq_cst);
    const timing::ticks below = quiet_below(t);
    while (seen != 0 && seen != below &&
           !t.attention.compare_exchange_weak(seen, below, std::memory_order_seq_cst)) {
    }
    // A tier that changes meanwhile sets the gate itself, and sees the new mode.
    if (what.policy || (what.shadow && (gate_->by_policy() ||
                                        holds_back(t.level.load(std::memory_order_relaxed)) ||
                                        t.gated.load(std::memory_order_relaxed) != 0))) {
      gate_->set_gate(t);
    }
  });
}

void context_core::announce(const made_update& made) noexcept {
  if (made.number != 0) announce_update(made.number, nullptr, made.changed, made.group);
}

void context_core::announce_update(std::uint64_t number, const task_state* t,
                                   std::string_view names, std::string_view group) noexcept {
  hooks_.options_changed(
      {.number = number,
       .task_id = t != nullptr ? t->id() : 0,
       .task_name = t != nullptr ? std::string_view(t->name.get()) : std::string_view(),
       .changed = names,
       .group = group});
}

}  // namespace asio_pulse::detail
