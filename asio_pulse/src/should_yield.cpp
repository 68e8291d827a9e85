// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/should_yield.hpp>
#include <string>

namespace asio_pulse {

namespace {

// Every observer of the poll path is a context's core.
detail::context_core* core_of(const hooks::thread_state& ts) noexcept {
  return static_cast<detail::context_core*>(ts.observer);
}

// Checkpoints of a thread that has nobody to yield to look again this often.
constexpr std::int32_t idle_fuel = 1024;

}  // namespace

bool detail::should_yield_slow(hooks::thread_state& ts) noexcept {
  if (ts.observer == nullptr || ts.top == nullptr || ts.critical != 0) {
    // A critical section ends in this poll: look again soon.
    ts.fuel = ts.critical != 0 ? 1 : idle_fuel;
    return false;
  }
  return core_of(ts)->wants_yield(ts);
}

critical_section::critical_section() noexcept
    : frame_(hooks::this_thread().top), entered_(timing::timebase::get().now()) {
  if (frame_ != nullptr) frame_->critical_entered();
  ++hooks::this_thread().critical;
}

critical_section::~critical_section() {
  hooks::thread_state& ts = hooks::this_thread();
  // Left in another poll, or on another thread, than it was entered in: that poll's end has settled
  // the account.
  if (ts.top != frame_ || ts.critical == 0) return;
  --ts.critical;
  ts.fuel = 0;
  if (frame_ == nullptr || ts.observer == nullptr) return;
  detail::context_core& core = *core_of(ts);
  const timing::timebase& base = timing::timebase::get();
  const timing::ticks now = base.now();
  const auto stayed = base.to_ns(now - (entered_ < now ? entered_ : now));
  if (core.opts().max_critical.count() == 0 || stayed <= core.opts().max_critical) return;
  hooks::task_record& t = frame_->task() != nullptr ? *frame_->task() : core.unnamed();
  core.tell(report_kind::critical_overstay, static_cast<detail::task_state&>(t), frame_, stayed,
            "a critical section lasted longer than options::max_critical");
}

std::uint64_t this_task::id() noexcept {
  const hooks::task_record* t = hooks::this_thread().current;
  return t == nullptr ? 0 : static_cast<const detail::task_state*>(t)->id;
}

preemption_budget::preemption_budget(const budget_place& place,
                                     std::chrono::nanoseconds budget) noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  if (ts.observer == nullptr || ts.top == nullptr) return;
  try {
    // A share of a fifth: a burst of `budget` now, and as much again when five times that has
    // passed.
    task_options opts{.name = place.function, .budget = budget, .per = budget * 5};
    if (!invalid_reason(opts).empty()) opts = task_options{.name = place.function};
    task_ = core_of(ts)->task_of_place(&place, opts);
  } catch (...) {
    task_ = nullptr;  // no memory for a name
  }
  if (task_ == nullptr) return;
  hooks::acquire(*task_);
  before_ = ts.current;
  if (before_ != nullptr) hooks::acquire(*before_);
  ts.top->reassign(task_);
  ts.current = task_;
}

preemption_budget::~preemption_budget() {
  if (task_ == nullptr) return;
  hooks::thread_state& ts = hooks::this_thread();
  if (ts.top != nullptr && ts.top->task() == task_) ts.top->reassign(before_);
  // The poll holds what it was given; outside any poll there is nobody to hold it for.
  if (ts.current == task_)
    ts.current = ts.top != nullptr && ts.top->task() == before_ ? before_ : nullptr;
  if (before_ != nullptr) hooks::release(*before_);
  hooks::release(*task_);
}

}  // namespace asio_pulse
