// SPDX-License-Identifier: BSL-1.0
//
// Reports about a task: whether one is sent, and where to.
#include "blocked_reason.hpp"
#include "current_poll.hpp"
#include "report_writer.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

void context_core::send_report(report_kind kind, task_state& t, const hooks::poll_frame* frame,
                               std::chrono::nanoseconds duration,
                               std::string_view detail) noexcept {
  report r;
  r.kind = kind;
  if (frame != nullptr) r.site = current_site().type_name;
  r.poll = r.cpu_or_occupancy = duration;
  r.before = r.after = t.level.load(std::memory_order_relaxed);
  r.detail = detail;
  send(r, t, frame);
}

bool context_core::silences(report_kind kind) noexcept {
  if (!live_.silenced().contains(kind)) return false;
  counters_.add<&statistics::reports_silenced>();
  return true;
}

void context_core::send(report& r, task_state& t, const hooks::poll_frame* frame) noexcept {
  if (silences(r.kind)) return;
  task_extras* const extras = t.make_extras();
  report_slot& slot = extras != nullptr ? extras->reports : common_reports_;
  const report_limiter::verdict verdict = limiter_.admit(slot, timing::timebase::get().now());
  if (!verdict.send) return;
  r.suppressed = verdict.suppressed;
  if (frame != nullptr) {
    const hooks::location where = frame->where();
    r.location = {where.file, where.line, where.function};
  }
  deliver(r, t);
}

void context_core::deliver(report& r, task_state& t) noexcept {
  r.task = t.name.get();
  r.task_id = t.id();
  r.clock = clock_in_use_.load(std::memory_order_relaxed);
  r.remedy = remedy_of(r);
  try {
    const std::string type = short_type(r.site);
    r.site = type;
    if (!options_.on_report) {
      report_writer::get().post(r, reports_dropped_);
    } else {
      options_.on_report(r);
    }
  } catch (...) {
    // The exception must not propagate into the handler that is running.
    counters_.add<&statistics::callback_errors>();
  }
}

}  // namespace asio_pulse::detail
