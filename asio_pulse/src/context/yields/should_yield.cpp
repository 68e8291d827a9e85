// SPDX-License-Identifier: BSL-1.0
#include "current_poll.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/should_yield.hpp>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

namespace asio_pulse {

namespace {

using detail::core_of;
using detail::poll_of;

// How many checkpoints pass before the next look in a thread that is not a worker.
constexpr std::int32_t idle_fuel = 1024;
// The same in a poll that must not yield now, but perhaps a few calls later. A guess.
std::int32_t fuel_after_refusal() noexcept { return hooks::detail::always_preempt() ? 0 : 16; }

// The number of critical sections in this poll. Only its own thread writes it; the watchdog reads
// it.
std::uint32_t entered(const std::atomic<std::uint32_t>& sections) noexcept {
  return sections.load(std::memory_order_relaxed);
}
void set_entered(std::atomic<std::uint32_t>& sections, std::uint32_t n) noexcept {
  sections.store(n, std::memory_order_relaxed);
}

detail::task_state& task_of(const hooks::poll_frame& frame, detail::context_core& core) noexcept {
  hooks::task_record* const t = frame.task();
  return static_cast<detail::task_state&>(t != nullptr ? *t : core.unnamed());
}

std::chrono::nanoseconds lasted(const hooks::thread_state& ts,
                                const hooks::poll_frame& frame) noexcept {
  const timing::timebase& base = timing::timebase::get();
  const timing::ticks now = base.now();
  return base.to_ns(now - std::min(frame.started(ts.clock.last()), now));
}

}  // namespace

bool detail::should_yield_slow() noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  if (ts.arbiter == nullptr || poll_of(ts) == nullptr || entered(ts.critical) != 0) {
    // If there is a critical section, it ends in this poll, so look again soon.
    ts.fuel = entered(ts.critical) != 0 ? 1 : idle_fuel;
    return false;
  }
  if (hooks::registry::calling()) {
    ts.fuel = 1;  // the hook returns in this poll, so look again soon
    return false;
  }
  return core_of(ts)->wants_yield(ts);
}

bool detail::may_be_wanted_out_of_line() noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  const bool hinted = ts.hint->load(std::memory_order_relaxed) != ts.hint_seen;
  return (--ts.fuel <= 0) | hinted;
}

bool detail::refuse_yield() noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  const hooks::poll_frame* const frame = poll_of(ts);
  if (frame == nullptr || ts.arbiter == nullptr || ts.no_yield == 0) return false;
  context_core& core = *core_of(ts);
  ts.fuel = fuel_after_refusal();
  core.send_report(report_kind::yield_refused, task_of(*frame, core), frame, lasted(ts, *frame),
                   "a lock (asio_pulse::mutex) or a no_yield_scope was held at the checkpoint");
  return true;
}

bool detail::yield_here() {
  if (refuse_yield()) return true;
  fiber_block* const b = fiber_here();
  {
    hooks::thread_state& ts = hooks::this_thread();
    hooks::poll_frame* const frame = poll_of(ts);
    if (frame == nullptr || ts.arbiter == nullptr || b == nullptr) return false;
    context_core& core = *core_of(ts);
    // If the poll began on this fiber's stack, by a run function or an inline dispatch, its frame
    // would move with the fiber while the thread still refers to it.
    if (b->suspend == nullptr || b->unwinding || b->holds(frame) || core.closed() ||
        core.port() == nullptr || std::uncaught_exceptions() != 0) {
      ts.fuel = fuel_after_refusal();
      return false;
    }
    if (b->task == nullptr && frame->task() != nullptr) {
      hooks::acquire(*frame->task());
      b->task = frame->task();
    }
  }
  const hooks::location_taken_along location;
  // From here on this may be another thread.
  return b->suspend(*b);
}

hooks::poll_mark detail::enter_no_yield() noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  const auto mark = hooks::poll_mark::of(ts);
  if (mark.frame != nullptr) {
    poll_of(ts)->critical_entered(0);  // so that the end of the poll takes the slow path
    ++ts.no_yield;
  }
  return mark;
}

bool detail::leave_no_yield(const hooks::poll_mark& entered) noexcept {
  if (entered.frame == nullptr) return true;
  hooks::thread_state& ts = hooks::this_thread();
  if (!entered.is_on(ts) || ts.no_yield == 0) return false;
  --ts.no_yield;
  return true;
}

