// SPDX-License-Identifier: BSL-1.0
//
// What a context does about a poll that does not end. Called by the watchdog.
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/decision_lock.hpp>
#include <asio_pulse/detail/inspect_server.hpp>
#include <asio_pulse/detail/watchdog.hpp>
#include <new>

#include "instruments.hpp"

namespace asio_pulse::detail {

void context_core::woken() noexcept { wake_watchdog(); }

task_state* context_core::find_task(const hooks::task_record* address) noexcept {
  if (address == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  for (task_state* t = tasks_; t != nullptr; t = t->next) {
    if (t != address) continue;
    return hooks::try_acquire(*t) ? t : nullptr;
  }
  return nullptr;
}

void context_core::stalled(const stall& s) noexcept {
  stalls_.fetch_add(1, std::memory_order_relaxed);
  if (s.cause == stall_cause::spinning) stalls_spinning_.fetch_add(1, std::memory_order_relaxed);
  if (s.cause == stall_cause::blocked) stalls_blocked_.fetch_add(1, std::memory_order_relaxed);
  const task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  instruments_->stall_began(s, t);
  inspect_stalled(*this);
  const user_code_scope user;
  hooks_.stall({.task_id = t.id,
                .task_name = t.name.get(),
                .site = s.site != nullptr ? s.site->type_name : std::string_view{},
                .thread = s.thread,
                .so_far = s.lasted});
}

bool context_core::escalate(const stall& s, timing::ticks now, timing::ticks culpable) noexcept {
  task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  // A task of another context, polled here: its own decides.
  context_core& home = t.core();
  if (options_.shadow || home.options_.shadow) return true;
  decision_lock deciding(t);
  if (!deciding) return false;
  const tier_decision decision = tier_manager::on_stall(t.tiers, now, culpable, home.limits_of(t));
  if (!decision.changed()) return true;
  home.apply(t, decision);
  deciding.unlock();
  const user_code_scope user;
  home.announce(t, decision);
  if (decision.to == tier::isolate && !home.may_isolate(t)) home.refuse_isolation(t, nullptr);
  return true;
}

// Null where there is no memory for one: then the task's other slot is used, by the caller.
report_slot* context_core::stall_slot(task_state& t) noexcept {
  if (t.stall_reports == nullptr) t.stall_reports.reset(new (std::nothrow) report_slot);
  return t.stall_reports != nullptr ? t.stall_reports.get() : &t.reports;
}

report_limiter::verdict context_core::admit_stall(const stall& s, bool shown) noexcept {
  report_slot& slot = *stall_slot(s.task != nullptr ? *s.task : *unnamed_);
  const timing::ticks now = timing::timebase::get().now();
  return shown ? limiter_.admit_more(slot, now) : limiter_.try_admit(slot, now);
}

void context_core::describe_stall(const stall& s, std::string_view system_call,
                                  std::span<const stack_frame> stack) noexcept {
  instruments_->stall_described(s, system_call, stack);
}

void context_core::stall_over(const stall& s) noexcept { instruments_->stall_over(s); }

void context_core::hold_back_stall(const stall& s) noexcept {
  limiter_.hold_back(*stall_slot(s.task != nullptr ? *s.task : *unnamed_));
}

void context_core::tell_stall(report_kind kind, const stall& s, std::uint64_t suppressed,
                              std::string_view system_call,
                              std::span<const stack_frame> stack) noexcept {
  task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  report r;
  r.kind = kind;
  if (s.site != nullptr) r.site = s.site->type_name;
  r.location = {s.where.file, s.where.line, s.where.function};
  r.poll = s.lasted;
  r.cpu_or_occupancy = s.blamed;
  r.exact = false;
  r.before = r.after = t.level.load(std::memory_order_relaxed);
  r.suppressed = suppressed;
  if (s.critical) r.detail = "in a critical section";
  r.cause = s.cause;
  r.system_call = system_call;
  r.stack = stack;
  r.thread = s.thread_number;
  stall_reports_.fetch_add(1, std::memory_order_relaxed);
  const user_code_scope user;
  deliver(r, t);
}

void context_core::tell_overstay(const stall& s, std::chrono::nanoseconds stayed) noexcept {
  task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  report r;
  r.kind = report_kind::critical_overstay;
  if (s.site != nullptr) r.site = s.site->type_name;
  r.poll = r.cpu_or_occupancy = stayed;
  r.exact = false;
  r.before = r.after = t.level.load(std::memory_order_relaxed);
  r.detail = "a critical section has lasted longer than options::max_critical, and goes on";
  r.thread = s.thread_number;
  const user_code_scope user;
  send(r, t, nullptr);
}

}  // namespace asio_pulse::detail
