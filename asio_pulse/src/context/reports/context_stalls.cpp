// SPDX-License-Identifier: BSL-1.0
//
// How a context reacts to a poll that does not end. Called by the watchdog.
#include "context_companion.hpp"
#include "stalled_poll.hpp"
#include "tasks/decision_lock.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <array>
#include <cerrno>
#include <new>
#include <span>
#include <string_view>

namespace asio_pulse::detail {
namespace {

/// What could not be read from the kernel; empty if nothing is missing, or the cause is known
/// anyway.
std::string_view gap_of(const stalled_poll& s) noexcept {
  if (s.cause != stall_cause::unknown) return {};
  switch (s.fault) {
    case 0:
      return {};
    case EMFILE:
    case ENFILE:
      return "no file descriptor was free to look at the thread";
    default:
      return "/proc does not show the thread";
  }
}

std::string_view detail_of(const stalled_poll& s, std::span<char> buffer) noexcept {
  constexpr std::string_view critical = "in a critical section";
  const std::string_view gap = gap_of(s);
  if (!s.critical || gap.empty()) return s.critical ? critical : gap;
  std::size_t length = 0;
  for (const std::string_view part : {critical, std::string_view{"; "}, gap}) {
    length += part.copy(buffer.data() + length, buffer.size() - length);
  }
  return {buffer.data(), length};
}

}  // namespace

void context_core::woken() noexcept { companion_->woken(); }

void context_core::stalled(const stalled_poll& s) noexcept {
  counters_.add<&statistics::stalls>();
  if (s.cause == stall_cause::spinning) counters_.add<&statistics::stalls_spinning>();
  if (s.cause == stall_cause::blocked) counters_.add<&statistics::stalls_blocked>();
  companion_->stall_began(s, s.task != nullptr ? *s.task : *unnamed_);
}

void context_core::announce_stall(const stalled_poll& s) noexcept {
  const task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  hooks_.stall({.task_id = t.id(),
                .task_name = t.name.get(),
                .site = s.site != nullptr ? s.site->type_name : std::string_view{},
                .thread = s.thread,
                .so_far = s.lasted});
}

context_core::escalation context_core::escalate(const stalled_poll& s, timing::ticks now,
                                                timing::ticks culpable) noexcept {
  task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  // If the task belongs to another context, that context decides.
  context_core& home = t.core();
  if (live_.shadow() || home.live_.shadow()) return {.decided = true};
  decision_lock deciding(t);
  if (!deciding) return {};
  const tier_decision decision = tier_manager::on_stall(t.tiers, now, culpable, home.limits_of(t));
  if (decision.changed()) home.apply(t, decision);
  return {.decided = true, .change = decision};
}

void context_core::announce_escalation(const stalled_poll& s,
                                       const tier_decision& change) noexcept {
  task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  context_core& home = t.core();
  home.announce(t, change);
  if (isolates(change.to) && !home.may_isolate(t)) home.refuse_isolation(t, nullptr);
}

report_slot& context_core::stall_slot(task_state& t) noexcept {
  task_extras* const extras = t.make_extras();
  return extras != nullptr ? extras->stall_reports : common_reports_;
}

report_limiter::verdict context_core::admit_stall(const stalled_poll& s, bool shown) noexcept {
  report_slot& slot = stall_slot(s.task != nullptr ? *s.task : *unnamed_);
  const timing::ticks now = timing::timebase::get().now();
  return shown ? limiter_.admit_more(slot, now) : limiter_.try_admit(slot, now);
}

void context_core::describe_stall(const stalled_poll& s, std::string_view system_call,
                                  std::span<const stack_frame> stack) noexcept {
  companion_->stall_described(s, system_call, stack);
}

bool context_core::observed() const noexcept { return companion_->observed(); }

void context_core::stall_over(const stalled_poll& s) noexcept { companion_->stall_over(s); }

void context_core::hold_back_stall(const stalled_poll& s) noexcept {
  const report_kinds silent = live_.silenced();
  if (silent.contains(report_kind::stall) && silent.contains(report_kind::stall_ended)) return;
  limiter_.hold_back(stall_slot(s.task != nullptr ? *s.task : *unnamed_));
}

void context_core::report_stall(report_kind kind, const stalled_poll& s, std::uint64_t suppressed,
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
  std::array<char, 128> detail{};
  r.detail = detail_of(s, detail);
  r.cause = s.cause;
  r.system_call = system_call;
  r.stack = stack;
  if (kind == report_kind::stall) r.why_no_stack = s.why_no_stack;
  r.thread = s.thread_number;
  counters_.add<&statistics::stall_reports>();
  deliver(r, t);
}

void context_core::report_overstay(const stalled_poll& s,
                                   std::chrono::nanoseconds stayed) noexcept {
  task_state& t = s.task != nullptr ? *s.task : *unnamed_;
  report r;
  r.kind = report_kind::critical_overstay;
  if (s.site != nullptr) r.site = s.site->type_name;
  r.poll = r.cpu_or_occupancy = stayed;
  r.exact = false;
  r.before = r.after = t.level.load(std::memory_order_relaxed);
  r.detail = "a critical section has lasted longer than options::max_critical and has not ended";
  r.thread = s.thread_number;
  send(r, t, nullptr);
}

}  // namespace asio_pulse::detail