void detail::report_misuse(const char* what) noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const frame = poll_of(ts);
  try {
    const std::string text = std::string(what) +
                             " was left in another handler or on another thread than the one that "
                             "entered it; it ended with the handler that entered it";
    if (ts.arbiter == nullptr) {
      report r;
      r.kind = report_kind::misuse;
      r.detail = text;
      write_to_stderr(r);
      return;
    }
    context_core& core = *core_of(ts);
    task_state& t =
        frame != nullptr ? task_of(*frame, core) : static_cast<task_state&>(core.unnamed());
    core.send_report(report_kind::misuse, t, frame, std::chrono::nanoseconds{0}, text);
  } catch (...) {  // NOLINT(bugprone-empty-catch): no memory for the report
  }
}

critical_section::critical_section() noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  entered_ = hooks::poll_mark::of(ts);
  if (entered_.frame == nullptr) return;  // entered outside handlers, where nothing yields
  const std::uint32_t inside = entered(ts.critical);
  if (inside == 0) {
    since_ = timing::timebase::get().now();
    hooks::show_critical(ts, true);
    if (ts.slice != nullptr) ts.slice->enter();
  }
  poll_of(ts)->critical_entered(since_);
  set_entered(ts.critical, inside + 1);
}

critical_section::~critical_section() {
  if (entered_.frame == nullptr) return;
  hooks::thread_state& ts = hooks::this_thread();
  const std::uint32_t inside = entered(ts.critical);
  if (!entered_.is_on(ts) || inside == 0) {
    detail::report_misuse("a critical_section");
    return;
  }
  set_entered(ts.critical, inside - 1);
  if (inside == 1) {
    ts.fuel = 0;
    hooks::show_critical(ts, false);
    if (ts.slice != nullptr && ts.slice->leave()) timing::yield_slice();
  }
  if (since_ == 0 || ts.arbiter == nullptr) return;
  detail::context_core& core = *core_of(ts);
  const timing::timebase& base = timing::timebase::get();
  const timing::ticks now = base.now();
  const auto stayed = base.to_ns(now - (since_ < now ? since_ : now));
  const std::chrono::nanoseconds most = core.live().max_critical();
  if (most.count() == 0 || stayed <= most) return;
  hooks::poll_frame* const frame = poll_of(ts);
  core.send_report(report_kind::critical_overstay, task_of(*frame, core), frame, stayed,
                   "a critical section lasted longer than options::max_critical");
}

std::uint64_t this_task::id() noexcept {
  const hooks::task_record* t = hooks::this_thread().current;
  return t == nullptr ? 0 : static_cast<const detail::task_state*>(t)->id();
}

preemption_budget::preemption_budget(const budget_place& place,
                                     std::chrono::nanoseconds budget) noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const frame = poll_of(ts);
  if (ts.arbiter == nullptr || frame == nullptr) return;
  try {
    // A fifth of a CPU: a burst of `budget` now, and the same again after five times that.
    task_options opts{.name = place.function, .budget = budget, .per = budget * 5};
    if (!invalid_reason(opts).empty()) opts = task_options{.name = place.function};
    task_ = core_of(ts)->task_of_place(&place, opts);
  } catch (...) {
    task_ = nullptr;  // there is no memory for the name
  }
  if (task_ == nullptr) return;
  hooks::acquire(*task_);
  before_ = ts.current;
  if (before_ != nullptr) hooks::acquire(*before_);
  polled_ = frame->task();
  if (polled_ != nullptr) hooks::acquire(*polled_);
  frame->reassign(task_);
  ts.current = task_;
}

preemption_budget::~preemption_budget() {
  if (task_ == nullptr) return;
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const frame = poll_of(ts);
  const bool ends = frame != nullptr && frame->task() == task_;
  if (ends) frame->reassign(polled_);
  // The poll, or a scope around this one, holds what was in force before. Outside of that poll
  // there is no reference to hold.
  if (ts.current == task_) ts.current = ends ? before_ : nullptr;
  if (polled_ != nullptr) hooks::release(*polled_);
  if (before_ != nullptr) hooks::release(*before_);
  hooks::release(*task_);
}

}  // namespace asio_pulse
